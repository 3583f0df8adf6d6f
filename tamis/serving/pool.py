"""Requests wait here for a thread that scores: bounded, fair, and given up when too late."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tamis.models.classifier import Classifier, Scores

_ALIKE = 2.0
"""Texts of one batch differ in length by at most this factor: padding is computed, too."""
_SMOOTH = 0.05
"""Weight of the newest request in the mean time of a document."""


class Busy(Exception):
    """Too much is waiting.

    Args:
        seconds: When it is worth another try.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"too many documents are waiting; try again in {seconds:.0f} s")
        self.seconds = seconds


@dataclass(frozen=True)
class Scored:
    """What is known of some texts.

    Attributes:
        scores: Of shape (n,).
        vectors: Of shape (n, d), where they were asked for.
    """

    scores: Scores
    vectors: NDArray[np.float32] | None = None


@dataclass(slots=True)
class _Job:
    texts: Sequence[str]
    answer: Future[Scored]
    deadline: float
    longest: int = field(init=False)

    def __post_init__(self) -> None:
        self.longest = max((len(text) for text in self.texts), default=0)


class ScoringPool:
    """Threads that each score with a classifier of their own, from one queue.

    Each thread has a classifier, since not every backend may be called by two threads at once,
    and one core, since documents side by side waste less than one document spread over cores.

    Args:
        load: Makes a classifier; called once in each thread.
        threads: How many.
        most: Documents that may wait.
        batch: Most documents of several requests that are scored together; 1 joins none.
        embed: Whether vectors are wanted, too; they are a second pass.

    Raises:
        ModelError: What ``load`` raises, in the first thread.
    """

    def __init__(
        self,
        load: Callable[[], Classifier],
        threads: int,
        most: int,
        batch: int = 1,
        embed: bool = False,
    ) -> None:
        self._most, self._batch, self._embed = most, batch, embed
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self._per_document = 0.01
        self._closed = False
        self._changed = threading.Condition()
        self.classifiers = [load() for _ in range(threads)]
        self._threads = [
            threading.Thread(target=self._work, args=(one,), name=f"score-{n}", daemon=True)
            for n, one in enumerate(self.classifiers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Documents that wait."""
        return self._waiting

    @property
    def alive(self) -> bool:
        """Whether every thread still runs."""
        return all(thread.is_alive() for thread in self._threads)

    def submit(self, texts: Sequence[str], seconds: float) -> Future[Scored]:
        """Have texts scored; cancelled, or too late, they are not.

        Args:
            texts: The texts (n).
            seconds: How long the answer is of use.

        Returns:
            What was found, or TimeoutError if no thread came to it in time.

        Raises:
            Busy: The queue is full; one request finds room in an empty one, however large.
        """
        answer: Future[Scored] = Future()
        job = _Job(texts, answer, time.monotonic() + seconds)
        with self._changed:
            if self._closed or (self._waiting and self._waiting + len(texts) > self._most):
                raise Busy(max(1.0, self._waiting * self._per_document / len(self._threads)))
            self._jobs.append(job)
            self._waiting += len(texts)
            self._changed.notify()
        return answer

    def close(self) -> None:
        """Score what waits, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self, classifier: Classifier) -> None:
        while jobs := self._take():
            texts = [text for job in jobs for text in job.texts]
            started = time.monotonic()
            try:
                scores = classifier.score(texts)
                vectors = classifier.embed(texts)[0] if self._embed else None
            except BaseException as error:  # whoever asked is told, and the thread goes on
                for job in jobs:
                    job.answer.set_exception(error)
                continue
            taken = (time.monotonic() - started) / max(1, len(texts))
            self._per_document += _SMOOTH * (taken - self._per_document)
            start = 0
            for job in jobs:
                part = slice(start, start + len(job.texts))
                start = part.stop
                own = Scores(scores.values[part], scores.tokens[part])
                job.answer.set_result(Scored(own, None if vectors is None else vectors[part]))

    def _take(self) -> list[_Job]:
        """The next request, and others like it that may join; none once all is done and closed."""
        with self._changed:
            while True:
                first = self._next(0)
                if first is not None:
                    break
                if self._closed:
                    return []
                self._changed.wait()
            jobs, room, place = [first], self._batch - len(first.texts), 0
            while room > 0 and place < len(self._jobs):
                other = self._jobs[place]
                if len(other.texts) > room or not _alike(first, other):
                    place += 1
                elif (taken := self._next(place)) is not None:
                    jobs.append(taken)
                    room -= len(taken.texts)
            return jobs

    def _next(self, place: int) -> _Job | None:
        """Take the request at a place, or what follows once those nobody waits for are gone."""
        while place < len(self._jobs):
            job = self._jobs[place]
            del self._jobs[place]
            self._waiting -= len(job.texts)
            if not job.answer.set_running_or_notify_cancel():
                continue
            if time.monotonic() <= job.deadline:
                return job
            job.answer.set_exception(TimeoutError())
        return None


def _alike(one: _Job, other: _Job) -> bool:
    shorter, longer = sorted((one.longest + 1, other.longest + 1))
    return longer <= _ALIKE * shorter
