import pytest

from tamis.engine import base
from tamis.engine.base import available_cores


@pytest.mark.parametrize(
    ("content", "cores"),
    [("200000 100000\n", 2), ("50000 100000", 1), ("250000 100000", 2), ("max 100000", None),
     ("", None), ("nonsense", None)],
)  # fmt: skip
def test_a_container_has_the_cores_of_its_quota(content, cores, tmp_path):
    (tmp_path / "cpu.max").write_text(content)
    assert base._quota(tmp_path / "cpu.max") == cores
    assert base._quota(tmp_path / "none") is None


def test_the_smaller_of_quota_and_affinity_counts(monkeypatch):
    monkeypatch.setattr(base.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for quota, cores in ((None, 8), (3, 3), (64, 8)):
        monkeypatch.setattr(base, "_quota", lambda quota=quota: quota)
        assert available_cores() == cores
