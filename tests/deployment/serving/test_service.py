"""The real service as a process, asked over HTTP."""

import contextlib
import http.client
import json
import re
import shutil
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tamis.corpus.readers import list_shards
from tamis.engine.local import LocalEngine
from tamis.models.classifier import digest
from tamis.scoring.backends.folder import export
from tamis.scoring.filter_run import run_filter
from tamis.scoring.load import LoadScorer
from tamis.scoring.plan import SiftPlan
from tamis.serving.keys import ApiKey, hash_of, new_key, read_keys, write_keys
from tamis.serving.model import CLASSIFIER, FILE, Probe, ServedModel
from tests.deployment.serving.small_service import LIMITS, save_served, serving
from tests.scoring.backends.test_onnx import make_classifier
from tests.tiny import easy_texts, save_tiny_bert

TEXT = "proof theorem word1 lemma"
LINES = {"Content_Type": "application/x-ndjson"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    return save_served(folder)


@pytest.fixture(scope="module")
def service(model, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("service"), model, limits=LIMITS) as running:
        yield running


def documents(*texts):
    return {"documents": [{"text": text} for text in texts]}


def test_documents_are_scored_in_order_with_what_decided(service, model):
    served = ServedModel.model_validate_json((model / FILE).read_text("utf-8"))
    body = documents(TEXT, "cheap sale click offer")
    body["documents"][1]["id"] = "mine"
    answer = service.ask("/score", body, X_Request_ID="request-0001")
    found = answer.json
    assert answer.status == 200
    assert found["request_id"] == answer.headers["X-Request-ID"] == "request-0001"
    assert found["model"] == {"task": "toy", "version": "1", "digest": served.digest}
    assert answer.headers["X-Model-Version"] == "toy/1"
    good, bad = found["documents"]
    assert (good["id"], bad["id"]) == ("request-0001-0", "mine")
    assert good["score"] == pytest.approx(served.probes[0].score, abs=1e-6)
    assert found["threshold"] == served.threshold
    assert (good["decision"], bad["decision"]) == ("keep", "drop")
    assert bad["score"] < found["threshold"] <= good["score"]


def test_an_explanation_adds_up_over_the_words(service):
    body = documents(TEXT) | {"explain": True}
    found = service.ask("/score", body).json["documents"][0]["explanation"]
    assert [word["text"] for word in found["words"]] == TEXT.split()
    assert found["read"][found["words"][1]["start"] : found["words"][1]["end"]] == "theorem"
    weights = {word["text"]: word["weight"] for word in found["words"]}
    assert weights["theorem"] > weights["word1"]


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("Bearer tamis_revoked", 401),
        ("Bearer ", 401),
        ("Basic tamis_a-key-for-tests", 401),
        ("bearer tamis_a-key-for-tests", 200),
    ],
)
def test_only_a_key_in_force_may_ask(service, authorization, status):
    service.base = {} if authorization is None else {"Authorization": authorization}
    try:
        answer = service.ask("/score", documents(TEXT))
    finally:
        service.base = {"Authorization": "Bearer tamis_a-key-for-tests"}
    assert answer.status == status
    assert (answer.headers["WWW-Authenticate"] == "Bearer") == (status == 401)


def test_a_key_counts_and_is_revoked_while_the_service_runs(service):
    path, key = service.folder / "keys.json", new_key()
    known = list(read_keys(path).keys)
    made = ApiKey(name="new", hash=hash_of(key))

    def status():
        return service.ask("/score", documents(TEXT), Authorization=f"Bearer {key}").status

    for keys, expected in (([made], 200), ([made.model_copy(update={"revoked": True})], 401)):
        write_keys(path, [*known, *keys])
        until = time.monotonic() + 15
        while status() != expected and time.monotonic() < until:
            time.sleep(0.1)
        assert status() == expected


@pytest.mark.parametrize(
    ("body", "more", "status", "code"),
    [
        (documents(*["x"] * 33), {}, 413, "too_many_documents"),
        (documents("x" * 2_001), {}, 413, "too_long"),
        (documents("x" * 70_000), {}, 413, "too_large"),
        (documents(*["x"] * 5) | {"explain": True}, {}, 413, "too_many_documents"),
        ({"documents": []}, {}, 422, "unfit"),
        ({"documents": [{"text": 3}]}, {}, 422, "unfit"),
        ({"documents": [{"text": "x", "author": "y"}]}, {}, 422, "unfit"),
        (b"{", {}, 400, "no_json"),
        (b'{"documents": [{"text": "\xff"}]}', {}, 400, "no_json"),
        (documents("x"), {"Content_Type": "text/plain"}, 415, "unsupported_type"),
        (documents("x"), {"Content_Encoding": "gzip"}, 415, "compressed"),
    ],
)
def test_what_is_not_allowed_is_refused_in_a_sentence(service, body, more, status, code):
    answer = service.ask("/score", body, **more)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert re.fullmatch(r"[^\n]+\.", answer.json["error"]["message"])
    assert answer.json["request_id"] == answer.headers["X-Request-ID"]


def test_routes_and_methods_that_are_not_there(service):
    assert service.ask("/nothing").status == 404
    assert service.ask("/schema.json").status == 404
    answer = service.ask("/score")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


def test_every_answer_bears_the_security_headers(service):
    for path in ("/", "/readyz", "/model", "/nothing"):
        headers = service.ask(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "Server" not in headers


def test_a_stream_answers_each_line_in_its_order(service):
    good = [json.dumps({"id": str(n), "text": f"proof word{n}"}) for n in range(100)]
    lines = [
        *good[:50],
        "nonsense",
        '{"text": 1}',
        "",
        *good[50:],
        json.dumps({"text": "y" * 3_000}),
    ]
    answer = service.ask("/score_stream", "\n".join(lines).encode(), **LINES)
    found = [json.loads(line) for line in answer.body.splitlines()]
    assert answer.status == 200
    assert [one["id"] for one in found if "id" in one] == [str(n) for n in range(100)]
    wrong = {one["line"]: one["error"]["code"] for one in found if "error" in one}
    assert wrong == {51: "no_json", 52: "unfit", 103: "too_long"}
    alone = service.ask("/score", documents("proof word7")).json["documents"][0]
    assert found[7]["score"] == alone["score"]


def test_a_stream_is_answered_while_it_is_sent(service):
    line = json.dumps({"text": "proof"}).encode() + b"\n"
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/score_stream")
        for name, value in (service.base | {"Content-Type": "application/x-ndjson"}).items():
            connection.putheader(name, value)
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        for _ in range(8):
            chunk = line * 32
            connection.send(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        answer = connection.getresponse()
        assert answer.status == 200
        assert json.loads(answer.readline())["decision"] == "keep"
        connection.send(b"0\r\n\r\n")
        assert len(answer.read().splitlines()) == 8 * 32 - 1


def test_labels_and_requests_are_logged_without_the_text(service):
    service.ask("/score", {"documents": [{"id": "log-me", "text": "secret proof"}]})
    answer = service.ask("/feedback", {"labels": [{"id": "log-me", "label": 4}]})
    assert (answer.status, answer.json) == (202, {"accepted": 1})

    def logged(kind):
        return "".join(p.read_text("utf-8") for p in (service.folder / "log" / kind).glob("*"))

    until = time.monotonic() + 15
    while "log-me" not in logged("segments") and time.monotonic() < until:
        time.sleep(0.05)
    record = next(line for line in logged("segments").splitlines() if "log-me" in line)
    assert "secret" not in record
    assert json.loads(record)["model_version"] == "toy/1"
    assert json.loads(record)["key"] == "test"
    assert "log-me" in logged("feedback")
    assert "secret" not in (service.folder / "service.log").read_text("utf-8")


def test_the_form_of_vertex_ai(service):
    body = {"instances": [{"text": TEXT, "id": "v"}], "parameters": {"x": 1}}
    found = service.ask("/predict", body).json["predictions"]
    same = service.ask("/score", documents(TEXT)).json["documents"][0]
    assert found == [same | {"id": "v"}]


def test_figures_count_what_happened(service):
    def figure(name):
        lines = service.ask("/metrics").body.decode().splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(name)), 0.0)

    names = (
        'tamis_requests_total{route="/score",status="200"}',
        'tamis_documents_total{decision="drop"}',
        "tamis_score_count",
        'tamis_rejected_total{reason="unfit"}',
    )
    before = [figure(name) for name in names]
    service.ask("/score", documents("cheap sale", "buy click"))
    service.ask("/score", {"documents": []})
    assert [figure(name) - was for name, was in zip(names, before, strict=True)] == [1, 2, 2, 1]
    assert figure('tamis_model_info{backend="torch"') == 1


def test_figures_of_the_reference_have_the_buckets_of_live_scores(service):
    text = service.ask("/metrics").body.decode()
    edges = {
        name: re.findall(rf'^{name}_bucket{{le="([^"]+)"}} ', text, re.MULTILINE)
        for name in ("tamis_score", "tamis_reference_score")
    }
    assert set(edges["tamis_score"]) == set(edges["tamis_reference_score"])
    assert len(edges["tamis_reference_score"]) == 21
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    documents = float(figures["tamis_reference_documents"])
    assert documents > 0
    assert float(figures['tamis_reference_score_bucket{le="+Inf"}']) == documents
    assert 0 < float(figures["tamis_reference_kept_ratio"]) < 1
    assert float(figures["tamis_queue_limit_documents"]) == 512


def test_a_service_at_its_limits_turns_away_and_recovers(model, tmp_path):
    with serving(tmp_path, model, queue_documents=1, rate={"requests_per_minute": 60}) as small:
        found = []
        body = documents(*["proof word1 " * 2_000] * 60)

        def ask():
            found.append(small.ask("/score", body))

        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        statuses = {answer.status for answer in found}
        assert statuses == {200, 503}
        turned = next(answer for answer in found if answer.status == 503)
        assert turned.json["error"]["code"] == "overloaded"
        assert int(turned.headers["Retry-After"]) >= 1
        assert small.ask("/readyz").status == 200
        last = [small.ask("/score", documents("x")) for _ in range(60)]
        assert {answer.status for answer in last} == {200, 429}
        assert 1 <= int(last[-1].headers["Retry-After"]) <= 60
        assert small.ask("/livez").status == 200


def test_a_model_that_scores_otherwise_than_prepared_never_gets_ready(model, tmp_path):
    spoilt = Path(shutil.copytree(model, tmp_path / "spoilt"))
    served = ServedModel.model_validate_json((spoilt / FILE).read_text("utf-8"))
    probes = (Probe(text=TEXT, score=served.probes[0].score - 1),)
    changed = served.model_copy(update={"probes": probes})
    (spoilt / FILE).write_text(changed.model_dump_json(), "utf-8")
    with serving(tmp_path, spoilt, wait=False) as broken:
        until = time.monotonic() + 60
        log = tmp_path / "service.log"
        while "not ready" not in log.read_text("utf-8") and time.monotonic() < until:
            time.sleep(0.1)
        assert "a probe scores" in log.read_text("utf-8")
        assert broken.ask("/livez").status == 200
        assert broken.ask("/readyz").status == 503
        answer = broken.ask("/score", documents(TEXT))
        assert (answer.status, answer.json["error"]["code"]) == (503, "not_ready")


@pytest.mark.parametrize("backend", ["onnx", "onnx-int8"])
def test_the_service_scores_exactly_as_the_filter(backend, tmp_path):
    saved = tmp_path / "model"
    classifier = make_classifier(save_tiny_bert(tmp_path / "bert"))
    classifier.save(saved)
    folder = tmp_path / "served"
    shutil.copytree(export(saved, backend, tmp_path / "exports"), folder / CLASSIFIER)
    threshold, margin = classifier.info.threshold, 0.2 if backend == "onnx-int8" else 0.0
    served = ServedModel(
        task="toy", version="1", digest=digest(saved), backend=backend, margin=margin,
        threshold=threshold, scale=(0.0, 5.0), created="now",
    )  # fmt: skip
    (folder / FILE).write_text(served.model_dump_json(), "utf-8")
    texts = easy_texts([n / 40 for n in range(40)])
    corpus = tmp_path / "corpus.jsonl"
    rows = [{"id": str(n), "text": text} for n, text in enumerate(texts)]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    plan = SiftPlan(
        model_dir=str(folder / CLASSIFIER), output=str(tmp_path / "out"), threshold=threshold,
        scale=(0.0, 5.0), model_version="toy/1", load=LoadScorer(threshold, margin), threads=1,
    )  # fmt: skip
    run_filter(plan, list_shards([str(corpus)]), engine=LocalEngine(0))
    filtered = {}
    for path in (tmp_path / "out").rglob("*.parquet"):
        for row in pq.read_table(path).to_pylist():
            filtered[row["id"]] = row
    with serving(tmp_path, folder) as running:
        answers = running.ask("/score", {"documents": rows}).json["documents"]
    assert len(answers) == len(texts)
    compared = [one for one in answers if filtered[one["id"]]["score"] is not None]
    assert len(compared) > 30
    for one in compared:
        assert one["score"] == filtered[one["id"]]["score"]
        assert one["tokens"] == filtered[one["id"]]["tokens"]
