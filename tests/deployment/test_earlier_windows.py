"""What a second retraining finds of the first one's window."""

from types import SimpleNamespace

import pytest

from deployment import earlier_windows
from deployment.earlier_windows import earlier_documents
from deployment.registry import Version
from tamis.errors import DataError
from tamis.models.info import TrainedOn
from tests.tiny import labelled

DATA = labelled(["a", "b", "c"], [1.0, 2.0, 3.0])
CHAMPION = Version("toy", "2", ("champion",), {"data_fingerprint": "f2"}, "", "")


def trained_on(*window):
    return TrainedOn(
        fingerprint="x", train=("doc0", "doc1"), validation=(), test=("doc2",), window=window
    )


@pytest.fixture
def kept(monkeypatch):
    """A catalogue with one version of data."""
    asked = []

    def catalogue(task):
        asked.append(task)
        return SimpleNamespace(versions=[SimpleNamespace(fingerprint="f2")])

    monkeypatch.setattr(earlier_windows, "catalogue", catalogue)
    monkeypatch.setattr(earlier_windows, "load", lambda version: DATA)
    return asked


def test_the_documents_of_windows_are_taken_out_of_the_champions_data(kept):
    found = earlier_documents(CHAMPION, trained_on("doc1", "doc2"))
    assert found.strings("id").tolist() == ["doc1", "doc2"]
    assert found.info.labelled == 2


def test_a_champion_without_windows_needs_no_look(kept):
    assert len(earlier_documents(CHAMPION, trained_on())) == 0
    assert kept == []


def test_documents_that_were_deleted_are_gone_and_retraining_goes_on(kept, monkeypatch, caplog):
    other = Version("toy", "3", (), {"data_fingerprint": "f3"}, "", "")
    assert len(earlier_documents(other, trained_on("doc1"))) == 0

    def deleted(version):
        raise DataError("its files were deleted")

    monkeypatch.setattr(earlier_windows, "load", deleted)
    assert len(earlier_documents(CHAMPION, trained_on("doc1"))) == 0
    assert "its files were deleted" in caplog.text
