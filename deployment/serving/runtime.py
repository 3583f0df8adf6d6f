"""A model at work: loaded in the background, tested, then asked."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from deployment.serving.environment import Environment
from deployment.serving.metrics import Metrics
from deployment.serving.problems import Problem, busy, too_large
from deployment.serving.schemas import DocumentOut, ExplanationOut, WordOut
from tamis.engine.base import available_cores
from tamis.errors import TamisError
from tamis.monitoring.feedback import FeedbackLog, Label
from tamis.monitoring.request_log import RequestLog, RequestRecord
from tamis.serving.model import load_served, self_test
from tamis.serving.pool import Busy, Scored, ScoringPool
from tamis.serving.settings import ServeSettings

if TYPE_CHECKING:
    from starlette.requests import Request

    from deployment.serving.schemas import DocumentIn, Instance, LabelIn
    from tamis.explanation.words import Explanation
    from tamis.models.classifier import Classifier

logger = logging.getLogger("tamis.serving")

_KEYS_EVERY = 1.0
"""Seconds between looks at the file of keys."""
_DECIMALS = 6
"""As in the rows of a filter."""


class Asked(NamedTuple):
    """Who asks.

    Attributes:
        request_id: Of the request.
        key: Name of the key.
        shadow: Whether the answer is only compared, not given.
    """

    request_id: str
    key: str
    shadow: bool


class Runtime:
    """What one service process holds.

    Args:
        environment: How it serves.
    """

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.served = environment.served
        self.settings = environment.settings
        self.metrics = Metrics(self.served, self.settings.queue_documents)
        self.log: RequestLog | None = None
        self.feedback: FeedbackLog | None = None
        if environment.log is not None and self.settings.log.enabled:
            self.log = RequestLog(environment.log, self.settings.log, self.served.name)
            self.feedback = FeedbackLog(environment.log, self.settings.log)
        self.problem: str | None = "the model is being loaded"
        self._pool: ScoringPool | None = None
        self._explaining = asyncio.Semaphore(1)
        self._explainer: Classifier | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._counted = (0, 0)

    async def start(self) -> None:
        """Load the model in a thread, so that the process answers that it is alive meanwhile."""
        for work in (self._load(), self._look_after()):
            self._tasks.add(asyncio.create_task(work))

    async def stop(self) -> None:
        """Answer what waits, write what is to be logged, end the threads."""
        self.problem = "the service is going down"
        for task in self._tasks:
            task.cancel()
        if self._pool is not None:
            await asyncio.to_thread(self._pool.close)
        if self.log is not None:
            await asyncio.to_thread(self.log.close)
        if self.feedback is not None:
            self.feedback.close()

    @property
    def ready(self) -> bool:
        """Whether requests can be answered."""
        return self.problem is None and self._pool is not None and self._pool.alive

    async def score(
        self,
        documents: Sequence[DocumentIn | Instance],
        asked: Asked,
        *,
        explain: bool = False,
    ) -> list[DocumentOut]:
        """Score the documents of a request, and log them.

        Args:
            documents: What was sent.
            asked: By whom.
            explain: Whether to say why.

        Raises:
            Problem: A limit is passed, or there is no room.
        """
        self._check(documents, explain)
        scored = await self._scores([document.text for document in documents], patient=False)
        found = [out for _, out in self._noted(list(enumerate(documents)), scored, asked)]
        if explain:
            for document, out in zip(documents, found, strict=True):
                out.explanation = _as_out(await self._explain(document.text))
        return found

    async def score_numbered(
        self, documents: Sequence[tuple[int, DocumentIn]], asked: Asked
    ) -> list[tuple[int, DocumentOut]]:
        """Score numbered documents of a stream, and wait for room as long as it takes.

        Raises:
            Problem: The service is not ready, or they waited too long for a thread.
        """
        scored = await self._scores([document.text for _, document in documents], patient=True)
        return self._noted(documents, scored, asked)

    def _noted(
        self,
        documents: Sequence[tuple[int, DocumentIn | Instance]],
        found: Scored,
        asked: Asked,
    ) -> list[tuple[int, DocumentOut]]:
        """Answers, counted and logged."""
        outs = []
        values, tokens = found.scores.values.tolist(), found.scores.tokens.tolist()
        for row, (number, document) in enumerate(documents):
            score = round(values[row], _DECIMALS)
            out = DocumentOut(
                id=document.id or f"{asked.request_id}-{number}",
                score=score,
                decision="keep" if score >= self.served.threshold else "drop",
                tokens=tokens[row],
            )
            self.metrics.scored(out.score, out.decision == "keep", len(document.text))
            if self.log is not None:
                vector = None if found.vectors is None else found.vectors[row]
                self.log.put(_record(document.text, out, number, asked, self.served.name, vector))
            outs.append((number, out))
        return outs

    async def take_feedback(self, labels: Sequence[LabelIn], key: str) -> int:
        """Keep labels for served documents; how many were taken in.

        Raises:
            Problem: There is no log to keep them in.
        """
        if self.feedback is None:
            raise Problem(503, "no_log", "This service keeps no log.", {"Retry-After": "3600"})
        now = datetime.now(UTC)
        rows = [Label(id=each.id, label=each.label, at=now, key=key) for each in labels]
        return await asyncio.to_thread(self.feedback.append, rows)

    def _check(self, documents: Sequence[DocumentIn | Instance], explain: bool) -> None:
        limits = self.settings.limits
        if len(documents) > limits.documents:
            raise too_large("Documents of a request", limits.documents, "too_many_documents")
        if explain and len(documents) > limits.explained:
            raise too_large("Documents to explain", limits.explained, "too_many_documents")
        if any(len(document.text) > limits.characters for document in documents):
            raise too_large("Characters of a document", limits.characters, "too_long")

    async def _scores(self, texts: Sequence[str], patient: bool) -> Scored:
        pool, seconds = self._pool, self.settings.limits.seconds
        if pool is None or not self.ready:
            raise busy(5, "not_ready")
        while True:
            try:
                waiting = pool.submit(texts, seconds)
                break
            except Busy as error:
                if not patient:
                    raise busy(error.seconds) from None
                await asyncio.sleep(0.05)
        try:
            return await asyncio.wrap_future(waiting)
        except TimeoutError:
            raise busy(seconds, "timeout") from None

    async def _explain(self, text: str) -> Explanation:
        """One at a time: an explanation costs as much as hundreds of scores."""
        from tamis.explanation.explain import explain_text

        async with self._explaining:
            if self._explainer is None:
                self._explainer = await asyncio.to_thread(load_served, self.environment.folder)
            return await asyncio.to_thread(explain_text, self._explainer, text)

    async def _load(self) -> None:
        try:
            self._pool = await asyncio.to_thread(self._loaded)
            self.problem = await asyncio.to_thread(self._tested, self._pool)
        except TamisError as error:
            self.problem = str(error)
        except Exception as error:  # of a library: not ready, and the log says why
            self.problem = f"{type(error).__name__}: {error}"
        if self.problem:
            logger.error("not ready: %s", self.problem)
        else:
            logger.info("%s is ready (%s)", self.served.name, self.served.backend)

    def _loaded(self) -> ScoringPool:
        settings, threads = self.settings, threads_of(self.settings)

        def load() -> Classifier:
            classifier = load_served(self.environment.folder)
            classifier.use_threads(1)
            return classifier

        batch = settings.batching
        on = batch.mode == "on" or (batch.mode == "auto" and _has_gpu(self.served.backend))
        return ScoringPool(
            load,
            threads,
            settings.queue_documents,
            batch.documents if on else 1,
            embed=self.log is not None and settings.log.keep == "embedding",
        )

    def _tested(self, pool: ScoringPool) -> str | None:
        """Score the probes with every classifier, which warms it up as well."""
        for classifier in pool.classifiers:
            if wrong := self_test(classifier, self.served):
                return wrong
        return None

    async def _look_after(self) -> None:
        """Follow the file of keys, and carry figures over to the metrics."""
        while True:
            await asyncio.sleep(_KEYS_EVERY)
            try:
                self.environment.keys.refresh()
            except TamisError as error:
                logger.error("%s; the keys stay as they were", error)
            self.count_log()

    def count_log(self) -> None:
        """Carry what the log and the queue count over to the metrics."""
        if self._pool is not None:
            self.metrics.queue.set(self._pool.waiting)
        if self.log is not None:
            written, dropped = self.log.written, self.log.dropped
            self.metrics.logged.inc(written - self._counted[0])
            self.metrics.dropped.inc(dropped - self._counted[1])
            self._counted = (written, dropped)


def asked_by(request: Request) -> Asked:
    """Who asks, as the guard found out."""
    state = request.state
    return Asked(state.request_id, state.key, state.shadow)


def _record(
    text: str, out: DocumentOut, number: int, asked: Asked, model: str, vector: Any
) -> RequestRecord:
    return RequestRecord(
        id=out.id,
        request_id=asked.request_id,
        index=number,
        at=datetime.now(UTC),
        model_version=model,
        score=out.score,
        decision=out.decision,
        characters=len(text),
        tokens=out.tokens,
        text=text,
        embedding=vector,
        shadow=asked.shadow,
        key=asked.key,
    )


def threads_of(settings: ServeSettings) -> int:
    """Scoring threads of each process: those set, or its share of the cores."""
    return settings.threads or max(1, available_cores() // processes_of(settings))


def processes_of(settings: ServeSettings) -> int:
    """Worker processes: those set, or one a core."""
    return settings.processes or available_cores()


def _has_gpu(backend: str) -> bool:
    if backend.startswith("onnx"):
        return False
    with contextlib.suppress(ImportError):
        import torch

        return torch.cuda.is_available()
    return False


def _as_out(found: Explanation) -> ExplanationOut:
    words = [
        WordOut(text=word.text, start=word.start, end=word.end, weight=word.weight)
        for word in found.words
    ]
    return ExplanationOut(
        method=found.method,
        unit=found.unit,
        base=found.baseline + found.rest,
        read=found.text,
        words=words,
    )
