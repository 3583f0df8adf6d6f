"""Which backend a package is built for.

What is fastest here says little of the machine that will serve, and bfloat16 is fast on few. So a
package takes onnxruntime, which brings no torch along: in int8 if its decisions pass the gate,
else in fp32, and torch where neither passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tamis.decision import Decision, Reason
from tamis.errors import ModelError
from tamis.fingerprint import code_fingerprint, sha256_of
from tamis.machine import machine
from tamis.models.classifier import digest, read_info
from tamis.scoring.backends.choose import CHECKED, REFERENCE, BackendChoice, Trial
from tamis.scoring.backends.folder import export, load_encoder
from tamis.scoring.settings import BackendGate, BackendName, ScoringSettings
from tamis.target import Floats

CANDIDATES: tuple[BackendName, ...] = ("onnx-int8", "onnx")
_TOLD = 300
"""Characters of an error that are kept."""


def backend_for_package(
    source: Path,
    texts: Callable[[], Sequence[str]],
    settings: ScoringSettings,
    home: Path,
    seed: int,
    named: BackendName | None = None,
) -> BackendChoice:
    """The backend of a package, judged once for a model and then kept.

    A backend that is named has to pass no gate, but is measured where it can be: its margin says
    which of its scores are checked.

    Args:
        source: The classifier, as it was saved.
        texts: Gives documents to compare on.
        settings: What the task asks for.
        home: Folder of the stack's local files.
        seed: Of the choice among the documents.
        named: By the person who packs; None leaves it to the task, then to the gate.

    Raises:
        UsageError: The documents cannot be read.
        ModelError: The classifier cannot be loaded, or the backend that was named does not run.
    """
    info = read_info(source)
    asked = named or (None if settings.backend == "auto" else settings.backend)
    if info.family != "encoder":
        told = f"A model of the family {info.family} runs in one way only."
        return _choice(REFERENCE, told, source)
    if asked is not None and asked not in CANDIDATES:
        return _choice(asked, "It was asked for.", source)
    tried = (asked,) if asked else CANDIDATES
    gate = settings.gate.model_dump_json()
    facts = (digest(source), gate, machine(), str(seed), *tried, code_fingerprint())
    path = home / "packaging" / "backends" / f"{sha256_of(facts)[:16]}.json"
    try:
        return BackendChoice.model_validate_json(path.read_text("utf-8"))
    except (OSError, ValueError):
        found = _judged(source, texts(), settings.gate, home, seed, tried, asked is not None)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".partial")
    staged.write_text(found.model_dump_json(indent=1), "utf-8")
    staged.replace(path)
    return found


def _choice(name: BackendName, reason: str, source: Path, *trials: Trial) -> BackendChoice:
    return BackendChoice(
        backend=name, reason=reason, source=digest(source), machine=machine(), trials=trials
    )


def _judged(
    source: Path,
    texts: Sequence[str],
    gate: BackendGate,
    home: Path,
    seed: int,
    tried: Sequence[BackendName],
    forced: bool,
) -> BackendChoice:
    rows = np.random.default_rng(seed).permutation(len(texts))[: gate.documents]
    chosen = [texts[row] for row in rows.tolist()]
    reference = load_encoder(source)
    scores = reference.score(chosen).values
    info = reference.info
    low, high = info.target.scale
    kept = int((scores >= info.threshold).sum())
    trials: list[Trial] = []
    for name in tried:
        try:
            found = load_encoder(export(source, name, home / "exports")).score(chosen).values
            if not np.isfinite(found).all():
                raise ModelError("a score is not a number")
        except Exception as error:  # each library raises its own
            if forced:
                raise ModelError(f"{name}: {str(error)[:_TOLD]}") from None
            detail = f"{type(error).__name__}: {error}"[:_TOLD]
            failed = Decision.of([Reason(check="runs", passed=False, detail=detail)])
            trials.append(Trial(backend=name, speed=None, decision=failed))
            continue
        trial = compare(name, scores, found, info.threshold, gate, high - low)
        trials.append(trial)
        if trial.decision.passed or forced:
            break
    taken = next((t for t in trials if t.decision.passed or forced), None)
    if forced:
        reason = "It was asked for."
    elif taken is None:
        reason = "Neither of onnxruntime's backends passed the gate, so torch serves."
    else:
        reason = "It needs no torch, and its decisions pass the gate."
    return BackendChoice(
        backend=REFERENCE if taken is None else taken.backend,
        reason=reason,
        source=digest(source),
        machine=machine(),
        documents=len(chosen),
        kept=kept,
        trials=tuple(trials),
    )


def compare(
    name: BackendName,
    reference: Floats,
    found: Floats,
    threshold: float,
    gate: BackendGate,
    width: float,
) -> Trial:
    """A backend's decisions beside those of the reference, after the check of what is close.

    Args:
        name: Of the backend.
        reference: Scores (n,) in fp32 by torch.
        found: Scores (n,) of the backend.
        threshold: Kept is what scores at least this.
        gate: What has to be shown.
        width: Of the scale, in the unit of the scores.
    """
    margin = 0.0
    if name == "onnx-int8":
        margin = float(np.quantile(np.abs(found - reference), CHECKED)) if len(found) else 0.0
        near = np.abs(found - threshold) < margin
        found = np.where(near, reference, found)
    truth, kept = reference >= threshold, found >= threshold
    total = int(truth.sum() + kept.sum())
    f1 = 2 * int((truth & kept).sum()) / total if total else 1.0
    bias = float((found - reference).mean()) if len(found) else 0.0
    allowed = gate.bias * width
    enough = f"fp32 keeps {truth.sum():,} of {len(truth):,}; an F1 needs {gate.min_kept:,}."
    agrees = f"F1 of keep/drop against fp32 is {f1:.4f}; the gate asks for {gate.f1:g}."
    differs = f"Scores differ by {bias:+.4f} on average; the gate allows {allowed:g}."
    reasons = [
        Reason(check="kept", passed=int(truth.sum()) >= gate.min_kept, detail=enough),
        Reason(check="f1", passed=f1 >= gate.f1, detail=agrees),
        Reason(check="bias", passed=abs(bias) <= allowed, detail=differs),
    ]
    return Trial(
        backend=name,
        speed=None,
        f1=f1,
        bias=bias,
        margin=margin,
        decision=Decision.of(reasons),
    )
