"""The record of a package, and that its files are those it names."""

import pytest

from deployment.packaging.record import (
    FILE,
    Package,
    Sizes,
    fingerprint_of,
    hashes_of,
    read_package,
)
from tamis.errors import ModelError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "bento").mkdir()
    (tmp_path / "bento" / "bento.yaml").write_text("a")
    (tmp_path / "Dockerfile").write_text("FROM scratch")
    files = hashes_of(tmp_path)
    package = Package(
        task="toy", version="7", digest="d" * 64, registered="2026-01-01T00:00:00+00:00",
        backend="onnx", reason="It was asked for.", margin=0.0, threshold=2.5, code="0.1.0+a",
        image="python:3@sha256:0", packages=3, hashed=True, bento="toy:7-abc",
        packed="2026-01-01T00:00:00+00:00", tried=True, inputs="i" * 64,
        fingerprint=fingerprint_of(files), files=files, sizes=Sizes(code=1, model=2, packages=3),
    )  # fmt: skip
    (tmp_path / FILE).write_text(package.model_dump_json())
    return tmp_path


def test_it_is_read_back(folder):
    found = read_package(folder)
    assert set(found.files) == {"bento/bento.yaml", "Dockerfile"}
    assert found.task == "toy"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: (folder / "Dockerfile").write_text("FROM evil"), "Dockerfile is not"),
        (lambda folder: (folder / "Dockerfile").unlink(), "Dockerfile is not"),
        (lambda folder: (folder / "more").write_text(""), "more is not"),
        (lambda folder: (folder / "link").symlink_to("/etc/passwd"), "link is a link"),
        (lambda folder: (folder / FILE).write_text("{}"), "damaged"),
        (lambda folder: (folder / FILE).write_bytes(b"\xff"), "damaged"),
        (lambda folder: (folder / FILE).unlink(), "No such file"),
        (
            lambda folder: (folder / FILE).write_text(
                (folder / FILE).read_text().replace(read_package(folder).fingerprint, "0" * 64)
            ),
            "not as it was packed",
        ),
    ],
)
def test_another_content_is_refused(folder, change, told):
    change(folder)
    with pytest.raises(ModelError, match=told):
        read_package(folder)
