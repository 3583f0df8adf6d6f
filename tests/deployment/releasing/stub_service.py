"""A service that keeps the HTTP contract and loads nothing: python stub_service.py MODEL PORT LOG.

MODEL is a folder with stub.json: {"task", "version", "shift", "errors", "after", "slow"}; what it
scores a text depends on the text and the shift alone. It can be told to err at a rate.
"""

import hashlib
import json
import os
import re
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

EDGES = [step / 20 for step in range(1, 21)]
SECONDS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0]


def score_of(text, shift):
    value = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
    return min(1.0, max(0.0, 0.2 + 0.6 * value + shift))


class State:
    def __init__(self, model, port, log):
        self.model = json.loads((model / "stub.json").read_text())
        self.mutex = threading.Lock()
        self.requests, self.seconds, self.scores, self.kept = {}, [0] * 8, [0] * 21, [0, 0]
        self.number = 0
        self.log = None
        if log:
            folder = Path(log) / "segments"
            folder.mkdir(parents=True, exist_ok=True)
            began = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
            name = f"{began}-{os.getpid()}-{port:08x}.jsonl"
            self.log = (folder / name).open("a", buffering=1)

    def answer(self, documents, request_id, shadow):
        begun = time.perf_counter()
        with self.mutex:
            self.number += 1
            number = self.number
        if self.model.get("slow"):
            time.sleep(self.model["slow"])
        if self.model.get("dies") and number >= self.model["dies"]:
            os._exit(9)
        rate = self.model.get("errors", 0)
        failed = rate and (number % round(1 / rate)) == 0
        found, lines = [], []
        for index, document in enumerate(documents):
            score = score_of(document["text"], self.model.get("shift", 0))
            decision = "keep" if score >= 0.5 else "drop"
            found.append(
                {
                    "id": document.get("id") or f"{request_id}-{index}",
                    "score": score,
                    "decision": decision,
                    "tokens": 3,
                }
            )
            lines.append(
                json.dumps(
                    {
                        "kind": "served",
                        "id": found[-1]["id"],
                        "request_id": request_id,
                        "index": index,
                        "at": datetime.now(UTC).isoformat(),
                        "model_version": f"{self.model['task']}/{self.model['version']}",
                        "score": score,
                        "decision": decision,
                        "characters": 3,
                        "tokens": 3,
                        "shadow": shadow,
                    }
                )
            )
        with self.mutex:
            status = 500 if failed else 200
            self.requests[status] = self.requests.get(status, 0) + 1
            taken = time.perf_counter() - begun
            self.seconds[sum(taken > edge for edge in SECONDS)] += 1
            if not failed:
                for each in found:
                    self.scores[sum(each["score"] > edge for edge in EDGES)] += 1
                    self.kept[each["decision"] == "keep"] += 1
                if self.log:
                    self.log.write("\n".join(lines) + "\n")
        return None if failed else found

    def metrics(self):
        with self.mutex:
            out = ["# TYPE tamis_requests counter"]
            for status, count in self.requests.items():
                out.append(f'tamis_requests_total{{route="/score",status="{status}"}} {count}')
            out.append("# TYPE tamis_documents counter")
            out.append(f'tamis_documents_total{{decision="keep"}} {self.kept[1]}')
            out.append(f'tamis_documents_total{{decision="drop"}} {self.kept[0]}')
            groups = [
                ("tamis_score", EDGES, self.scores, ""),
                ("tamis_request_seconds", SECONDS, self.seconds, 'route="/score",'),
            ]
            for name, edges, counts, labels in groups:
                out.append(f"# TYPE {name} histogram")
                below = 0
                for edge, count in zip([*edges, "+Inf"], counts, strict=True):
                    below += count
                    out.append(f'{name}_bucket{{{labels}le="{edge}"}} {below}')
            return "\n".join(out) + "\n"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def send(self, status, body, kind="application/json", **headers):
        raw = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(raw)

    def do_GET(self):
        if self.path in ("/readyz", "/livez"):
            self.send(200, "ok", "text/plain")
        elif self.path == "/metrics":
            self.send(200, self.server.state.metrics(), "text/plain")
        else:
            self.send(404, "{}")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        given = self.headers.get("X-Request-ID", "")
        request_id = given if re.fullmatch(r"[A-Za-z0-9_-]{8,64}", given) else "0" * 16
        state = self.server.state
        names = {"X_Request_ID": request_id, "X_Model_Version": state.model["version"]}
        documents = json.loads(body)["documents"]
        if any("refuse me" in document["text"] for document in documents):
            self.send(422, "{}", **names)
            return
        found = state.answer(documents, request_id, self.headers.get("X-Tamis-Shadow") == "1")
        if found is None:
            self.send(500, "{}", **names)
            return
        told = {
            "request_id": request_id,
            "documents": found,
            "threshold": 0.5,
            "model": {"version": state.model["version"]},
        }
        self.send(200, json.dumps(told), **names)


class Server(ThreadingHTTPServer):
    daemon_threads = False  # what is in flight is answered
    block_on_close = True
    request_queue_size = 256


def main():
    model, port, log = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    if json.loads((model / "stub.json").read_text()).get("broken"):
        sys.exit("the model is damaged")
    server = Server(("127.0.0.1", port), Handler)
    server.state = State(model, port, log)
    Handler.timeout = 1.0  # of an idle connection, so that the end does not wait for one
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.02)


if __name__ == "__main__":
    main()
