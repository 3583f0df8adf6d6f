"""Run one function over many shards on Ray: tasks on all nodes, actors that hold the model.

A local Ray is started where no address is given. Nothing of Ray is imported before ``with``.
Each item is one task. Ray itself tries nothing twice: tries are counted here, as they are for
the processes of one machine, so that both engines end in the same way.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from tamis.engine.attempts import A_WORKER_DIED, Attempts
from tamis.engine.base import available_cores
from tamis.engine.ray_model import Placement, cause_of, lost_errors, place_model
from tamis.engine.ray_session import RaySession
from tamis.errors import EngineError, TamisError, UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")
Loaded = TypeVar("Loaded")

_ENCODER_SHARE = 0.75
"""Of a cluster's CPUs: where the model runs, it takes most of the time of a shard."""
_CANCEL_SECONDS = 30


class RayEngine:
    """Runs functions as Ray tasks; the model lives in actors that the tasks share.

    ``workers`` items are handed out at a time, and one more for each actor: a task that waits
    for the model gives its CPU to the next. So ``workers`` and actors bound what is in memory.

    Actors with GPUs: one for each GPU, or ``encoders`` that share them evenly. Without GPUs:
    ``encoders`` of ``encoder_cpus`` threads each; by default on this machine one for each
    ``encoder_cpus`` cores (tasks mostly wait for them) but no more than ``workers``, and on a
    cluster, where they have CPUs of their own, as many as fit in three quarters of its CPUs.

    Args:
        address: Of a running cluster (``host:port``, ``ray://host:port`` or ``auto``), which is
            left running; None starts Ray on this machine and ends it with this engine.
        workers: Tasks that compute at the same time; 0 takes the CPUs of this machine, or
            those of the cluster that the actors leave. Name a number for a cluster that grows.
        encoder_cpus: CPUs and threads of each actor.
        encoders: Actors.

    Raises:
        UsageError: A number is out of range.
    """

    def __init__(
        self,
        address: str | None = None,
        workers: int = 0,
        encoder_cpus: int = 1,
        encoders: int | None = None,
    ) -> None:
        for key, value, least in (
            ("workers", workers, 0),
            ("encoder_cpus", encoder_cpus, 1),
            ("encoders", 1 if encoders is None else encoders, 1),
        ):
            if value < least:
                raise UsageError(f"{key}: given {value}; allowed: {least} or more")
        self._address, self._given, self._encoder_cpus = address, workers, encoder_cpus
        self._encoders = encoders
        self._session = RaySession()
        self._placement: Placement | None = None
        self._placed: tuple[object, str] | None = None

    @property
    def workers(self) -> int:
        """Tasks that compute at the same time; on a cluster known once it was joined."""
        if self._given:
            return self._given
        if self._address is None:
            return available_cores()
        import ray

        if not ray.is_initialized():
            return 1
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        taken = 0 if self._placement is None else self._placement.cpus
        return max(1, int(resources.get("CPU", 0)) - taken)

    def __enter__(self) -> Self:
        """Start Ray, or join the cluster.

        Raises:
            EngineError: That failed.
        """
        if self._address is None:
            self._session.start(self.workers)
        else:
            self._session.join(self._address)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the actors, and Ray where it was started here."""
        try:
            self._release()
        finally:
            self._session.stop()

    def _release(self) -> None:
        if self._placement is not None:
            self._placement.end()
        self._placement = self._placed = None

    def run(
        self,
        items: Sequence[Item],
        work: Callable[[Item], Result],
        on_done: Callable[[Item, Result], None],
        *,
        initializer: Callable[..., None] | None = None,
        initargs: tuple[Any, ...] = (),
        name: Callable[[Item], str] = str,
    ) -> None:
        """As of ``Engine``; ``work``, ``initializer`` and results must be importable there."""
        if not items:
            return
        actors = 0 if self._placement is None else len(self._placement.actors)
        window = self.workers + actors
        _Run(Attempts(items, name), on_done, window, (work, initializer, initargs)).run()

    def place(self, load: Callable[[str], Loaded], model_dir: str) -> Callable[[str], Loaded]:
        """Start the actors with a model; it takes the place of one that was placed before.

        Returns:
            For tasks: gives a scorer that sends its texts to the actors. Where the model has
            ``preparer_loader`` and that gives something, the task tokenizes and sends token ids.

        Raises:
            EngineError: No actor could be started.
            UsageError: No node has ``encoder_cpus`` CPUs.
            TamisError: What ``load`` raised.
        """
        if self._placement is None or self._placed != (load, model_dir):
            self._release()
            count, gpus = self._count()
            self._placement = place_model(
                load,
                model_dir,
                count=count,
                threads=self._encoder_cpus,
                # On this machine the CPUs that Ray counts are all for tasks.
                cpus=0 if self._address is None else self._encoder_cpus,
                gpus=gpus,
                ship=self._address is not None,
            )
            self._placed = (load, model_dir)
        return self._placement.loader

    def _count(self) -> tuple[int, float]:
        """How many actors, and the GPUs of each."""
        import ray

        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus = int(resources.get("GPU", 0))
        if gpus:
            count = self._encoders or gpus
            # Whole actors a GPU: Ray puts no actor across two.
            return count, 1.0 if count <= gpus else 1.0 / -(-count // gpus)
        if self._address is None:
            fit = min(available_cores() // self._encoder_cpus, self.workers)
            return self._encoders or max(1, fit), 0.0
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        largest = max(int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"])
        if 0 < largest < self._encoder_cpus:
            raise UsageError(
                f"encoder_cpus: given {self._encoder_cpus}; allowed: up to {largest}, "
                "the CPUs of the largest node"
            )
        fit = int(resources.get("CPU", 0) * _ENCODER_SHARE) // self._encoder_cpus
        return self._encoders or max(1, min(fit, self._given or fit)), 0.0

    def cells(self, size: int) -> None:
        """None: workers of other machines share no memory with the driver."""


@dataclass(frozen=True)
class _Outcome:
    """What became of an item in a task; errors travel as data, so that they arrive whole."""

    kind: Literal["done", "ours", "lost", "other"]
    result: Any = None
    error: TamisError | None = None
    text: str = ""


class _Run:
    """One pass over the items."""

    def __init__(
        self,
        attempts: Attempts[Any],
        on_done: Callable[[Any, Any], None],
        window: int,
        start: tuple[Any, ...],
    ) -> None:
        import ray

        self.attempts, self.on_done, self.window = attempts, on_done, window
        self.task = ray.remote(num_cpus=1, max_retries=0)(_work)
        self.key = uuid.uuid4().hex
        # In a list, so that only a worker that lacks it fetches it.
        self.start = [ray.put(start)]
        self.running: dict[Any, int] = {}

    def run(self) -> None:
        import ray

        try:
            while self.attempts.waiting or self.running:
                self._fill()
                done, _ = ray.wait(list(self.running), num_returns=1)
                result = self._settle(done[0])
                self._fill()  # before ``on_done``, which may take its time
                for delivery in result:
                    self.on_done(*delivery)
        except BaseException:
            self._cancel()
            raise

    def _fill(self) -> None:
        attempts = self.attempts
        while attempts.may_start(self.running.values(), self.window):
            item = attempts.items[attempts.waiting[0]]
            reference = self.task.remote(self.key, self.start, item)
            self.running[reference] = attempts.waiting.popleft()

    def _settle(self, reference: Any) -> list[tuple[Any, Any]]:
        """The item and its result, or nothing where the item waits again."""
        import ray

        position = self.running.pop(reference)
        try:
            outcome: _Outcome = ray.get(reference)
        except Exception as error:
            cause = cause_of(error)
            if not isinstance(cause, lost_errors()):
                raise self.attempts.broken(position, _describe(cause)) from error
            outcome = _Outcome("lost", text=_death(cause))
        if outcome.error is not None:
            raise outcome.error
        if outcome.kind == "other":
            raise self.attempts.broken(position, outcome.text)
        if outcome.kind == "done":
            return [(self.attempts.items[position], outcome.result)]
        self.attempts.lost(position, outcome.text)
        return []

    def _cancel(self) -> None:
        """End what still runs; what they wrote is nobody's until it is committed."""
        import ray

        for reference in self.running:
            ray.cancel(reference, force=True)
        if self.running:
            left = list(self.running)
            ray.wait(left, num_returns=len(left), timeout=_CANCEL_SECONDS)


def _death(error: BaseException) -> str:
    import ray

    memory = isinstance(error, ray.exceptions.OutOfMemoryError)
    return f"{A_WORKER_DIED}: out of memory" if memory else A_WORKER_DIED


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


_begun: tuple[str, Callable[[Any], Any]] | None = None
"""In a worker: the run that it was last initialized for, and what that run does."""


def _work(key: str, start: list[Any], item: Any) -> _Outcome:
    """One item in a task, after the initializer where this process is new to the run."""
    global _begun
    try:
        if _begun is None or _begun[0] != key:
            import ray

            _begun = None
            work, initializer, initargs = ray.get(start[0])
            if initializer is not None:
                initializer(*initargs)
            _begun = key, work
        return _Outcome("done", _begun[1](item))
    except Exception as error:
        cause = cause_of(error)
        if isinstance(cause, TamisError):
            return _Outcome("ours", error=_portable(cause))
        if isinstance(cause, OSError):
            return _Outcome("lost", text=str(cause))
        if isinstance(cause, lost_errors()):
            return _Outcome("lost", text=_death(cause))
        return _Outcome("other", text=_describe(cause))


def _portable(error: TamisError) -> TamisError:
    """The error itself, or one of its kind where it cannot be made again from its text."""
    try:
        copy.copy(error)
    except Exception:
        kind = UsageError if isinstance(error, UsageError) else EngineError
        return kind(str(error))
    return error
