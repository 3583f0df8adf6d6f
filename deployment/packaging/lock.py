"""The lock file: what pip installs where the service runs, and nothing else.

Hashes of the wheels are kept beside this module, since they cannot be had without an index:

    python -m deployment.packaging.lock      asks it for those of the present pins
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.utils import canonicalize_name

from deployment.packaging.closure import PYTHON, Pin
from tamis.errors import EngineError, UsageError

HASHES = Path(__file__).with_name("hashes.json")
LOCK = "requirements.lock"
TORCH_LOCK = "torch.lock"
_TORCH = "torch"
_TAGS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64",
         "manylinux2014_x86_64", "manylinux_2_5_x86_64", "manylinux1_x86_64")  # fmt: skip
"""Wheels that the image can use (PEP 600); its C library is 2.36."""


def read_hashes(path: Path = HASHES) -> dict[str, str]:
    """sha256 of the wheel of each pin, ``name==version``; empty where none are kept.

    Raises:
        UsageError: The file holds something else.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from None
    if not isinstance(found, dict) or not all(
        isinstance(value, str) and len(value) == 64 for value in found.values()
    ):
        raise UsageError(f"{path}: given something else; allowed: sha256 by name==version")
    return found


def write_lock(pins: Iterable[Pin], hashes: Mapping[str, str], folder: Path) -> bool:
    """Write the lock file, and one for torch where it is needed.

    Torch is built for each kind of processor and its builds come from an index of their own, so
    it stands in a file of its own, without hash.

    Args:
        pins: What is needed.
        hashes: sha256 of the wheels.
        folder: For the files.

    Returns:
        Whether the lock has a hash for everything; pip checks all or none.
    """
    all_pins = tuple(pins)
    ours = [pin for pin in all_pins if pin.key != _TORCH]
    missing = [pin for pin in ours if _key(pin) not in hashes]
    head = f"# Made by `run.py package`, for Linux on x86-64 and Python {PYTHON}.\n"
    if missing:
        some = ", ".join(map(str, missing[:3]))
        head += f"# Without hashes: {len(missing)} are not known, such as that of {some}.\n"
    lines = [
        str(pin) if missing else f"{pin} \\\n    --hash=sha256:{hashes[_key(pin)]}" for pin in ours
    ]
    (folder / LOCK).write_text(head + "\n".join(lines) + "\n", "utf-8")
    torch = [pin for pin in all_pins if pin.key == _TORCH]
    if torch:
        (folder / TORCH_LOCK).write_text(head.splitlines()[0] + f"\n{torch[0]}\n", "utf-8")
    return not missing


def _key(pin: Pin) -> str:
    return f"{pin.key}=={pin.version}"


def fetch_hashes(pins: Iterable[Pin]) -> dict[str, str]:
    """Ask pip's index for the wheels of some pins.

    Raises:
        EngineError: One has no wheel for the image, or the index does not answer.
    """
    wanted = {_key(pin) for pin in pins if pin.key != _TORCH}
    with TemporaryDirectory() as folder:
        names, report = Path(folder) / "names.txt", Path(folder) / "report.json"
        names.write_text("\n".join(sorted(wanted)), "utf-8")
        command = [
            sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet",
            "--no-deps", "--only-binary=:all:", f"--python-version={PYTHON}",
            "--implementation=cp", *(f"--platform={tag}" for tag in _TAGS),
            f"--target={folder}/none", f"--report={report}", f"--requirement={names}",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise EngineError(f"pip: {done.stderr.strip()[-600:]}")
        rows = json.loads(report.read_text("utf-8"))["install"]
    found = {}
    for row in rows:
        name = canonicalize_name(row["metadata"]["name"])
        hashes = row["download_info"]["archive_info"]["hashes"]
        found[f"{name}=={row['metadata']['version']}"] = str(hashes["sha256"])
    if lost := wanted - set(found):
        raise EngineError(f"pip: no wheel was found for {', '.join(sorted(lost))}")
    return dict(sorted(found.items()))


def main() -> None:
    """Renew the hashes of all that any package may need."""
    from deployment.packaging.build import all_pins

    found = fetch_hashes(all_pins())
    HASHES.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    sys.stdout.write(f"{len(found)} hashes are in {HASHES.name}\n")


if __name__ == "__main__":
    main()
