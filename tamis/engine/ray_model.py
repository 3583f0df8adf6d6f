"""A model that Ray tasks share: actors that hold it, and the scorer that tasks talk through."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tamis.engine.ray_files import ShippedFolder, ship_folder
from tamis.errors import EngineError

_FIRST_SECONDS = 900
"""A cluster may have to start a machine for the first actor."""
_OTHERS_SECONDS = 60
"""For those that find no room because someone else has it."""
_ANSWER_SECONDS = 5.0
_ASKED = 2
"""Actors asked how busy they are: two at random are nearly as good as all (M. Mitzenmacher, The
Power of Two Choices in Randomized Load Balancing, 2001, section 1)."""


def lost_errors() -> tuple[type[Exception], ...]:
    """What Ray raises where a process, a node or an object was lost: worth another try."""
    from ray import exceptions

    return (
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.LocalRayletDiedError,
        exceptions.OutOfMemoryError,
        exceptions.RayActorError,
        exceptions.ObjectLostError,
        exceptions.ObjectFetchTimedOutError,
        exceptions.OwnerDiedError,
    )


def cause_of(error: Exception) -> Exception:
    """What was raised in the task or actor, of an error that Ray has wrapped."""
    from ray.exceptions import RayTaskError

    while isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        error = error.cause
    return error


@dataclass(frozen=True)
class Source:
    """How to load the model: on the node where that happens.

    Attributes:
        load: Makes a scorer of a directory.
        model_dir: The directory, as the driver knows it.
        shipped: Its files, where nodes cannot be expected to have it.
    """

    load: Callable[[str], Any]
    model_dir: str
    shipped: ShippedFolder | None

    def folder(self) -> str:
        """The directory on this node."""
        return self.model_dir if self.shipped is None else str(self.shipped.unpack())


class ModelActor:
    """Holds the model in a process of its own and scores one block after another.

    Its methods are coroutines, so that it answers how busy it is while it computes. Each is told
    the source, for a process that replaces another has nothing.

    Args:
        threads: Of torch.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.computing = ThreadPoolExecutor(max_workers=1)
        self.model: Any = None
        self.folder = ""
        self.queued = 0

    async def start(self, source: Source) -> Callable[[str], Any] | None:
        """Load the model; returns what loads its tokenizing half, where it has one."""
        found: Callable[[str], Any] | None = await self._compute(lambda: self._preparer(source))
        return found

    async def busy(self) -> int:
        """Blocks that wait or are being scored."""
        return self.queued

    async def score(self, source: Source, texts: Sequence[str]) -> Any:
        """What the model says of texts."""
        return await self._compute(lambda: self._loaded(source).score(texts))

    async def score_tokens(self, source: Source, tokens: Any) -> Any:
        """What the model says of texts that were tokenized elsewhere."""
        return await self._compute(lambda: self._loaded(source).score_tokens(tokens))

    async def _compute(self, what: Callable[[], Any]) -> Any:
        self.queued += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self.computing, what)
        finally:
            self.queued -= 1

    def _loaded(self, source: Source) -> Any:
        # Here and not in the constructor: an error there would come back as text only.
        if self.model is None:
            folder = source.folder()
            model = source.load(folder)
            if hasattr(model, "use_threads"):
                model.use_threads(self.threads)
            self.folder, self.model = folder, model
        return self.model

    def _preparer(self, source: Source) -> Callable[[str], Any] | None:
        loader = getattr(self._loaded(source), "preparer_loader", None)
        return None if loader is None else loader(self.folder)


class SharedScorer:
    """In a task: scores texts by sending them to the less busy of two actors.

    Args:
        source: Of the model.
        actors: Handles of the actors.
        preparer: Tokenizes here, where the model has such a half.
    """

    def __init__(self, source: Source, actors: Sequence[Any], preparer: Any | None) -> None:
        self.source, self.actors, self.preparer = source, actors, preparer

    def score(self, texts: Sequence[str]) -> Any:
        """What the model says of the texts, as if it were here.

        Raises:
            EngineError: No actor answers.
            RayActorError: The actor died over it; the shard is to be tried again.
        """
        import ray

        if self.preparer is None:
            what, method = list(texts), "score"
        else:
            what, method = self.preparer.prepare(texts), "score_tokens"
        call = getattr(self._least_busy(), method)
        try:
            return ray.get(call.remote(self.source, what))
        except ray.exceptions.RayTaskError as error:
            raise cause_of(error) from None

    def _least_busy(self) -> Any:
        """An actor that answers; one that is being replaced does not, and is waited for."""
        import ray

        until = time.monotonic() + _FIRST_SECONDS
        while time.monotonic() < until:
            asked = random.sample(list(self.actors), min(_ASKED, len(self.actors)))
            calls = {actor.busy.remote(): actor for actor in asked}
            answered, _ = ray.wait(list(calls), num_returns=len(calls), timeout=_ANSWER_SECONDS)
            found: list[tuple[int, Any]] = []
            for call in answered:
                try:
                    found.append((ray.get(call), calls[call]))
                except ray.exceptions.RayActorError:
                    continue
            if found:
                return min(found, key=lambda pair: pair[0])[1]
            time.sleep(0.1)
        raise EngineError(f"no process that holds the model answered in {_FIRST_SECONDS} seconds")


@dataclass(frozen=True)
class SharedLoader:
    """What the plan's ``load`` becomes: called in a task, it gives a ``SharedScorer``.

    Attributes:
        source: Of the model.
        actors: Handles of those that hold it.
        load_preparer: Loads the tokenizing half of a directory; None sends texts.
    """

    source: Source
    actors: tuple[Any, ...]
    load_preparer: Callable[[str], Any] | None

    def __call__(self, model_dir: str) -> Any:
        """A scorer for the model that was placed.

        Raises:
            EngineError: ``model_dir`` is another model.
        """
        if model_dir != self.source.model_dir:
            raise EngineError(f"model {model_dir}: placed was {self.source.model_dir}")
        preparer = None
        if self.load_preparer is not None:
            preparer = self.load_preparer(self.source.folder())
        return SharedScorer(self.source, self.actors, preparer)


@dataclass
class Placement:
    """A placed model.

    Attributes:
        actors: Handles of those that hold it.
        cpus: That they take together.
        loader: For tasks.
    """

    actors: list[Any]
    cpus: int
    loader: Callable[[str], Any] = field(repr=False)

    def end(self) -> None:
        """End the actors."""
        _kill(self.actors)


def place_model(
    load: Callable[[str], Any],
    model_dir: str,
    *,
    count: int,
    threads: int,
    cpus: int,
    gpus: float,
    ship: bool,
) -> Placement:
    """Start actors that hold a model and wait until they do.

    Args:
        load: Makes a scorer of a directory.
        model_dir: The directory.
        count: Actors.
        threads: Of torch in each.
        cpus: That Ray sets aside for each.
        gpus: Likewise.
        ship: Whether to send the directory's files along.

    Raises:
        EngineError: None was ready in 15 minutes, or the model cannot be sent.
        TamisError: What ``load`` raised.
    """
    import ray

    source = Source(load, model_dir, ship_folder(model_dir) if ship else None)
    settings = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": -1, "max_task_retries": 0}
    actor: Any = ray.remote(**settings)(ModelActor)  # type: ignore[call-overload]
    actors = [actor.remote(threads) for _ in range(count)]
    try:
        started = {one.start.remote(source): one for one in actors}
        ready, _ = ray.wait(list(started), num_returns=1, timeout=_FIRST_SECONDS)
        if not ready:
            wants = f"{cpus} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
            raise EngineError(
                f"no process for the model could be started in {_FIRST_SECONDS // 60} minutes: "
                f"each needs {wants} on one node"
            )
        ready, late = ray.wait(list(started), num_returns=len(started), timeout=_OTHERS_SECONDS)
        load_preparer = ray.get(ready)[0]
    except ray.exceptions.RayTaskError as error:
        _kill(actors)
        raise cause_of(error) from None
    except ray.exceptions.RayActorError as error:
        _kill(actors)
        raise EngineError("a process died while it loaded the model") from error
    except BaseException:
        _kill(actors)
        raise
    _kill([started[call] for call in late])
    kept = [started[call] for call in ready]
    return Placement(kept, cpus * len(kept), SharedLoader(source, tuple(kept), load_preparer))


def _kill(actors: Sequence[Any]) -> None:
    import ray

    for actor in actors:
        ray.kill(actor)
