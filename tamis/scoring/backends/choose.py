"""Which backend runs the encoder: the fastest on this machine whose decisions pass the gate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from tamis import html
from tamis.decision import Decision, Reason
from tamis.errors import ModelError
from tamis.machine import gpu_name, machine
from tamis.models.classifier import digest, read_info
from tamis.models.tokens import Tokens
from tamis.scoring.backends.folder import export, load_encoder
from tamis.scoring.settings import BackendGate, BackendName
from tamis.target import Floats

if TYPE_CHECKING:
    from tamis.models.encoder_classifier import EncoderClassifier

REFERENCE: BackendName = "torch"
_ROUNDS = 3
_SECONDS = 1.0
"""How long the reference is measured in each round; the others with the same documents."""
CHECKED = 0.99
"""Of the differences to fp32, the quantile that is the margin of what is checked."""
_FIRST = 16
"""Documents of the first measurement, which says how many the others need."""
_TOLD = 300
"""Characters of an error that are kept."""


class Trial(BaseModel):
    """A backend that was tried.

    Attributes:
        backend: Its name.
        speed: Documents a second of one thread (of the GPU, where there is one); None where it
            does not run here.
        f1: Of its keep/drop decisions, those of the reference taken for the truth; None where it
            was not judged.
        bias: Mean difference of its scores from the reference's.
        margin: Scores so near to the threshold are checked in fp32; speed, F1 and bias are with
            that.
        decision: Whether it may stand in for the reference, and why.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: BackendName
    speed: float | None
    f1: float | None = None
    bias: float | None = None
    margin: float = 0.0
    decision: Decision


class BackendChoice(BaseModel):
    """The backend that was taken, and how it came to that.

    Attributes:
        backend: Its name.
        reason: Why, in a sentence.
        source: ``digest`` of the classifier.
        machine: What it was measured on.
        documents: Documents on which decisions were compared.
        kept: Those of them that the reference keeps.
        trials: All that were tried, fastest first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: BackendName
    reason: str
    source: str
    machine: str
    documents: int = 0
    kept: int = 0
    trials: tuple[Trial, ...] = ()

    @property
    def margin(self) -> float:
        """Scores so near to the threshold are to be checked in fp32."""
        return next((t.margin for t in self.trials if t.backend == self.backend), 0.0)

    def to_html(self) -> str:
        """One self-contained page."""
        rows = [
            (
                trial.backend,
                "" if trial.speed is None else f"{trial.speed:,.1f}",
                "" if trial.f1 is None else f"{trial.f1:.4f}",
                "" if trial.bias is None else f"{trial.bias:+.4f}",
                "yes" if trial.decision.passed else "no",
                " ".join(reason.detail for reason in trial.decision.reasons),
            )
            for trial in self.trials
        ]
        headers = ("backend", "documents a second", "F1 against fp32", "bias", "passed", "why")
        lead = (
            f"{self.reason} Compared on {self.documents:,} documents, of which fp32 keeps "
            f"{self.kept:,}. Machine: {self.machine}."
        )
        return html.page(f"Backend: {self.backend}", html.table(headers, rows), lead)


@dataclass(frozen=True)
class Judged:
    """Documents on which backends are compared.

    Attributes:
        texts: The documents (n).
        threshold: Kept is what scores at least this.
        reference: Scores (n,) of the reference, where they are known already.
    """

    texts: Sequence[str]
    threshold: float
    reference: Floats | None = None


def candidates(gpu: bool) -> tuple[BackendName, ...]:
    """Backends worth a try besides the reference."""
    return ("torch-packed", "torch-bf16") if gpu else ("onnx-int8", "onnx", "torch-bf16")


def choose(
    model_dir: Path, home: Path, judged: Judged, gate: BackendGate, scale: tuple[float, float]
) -> BackendChoice:
    """Measure the backends that load here, and take the fastest that passes the gate.

    Speed is that of the network on tokenized documents, in turns, the best of three rounds; of
    one thread and in CPU time, or in wall time where there is a GPU. What is not faster than
    the reference, or than one that passed (with its checks), is not judged. A backend that
    fails in any way is told of and not taken.

    Args:
        model_dir: The classifier, as it was saved.
        home: Folder for exports.
        judged: Documents to compare on; none that was fitted on is needed.
        gate: What has to be shown.
        scale: Lowest and highest score.

    Raises:
        ModelError: The classifier cannot be loaded.
    """
    why = _why_not(model_dir, len(judged.texts), gate)
    if why:
        return BackendChoice(
            backend=REFERENCE,
            reason=why,
            source=digest(model_dir),
            machine=machine(),
            documents=len(judged.texts),
        )
    gpu = bool(gpu_name())
    loaded = {REFERENCE: load_encoder(model_dir)}
    failed: list[Trial] = []
    for name in candidates(gpu):
        try:
            loaded[name] = load_encoder(export(model_dir, name, home))
        except Exception as error:  # each library raises its own
            failed.append(_failed(name, error))
    tokens = loaded[REFERENCE].prepare(judged.texts)
    speeds, broken = _measure(loaded, tokens, gpu)
    failed += broken
    exact = speeds.get("onnx", speeds[REFERENCE])
    reference = judged.reference
    if reference is None:
        reference = loaded[REFERENCE].score_tokens(tokens).values
    kept = reference >= judged.threshold
    trials: list[Trial] = []
    found, best = REFERENCE, speeds[REFERENCE]
    for name in sorted(speeds, key=lambda each: -speeds[each]):
        if name == REFERENCE:
            reason = Reason(check="gate", passed=True, detail="It is the reference.")
            trials.append(_trial(name, speeds[name], reason))
        elif speeds[name] <= best:
            than = REFERENCE if speeds[name] <= speeds[REFERENCE] else f"{found}, which passed"
            told = f"Not judged: it is not faster than {than}."
            reason = Reason(check="speed", passed=False, detail=told)
            trials.append(_trial(name, speeds[name], reason))
        else:
            try:
                run = _run(loaded[name], tokens, judged, reference, speeds[name], exact)
            except Exception as error:  # as above
                failed.append(_failed(name, error))
                continue
            trial = _judge(name, run, reference, judged, gate, scale, speeds[REFERENCE])
            trials.append(trial)
            if trial.decision.passed and run.speed > best:
                found, best = name, run.speed
    trials.sort(key=lambda trial: -(trial.speed or 0.0))
    share = best / speeds[REFERENCE]
    sentence = (
        "None that is faster passed the gate."
        if found == REFERENCE
        else f"The fastest that passes the gate: {share:.2f} times the reference."
    )
    return BackendChoice(
        backend=found,
        reason=sentence,
        source=digest(model_dir),
        machine=machine(),
        documents=len(judged.texts),
        kept=int(kept.sum()),
        trials=(*trials, *failed),
    )


def _why_not(model_dir: Path, documents: int, gate: BackendGate) -> str:
    """Why there is nothing to choose from or to compare on; empty where there is."""
    if documents < max(1, gate.min_kept):
        return (
            f"There are {documents:,} documents to compare on, and the gate needs "
            f"{gate.min_kept:,} that are kept."
        )
    family = read_info(model_dir).family
    if family != "encoder":
        return f"A model of the family {family} runs in one way only."
    return ""


@dataclass(frozen=True)
class _Run:
    """A backend's scores of the documents, as they are after checks, and its speed with these."""

    scores: Floats
    margin: float
    speed: float


def _run(
    classifier: EncoderClassifier,
    tokens: Tokens,
    judged: Judged,
    reference: Floats,
    speed: float,
    exact_speed: float,
) -> _Run:
    scores = classifier.score_tokens(tokens).values
    if not np.isfinite(scores).all():
        raise ModelError("a score is not a number")
    if classifier.exact is None:
        return _Run(scores, 0.0, speed)
    margin = float(np.quantile(np.abs(scores - reference), CHECKED))
    near = np.abs(scores - judged.threshold) < margin
    cost = 1 / speed + float(near.mean()) / exact_speed
    return _Run(np.where(near, reference, scores), margin, 1 / cost)


def _trial(name: BackendName, speed: float | None, *reasons: Reason) -> Trial:
    return Trial(backend=name, speed=speed, decision=Decision.of(list(reasons)))


def _failed(name: BackendName, error: Exception) -> Trial:
    """One that does not load or does not run."""
    said = str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
    return _trial(name, None, Reason(check="runs", passed=False, detail=said[:_TOLD]))


def _judge(
    name: BackendName,
    run: _Run,
    reference: Floats,
    judged: Judged,
    gate: BackendGate,
    scale: tuple[float, float],
    slowest: float,
) -> Trial:
    """Compare decisions and scores with the reference's."""
    truth, kept = reference >= judged.threshold, run.scores >= judged.threshold
    both, either = int((truth & kept).sum()), int(truth.sum() + kept.sum())
    f1 = 2 * both / either if either else 1.0
    bias = float((run.scores - reference).mean()) if len(reference) else 0.0
    allowed = gate.bias * (scale[1] - scale[0])
    reasons = [
        Reason(
            check="kept",
            passed=int(truth.sum()) >= gate.min_kept,
            detail=f"fp32 keeps {truth.sum():,} of {len(truth):,} documents; an F1 needs "
            f"{gate.min_kept:,}.",
        ),
        Reason(
            check="f1",
            passed=f1 >= gate.f1,
            detail=f"F1 of keep/drop against fp32 is {f1:.4f}; the gate asks for {gate.f1:g}.",
        ),
        Reason(
            check="bias",
            passed=abs(bias) <= allowed,
            detail=f"Scores differ by {bias:+.4f} on average; the gate allows {allowed:g}.",
        ),
        Reason(
            check="speed",
            passed=run.speed > slowest,
            detail=f"It runs at {run.speed / slowest:.2f} times the speed of fp32"
            + (
                f", with scores within {run.margin:.3f} of the threshold checked in fp32."
                if run.margin
                else "."
            ),
        ),
    ]
    return Trial(
        backend=name,
        speed=run.speed,
        f1=f1,
        bias=bias,
        margin=run.margin,
        decision=Decision.of(reasons),
    )


def _measure(
    loaded: dict[BackendName, EncoderClassifier], tokens: Tokens, gpu: bool
) -> tuple[dict[BackendName, float], list[Trial]]:
    """Documents a second by backend, and those that failed on the way."""
    import torch

    clock = time.perf_counter if gpu else time.process_time
    threads = torch.get_num_threads()
    done: dict[BackendName, list[float]] = {name: [] for name in loaded}
    failed: list[Trial] = []

    def measure(name: BackendName, documents: int) -> None:
        try:
            done[name].append(_speed(loaded[name], _first(tokens, documents), clock))
        except Exception as error:  # a backend that fails is one that is not taken
            if name == REFERENCE:
                raise
            failed.append(_failed(name, error))
            del done[name]

    try:
        for name, classifier in loaded.items():
            classifier.use_threads(1)
            measure(name, _FIRST)  # compiles, allocates
            if name in done:
                measure(name, _FIRST)
        first = {name: speeds[1] / done[REFERENCE][1] for name, speeds in done.items()}
        # The same documents for all, since their lengths differ.
        documents = max(_FIRST, int(done[REFERENCE][1] * _SECONDS))
        for _ in range(_ROUNDS):
            for name in list(done):
                if first[name] >= 0.5:  # a second more would not save the others
                    measure(name, documents)
    finally:
        torch.set_num_threads(threads)
        for classifier in loaded.values():
            classifier.use_threads(0)
    reference = max(done[REFERENCE][2:])
    best = {name: max(speeds[2:], default=first[name] * reference) for name, speeds in done.items()}
    return best, failed


def _speed(classifier: EncoderClassifier, tokens: Tokens, clock: Callable[[], float]) -> float:
    started = clock()
    classifier.score_tokens(tokens)
    return tokens.documents / max(clock() - started, 1e-9)


def _first(tokens: Tokens, documents: int) -> Tokens:
    """The first texts, or as many as there are."""
    return tokens.take(np.arange(min(documents, tokens.documents)))
