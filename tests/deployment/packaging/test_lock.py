"""The lock file."""

import json

import pytest

from deployment.packaging.closure import Pin
from deployment.packaging.lock import LOCK, TORCH_LOCK, read_hashes, write_lock
from tamis.errors import UsageError

PINS = (Pin("PyYAML", "6.0"), Pin("torch", "2.13.0"), Pin("zipp", "4.1"))
HASHES = {"pyyaml==6.0": "a" * 64, "zipp==4.1": "b" * 64}


def lines(path):
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


def test_every_pin_has_its_hash_and_torch_a_file_of_its_own(tmp_path):
    assert write_lock(PINS, HASHES, tmp_path)
    assert lines(tmp_path / LOCK) == [
        "PyYAML==6.0 \\", f"    --hash=sha256:{'a' * 64}",
        "zipp==4.1 \\", f"    --hash=sha256:{'b' * 64}",
    ]  # fmt: skip
    assert lines(tmp_path / TORCH_LOCK) == ["torch==2.13.0"]


def test_without_one_hash_there_is_none_since_pip_checks_all_or_none(tmp_path):
    assert not write_lock(PINS, {"zipp==4.1": "b" * 64}, tmp_path)
    assert lines(tmp_path / LOCK) == ["PyYAML==6.0", "zipp==4.1"]
    assert "1 are not known, such as that of PyYAML==6.0" in (tmp_path / LOCK).read_text()


def test_without_torch_there_is_no_file_for_it(tmp_path):
    write_lock(PINS[:1], HASHES, tmp_path)
    assert not (tmp_path / TORCH_LOCK).exists()


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"zipp==4.1": "short"})])
def test_other_files_of_hashes_are_refused(tmp_path, content):
    (tmp_path / "hashes.json").write_text(content)
    with pytest.raises(UsageError, match=r"hashes\.json"):
        read_hashes(tmp_path / "hashes.json")


def test_no_file_of_hashes_knows_none(tmp_path):
    assert read_hashes(tmp_path / "hashes.json") == {}
