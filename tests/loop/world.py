"""Documents of a small world, the judge who labels them, and clients that send them."""

import http.client
import json
import random
import re
import threading
import time
from collections import Counter

from tests.annotation.judge_server import Handler, Server
from tests.tiny import BAD_WORDS, GOOD_WORDS, NEUTRAL_WORDS

NEW_GOOD, NEW_BAD = NEUTRAL_WORDS[:6], NEUTRAL_WORDS[6:12]
OLD_NEUTRAL, NEW_NEUTRAL = NEUTRAL_WORDS[12:80], NEUTRAL_WORDS[80:]
WORDS = re.compile(r"\w+")


def document(kind, chance):
    """One document.

    ``usual``: as in training. ``style``: other neutral words and mostly good ones, whose worth the
    champion tells as well as ever. ``moved``: good and bad are told by words that it never saw.
    """
    good, bad = (NEW_GOOD, NEW_BAD) if kind == "moved" else (GOOD_WORDS, BAD_WORDS)
    neutral = OLD_NEUTRAL if kind == "usual" else NEW_NEUTRAL
    share = chance.uniform(0.6, 1) if kind == "style" else chance.random()
    words = [
        chance.choice(neutral)
        if chance.random() < 0.3
        else chance.choice(good if chance.random() < share else bad)
        for _ in range(chance.randrange(24, 40))
    ]
    return " ".join(words)


def worth(text):
    """The label that a document deserves, 0 to 5, by the words of both kinds in it."""
    words = WORDS.findall(text)
    good = sum(word in GOOD_WORDS or word in NEW_GOOD for word in words)
    bad = sum(word in BAD_WORDS or word in NEW_BAD for word in words)
    return round(5 * good / max(good + bad, 1))


class Judge(Server):
    """The judge server of the tests of annotation, with this world's idea of worth."""

    def __init__(self):
        super().__init__()
        self.RequestHandlerClass = _Judging

    def __enter__(self):
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Judging(Handler):
    def _content(self, text, body):
        return json.dumps({"reason": "by its words", "score": worth(text)})


class Traffic:
    """Clients that send documents of a kind until they are told to end; every answer counts."""

    def __init__(self, port, clients=2, pause=0.03):
        self.port, self.kind, self._pause = port, "usual", pause
        self.answers, self.lost = Counter(), []
        self.versions = Counter()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(clients)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number):
        chance, connection = random.Random(number), None
        while not self._end.is_set():
            body = json.dumps({"documents": [{"text": document(self.kind, chance)}]})
            for attempt in (1, 2, 3):
                fresh = connection is None
                connection = connection or http.client.HTTPConnection("127.0.0.1", self.port,
                                                                      timeout=20)  # fmt: skip
                try:
                    connection.request("POST", "/score", body, {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                    told = json.loads(answer.read())
                except (OSError, http.client.HTTPException, ValueError) as error:
                    connection.close()
                    connection = None
                    # A kept connection may have been closed before it was used again.
                    if fresh or attempt == 3:
                        self.lost.append(repr(error))
                        break
                    continue
                self.answers[answer.status] += 1
                self.versions[told.get("model", {}).get("version")] += 1
                break
            time.sleep(self._pause)


def until(true, seconds=120.0, what="it"):
    """Wait for what other processes do."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"{what} did not come in {seconds:g} s"
        time.sleep(0.1)
    return found
