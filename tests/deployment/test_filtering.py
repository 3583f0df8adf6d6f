import json
from types import SimpleNamespace

import pytest

from deployment import filtering
from deployment.filtering import FilterRequest, check, shards_of
from deployment.session import Session
from deployment.stacks import LocalStack
from tamis.corpus.readers import list_shards
from tamis.engine.local import LocalEngine
from tamis.errors import ResumeRefused, UsageError
from tamis.scoring.filter_run import run_filter
from tests.scoring import filter_stubs as stubs
from tests.scoring.test_cascade import make
from tests.tiny import tiny_task


def local_session(home):
    return Session("local", LocalStack(kind="local", home=str(home)))


def test_the_embedded_pool_lies_on_one_machine(tmp_path):
    request = FilterRequest(
        inputs=("packages",), output="o", version="1", engine="ray", ray_address="auto"
    )
    with pytest.raises(UsageError, match="--input: given 'packages', which lies on this machine"):
        shards_of(request, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cascade", [None, make()])
def test_an_output_of_the_encoder_alone_says_how_to_go_on(tmp_path, monkeypatch, cascade):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "one"}))
    shards = list_shards([str(tmp_path / "a.jsonl")])
    out = str(tmp_path / "out")
    run_filter(stubs.make_plan(out), shards, engine=LocalEngine(0), progress=stubs.quiet)
    scoring = SimpleNamespace(cascade=cascade and cascade.fingerprint)
    plan = stubs.make_plan(out, threshold=2.5, cascade=cascade)
    monkeypatch.setattr(filtering, "plan_of", lambda *given: (plan, scoring))
    monkeypatch.setattr(filtering, "_parts", lambda *given: {})
    request = FilterRequest(inputs=(str(tmp_path / "a.jsonl"),), output=out, version="1")
    with pytest.raises(ResumeRefused) as refused:
        check(tiny_task(tmp_path), request, local_session(tmp_path))
    assert ("--encoder-only" in str(refused.value)) == (cascade is not None)


@pytest.mark.parametrize(
    ("asked", "taken", "part"),
    [
        ("auto", "onnx-int8", "was calibrated with it"),
        ("onnx-int8", "onnx-int8", "was calibrated with it"),
        ("torch", "torch", "The task names it; the cascade's band was calibrated with onnx-int8"),
    ],
)
def test_a_named_backend_runs_beside_a_cascade(tmp_path, monkeypatch, asked, taken, part):
    cascade = make(backend="onnx-int8", margin=0.25)
    monkeypatch.setattr(filtering, "model_plan", lambda *given: stubs.make_plan(tmp_path, "m"))
    monkeypatch.setattr(filtering, "_cascade", lambda *given: (cascade, "a cascade"))
    monkeypatch.setattr(filtering, "export", lambda folder, backend, home: tmp_path / backend)
    task = tiny_task(tmp_path, scoring={"backend": asked})
    request = FilterRequest(inputs=("x",), output="o", version="1")
    plan, scoring = filtering.plan_of(task, request, tmp_path)
    assert (scoring.backend.backend, plan.model_dir) == (taken, str(tmp_path / taken))
    assert part in scoring.sentence
    assert plan.load.margin == (0.25 if taken == "onnx-int8" else 0.0)
