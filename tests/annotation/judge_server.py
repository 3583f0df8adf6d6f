"""A server on loopback that speaks the chat-completions protocol, and fails as it is told to."""

import json
import re
import socket
import struct
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-test-51f0c2"
DOCUMENT = re.compile(r"<(document-[0-9a-f]{16})>\n(.*)\n</\1>", re.DOTALL)


def score_of(text):
    """What this judge thinks of a document that ends in ``score N``."""
    found = re.findall(r"score (-?\d+)", text)
    return int(found[-1]) if found else len(text) % 6


class Server(ThreadingHTTPServer):
    """Counts requests and those under way; ``faults`` maps a word in a document to what happens.

    A fault is (name, times): how often it strikes a document before it is over.
    """

    daemon_threads = True

    def __init__(self, faults=None, usage=True, structured=True, second=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults = faults or {}
        self.usage, self.structured, self.second = usage, structured, second
        self.lock = threading.Lock()
        self.bodies, self.headers = [], []
        self.struck = Counter()
        self.under_way = self.most_under_way = 0
        self.release = threading.Event()  # ends what is slow
        self.gate = None  # (answers, event): from so many answers on, wait for the event
        self.answers = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def texts(self):
        return [DOCUMENT.search(body["messages"][1]["content"])[2] for body in self.bodies]

    def handle_error(self, request, client_address):
        pass  # clients that have gone


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server = self.server
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        body = json.loads(raw)
        text = DOCUMENT.search(body["messages"][1]["content"])[2]
        with server.lock:
            server.bodies.append(body)
            server.headers.append({k.lower(): v for k, v in self.headers.items()})
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
            fault = self._fault(text)
        try:
            if self.path != "/v1/chat/completions":
                return self._send(404, {"error": {"message": "no such path"}})
            if "response_format" in body and not server.structured:
                return self._send(400, {"error": {"message": "response_format is not supported"}})
            if fault:
                return getattr(self, f"_{fault.partition(' ')[0]}")(fault, text)
            return self._answer(self._content(text, body))
        finally:
            with server.lock:
                server.under_way -= 1

    def _fault(self, text):
        for word, (name, times) in self.server.faults.items():
            if word in text and self.server.struck[text, word] < times:
                self.server.struck[text, word] += 1
                return name
        return None

    def _content(self, text, body):
        score = score_of(text)
        if self.server.second and "second, independent" in body["messages"][0]["content"]:
            score = self.server.second(text, score)
        return json.dumps({"reason": f"it says {text[:20]}", "score": score})

    def _answer(self, content, finish="stop", **message):
        with self.server.lock:
            self.server.answers += 1
            gate = self.server.gate
        if gate and self.server.answers > gate[0]:
            gate[1].wait(30)
        found = {
            "id": "x",
            "object": "chat.completion",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": finish,
                    "message": {"role": "assistant", "content": content, **message},
                }
            ],
        }
        if self.server.usage:
            found["usage"] = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
        self._send(200, found)

    def _send(self, status, body, headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _status(self, fault, text):
        _, status, *more = fault.split(" ", 2)
        error = {"message": f"broken; key {KEY}", "code": more[0] if more else None}
        self._send(int(status), {"error": error})

    def _limited(self, fault, text):
        wait = fault.partition(" ")[2]
        self._send(429, {"error": {"message": "slow down"}}, [("Retry-After", wait)])

    def _slow(self, fault, text):
        self.server.release.wait(30)
        self.close_connection = True

    def _trickle(self, fault, text):
        """A header, then a byte now and then: no single read takes long."""
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        while not self.server.release.wait(0.05):
            self.wfile.write(b" ")
            self.wfile.flush()
        self.close_connection = True

    def _html(self, fault, text):
        self._send(200, b"<html>a proxy's page</html>")

    def _cut(self, fault, text):
        """Half of the body that was promised, then the end."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "5000")
        self.end_headers()
        self.wfile.write(b'{"choices": [{"mess')
        self.wfile.flush()
        self.close_connection = True

    def _reset(self, fault, text):
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.wfile.flush()
        self.connection.close()
        self.close_connection = True

    def _endless(self, fault, text):
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        block = b" " * 65_536
        for _ in range(200):
            self.wfile.write(block)

    def _packed(self, fault, text):
        self._send(200, b"\x1f\x8b", [("Content-Encoding", "gzip")])

    def _refusal(self, fault, text):
        self._answer(None, refusal="I cannot rate this.")

    def _filtered(self, fault, text):
        self._answer("", finish="content_filter")

    def _says(self, fault, text):
        self._answer(fault.partition(" ")[2])

    def _truncated(self, fault, text):
        self._answer('{"reason": "it goes on and', finish="length")

    def log_message(self, *args):
        pass


@contextmanager
def serving(**given):
    """A running server, ended with the block."""
    server = Server(**given)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        if server.gate:
            server.gate[1].set()
        server.shutdown()
        server.server_close()
        thread.join()
