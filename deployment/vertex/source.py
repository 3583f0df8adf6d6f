"""What of this project travels to the machines that run steps: source, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deployment.stacks import PROJECT

UPLOADED = (
    "deployment/**/*.py",
    "materializers/**/*.py",
    "pipelines/**/*.py",
    "steps/**/*.py",
    "tamis/**/*.py",
    "data/demo_annotations.jsonl",  # labels of the demo task; its documents are in the image
)
"""Files that steps need. ZenML by itself takes all that git does not ignore: data and keys too."""


def files() -> dict[str, str]:
    """The files to upload: path in the archive, path on this machine."""
    found = {file for pattern in UPLOADED for file in PROJECT.glob(pattern) if file.is_file()}
    names = {file.relative_to(PROJECT).as_posix(): str(file) for file in sorted(found)}
    # Of notebooks, Terraform and environments.
    return {name: path for name, path in names.items() if "/." not in name}


@contextmanager
def only_source() -> Iterator[None]:
    """Have ZenML upload the files above in this block, whatever else lies in the project.

    ZenML has no setting for it: its archive is everything below the source root.
    """
    from zenml.utils import code_utils

    class SourceArchive(code_utils.CodeArchive):
        def get_files(self) -> dict[str, str]:
            return files()

    original = code_utils.CodeArchive
    code_utils.CodeArchive = SourceArchive  # type: ignore[misc]
    try:
        yield
    finally:
        code_utils.CodeArchive = original  # type: ignore[misc]
