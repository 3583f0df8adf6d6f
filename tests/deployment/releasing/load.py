"""Clients that count every answer: python load.py PORT tells the counts when its input ends."""

import http.client
import itertools
import json
import sys
import threading
import time
from collections import Counter


def until(true, seconds=20.0):
    """Wait for what another process does."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ask(port, text, path="/score", headers=(), connection=None, **more):
    """One request: status, answer and headers."""
    own = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    body = json.dumps({"documents": [{"text": text}]} | more)
    sent = {"Content-Type": "application/json", **dict(headers)}
    try:
        own.request("POST", path, body, sent)
        answer = own.getresponse()
        return answer.status, json.loads(answer.read() or b"{}"), answer.headers
    finally:
        if connection is None:
            own.close()


class Load:
    """Clients that ask until they are told to end, and count every answer.

    Half of them keep their connection. A kept connection that the server closes before it has
    answered anything is opened again and the request repeated, as every client has to.
    """

    def __init__(self, port, clients=4, pause=0.004):
        self.port, self.pause = port, pause
        self.counts, self.versions, self.lost = Counter(), Counter(), []
        self.repeated = 0
        self.numbers = itertools.count()
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number % 2 == 0,)) for number in range(clients)
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _run(self, keep):
        connection = None
        while not self._end.is_set():
            number = next(self.numbers)
            try:
                connection = self._one(number, connection, keep)
            except Exception as error:
                self.lost.append(f"{number}: {error!r}")
                connection = None
            time.sleep(self.pause)
        if connection:
            connection.close()

    def _one(self, number, connection, keep):
        fresh = connection is None
        own = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            status, answer, headers = ask(self.port, f"text {number}", connection=own)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            own.close()
            if fresh:
                raise
            self.repeated += 1
            return self._one(number, None, keep)
        self.counts[status] += 1
        self.versions[answer.get("model", {}).get("version")] += 1
        if not keep or headers.get("Connection") == "close":
            own.close()
            return None
        return own


if __name__ == "__main__":
    with Load(int(sys.argv[1]), pause=0.03) as load:
        sys.stdin.read()
    told = {"counts": load.counts, "lost": load.lost, "repeated": load.repeated}
    sys.stdout.write(json.dumps(told))
