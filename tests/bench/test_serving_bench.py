import asyncio
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.serving import missed
from bench.serving_load import driven, scores
from bench.serving_soak import trend

PROJECT = Path(__file__).resolve().parents[2]


def test_the_whole_benchmark_runs_on_a_small_model(tmp_path):
    output = tmp_path / "serving.json"
    command = [sys.executable, "bench/serving.py", "--quick", "--output", str(output)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(output.read_text())
    cells = {(r["name"], r["connections"], r["documents_per_request"]) for r in rows}
    peers = ("tamis", "fastapi", "mlflow")
    assert cells == {(name, *cell) for name in peers for cell in ((1, 1), (4, 1), (4, 4))}
    for row in rows:
        assert row["errors"] == 0, row
        assert row["requests"] == (32 if row["documents_per_request"] == 1 else 16)
        assert row["docs_per_second"] > 0 and row["cpu_ms_per_doc"] > 0
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        # The same network on the same texts: one a request, nothing may differ but the rounding.
        if row["documents_per_request"] == 1:
            assert row["score_difference"] < 1e-5


class Server:
    """Answers requests on loopback one after another, as it is told."""

    def __init__(self, answers):
        self.answers, self.asked, self.connections = list(answers), [], 0

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.asked.append(await reader.readexactly(size))
                answer = self.answers.pop(0) if self.answers else ok()
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


def ok(body=b'{"predictions": [1.5]}', status=b"200 OK"):
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def loaded(server, monkeypatch, **spec):
    """What the load client says of a server, without a process of its own."""
    monkeypatch.setattr("sys.stdin", type("Go", (), {"readline": staticmethod(lambda: "go\n")}))

    async def run():
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        given = {"port": port, "path": "/score", "headers": {}, "connections": 2, "keep": True}
        async with listening:
            return await asyncio.wait_for(driven(given | spec), 20)

    return asyncio.run(run())


def test_the_load_client_sends_each_document_in_turn_and_keeps_its_connections(monkeypatch):
    server = Server([])
    bodies = ["one", "two", "drei \N{WHITE SMILING FACE}"]
    found = loaded(server, monkeypatch, bodies=bodies, warm=3, requests=7)
    assert len(server.asked) == 10 and server.connections == 2
    assert sorted(server.asked[:3]) == sorted(each.encode() for each in bodies)
    assert len(found["latencies"]) == 7 and found["failures"] == {}
    assert found["scores"] == {number: [1.5] for number in range(7)}


def test_the_load_client_counts_what_goes_wrong_and_goes_on(monkeypatch):
    refused = ok(b"{}", b"503 Busy")
    server = Server([ok(), refused, None, b"HTTP/1.1 200 OK\r\n\r\n", ok(b"nonsense")])
    found = loaded(server, monkeypatch, bodies=["x"], requests=9, connections=1)
    assert found["failures"] == {
        "status 503": 1,
        "connection lost": 1,
        "no HTTP/1.1 answer with a length": 1,
    }
    assert server.connections == 3
    assert [found["scores"][number] for number in (0, 4, 5)] == [[1.5], None, [1.5]]


def test_an_answer_that_does_not_come_is_an_error(monkeypatch):
    server = Server([b""])
    found = loaded(server, monkeypatch, bodies=["x"], requests=2, connections=1, timeout_s=0.2)
    assert found["failures"] == {"no answer in time": 1}
    assert len(found["latencies"]) == 1


@pytest.mark.parametrize(
    "body, wanted",
    [
        (b'{"documents": [{"score": 1}, {"score": 2.5}]}', [1.0, 2.5]),
        (b'{"predictions": [0.5]}', [0.5]),
        (b'{"documents": [{}]}', None),
        (b"[1]", None),
        (b"", None),
    ],
)
def test_scores_are_read_from_every_service(body, wanted):
    assert scores(body) == wanted


def test_memory_that_grows_is_told_from_memory_that_does_not():
    seconds = np.arange(300.0)
    noise = np.random.default_rng(0).normal(0, 1, 300).cumsum() * 0.02
    flat, leak = trend(seconds, 300 + noise), trend(seconds, 300 + noise + seconds * 0.1)
    assert leak["mb_per_hour_low"] > 300 and leak["growth_high"] > 0.09
    assert flat["growth_high"] < 0.02
    assert flat["mb_per_hour_low"] <= flat["mb_per_hour"] <= flat["mb_per_hour_high"]


def row(name, docs, p99=100.0, **more):
    given = {"name": name, "connections": 16, "documents_per_request": 1, "errors": 0}
    return given | {"docs_per_second": docs, "p99_ms": p99, "score_difference": 0.0} | more


def test_what_was_not_reached_is_told():
    bare, slow = row("fastapi", 100.0), row("mlflow", 10.0)
    assert missed([row("tamis", 95.0, times_fastapi=0.95), bare, slow]) == []
    told = missed([row("tamis", 40.0, 120.0, times_fastapi=0.4, errors=2), bare, slow])
    assert [line.split(": ")[1].split(",")[0] for line in told] == [
        "2 errors", "0.40 times the bare endpoint", "4.00 times MLflow", "p99 120 ms",
    ]  # fmt: skip
    other = row("tamis", 95.0, times_fastapi=0.95, score_difference=0.01)
    assert "a score differs" in missed([other, bare, slow])[0]
    assert missed([row("tamis-bf16", 95.0, score_difference=0.01)]) == []
