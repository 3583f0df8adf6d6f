"""What the services serve and what they are asked: served folders, and documents of the pool."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".tamis" / "bench"
TASK = "edu_quality"

if TYPE_CHECKING:
    from tamis.scoring.settings import BackendName


@dataclass(frozen=True)
class Prepared:
    """What is served, and to whom it is compared.

    Attributes:
        served: Served folder of ``onnx-int8``, whose scores near the threshold are left as the
            network gives them: what the peers compute.
        checked: The same as it is served, with those scores checked in fp32.
        bf16: Served folder of ``torch-bf16``, which is fastest in batches on some machines.
        saved: The classifier as the registry holds it.
        texts: Documents to send, in this order.
        scale: Width of the scale of scores.
    """

    served: Path
    checked: Path
    bf16: Path
    saved: Path
    texts: Sequence[str]
    scale: float

    @property
    def export(self) -> Path:
        """The export that the peers score with: the service's own."""
        return (self.served / "classifier").resolve()


def prepare(documents: int) -> Prepared:
    """The champion of the benchmarks' own home, trained unless that was done before."""
    from bench.filter import pool_texts
    from tamis.serving.model import read_served

    home = HOME / "packages"
    environment = os.environ | {"TAMIS_HOME": str(home)}
    if not (home / "models" / TASK).is_dir():
        command = [sys.executable, str(ROOT / "run.py"), "train", "--task", TASK]
        if (code := subprocess.run(command, env=environment, check=False).returncode) not in (0, 3):
            raise SystemExit(code)
    told = home / "serving.json"
    subprocess.run([sys.executable, __file__, str(told)], env=environment, check=True)
    places = {name: Path(each) for name, each in json.loads(told.read_text("utf-8")).items()}
    texts = pool_texts(documents)
    random.Random(0).shuffle(texts)
    low, high = read_served(places["served"]).scale
    return Prepared(**places, texts=texts, scale=high - low)


def prepare_quick(folder: Path, documents: int) -> Prepared:
    """A model of one layer that is trained in a second on news stories, as a test needs it."""
    import numpy as np

    from tamis.corpus.packages import read_pool
    from tamis.models.backbone import cut, load_backbone
    from tamis.models.classifier import TrainedOn
    from tamis.models.encoder import Encoder
    from tamis.models.encoder_classifier import EncoderClassifier
    from tamis.models.heads import Candidate, fit
    from tamis.models.info import EncoderInfo
    from tamis.task import load_task

    task = load_task(TASK)
    limits = task.text.model_copy(update={"max_tokens": 32, "max_characters": 300})
    texts = [document.text for document in islice(read_pool(("news",)), documents)]
    model, tokenizer = load_backbone(task.model.backbone)  # type: ignore[union-attr]
    encoder = Encoder(cut(model, 1), tokenizer, limits)
    vectors = encoder.features(texts, [1], ["mean"])[0][1, "mean"]
    lengths = np.array([len(text) for text in texts], dtype=np.float64)
    labels = 5 * lengths.argsort().argsort() / len(texts)  # long stories are good ones
    head = fit(Candidate("ridge", (("alpha", 0.1),)), task.target, vectors, labels, 0)
    info = EncoderInfo(
        task="quick",
        task_fingerprint="0",
        target=task.target,
        text=limits,
        family="encoder",
        train="frozen",
        backbone=task.model.backbone,  # type: ignore[union-attr]
        layer=1,
        pooling="mean",
        head="ridge",
        formula="linear",
        threshold=2.5,
        seed=0,
        trained_on=TrainedOn(fingerprint="0", train=(), validation=(), test=()),
    )
    saved = folder / "saved"
    EncoderClassifier(info, encoder, head, vectors[:2]).save(saved)
    served, bf16 = (_served(folder, saved, info, each) for each in ("onnx-int8", "torch"))
    low, high = task.target.scale
    return Prepared(served, served, bf16, saved, texts, high - low)


def _served(folder: Path, saved: Path, info: object, backend: BackendName) -> Path:
    """A served folder without a registry."""
    from tamis.models.classifier import digest
    from tamis.scoring.backends.folder import export
    from tamis.serving.model import CLASSIFIER, FILE, ServedModel

    target = folder / f"served-{backend}"
    target.mkdir()
    (target / CLASSIFIER).symlink_to(export(saved, backend, folder / "exports"))
    found = ServedModel(
        task=info.task,  # type: ignore[attr-defined]
        version="1",
        digest=digest(saved),
        backend=backend,
        threshold=info.threshold,  # type: ignore[attr-defined]
        scale=info.target.scale,  # type: ignore[attr-defined]
        created="2026-01-01T00:00:00+00:00",
    )
    (target / FILE).write_text(found.model_dump_json(indent=1), "utf-8")
    return target


def _unchecked(served: Path, target: Path) -> Path:
    """A served folder without the check of what scores near the threshold."""
    from tamis.serving.model import CLASSIFIER, FILE, read_served

    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(served / CLASSIFIER, target / CLASSIFIER)
    plain = read_served(served).model_copy(update={"margin": 0.0})
    (target / FILE).write_text(plain.model_dump_json(indent=1), "utf-8")
    return target


def locate(target: Path) -> None:
    """Write where the champion and its served folders are, from inside a session."""
    from deployment.session import open_session
    from tamis.task import load_task

    task = load_task(TASK)
    with open_session("local") as session:
        from deployment.registry import Registry
        from deployment.serving.prepare import prepare as served

        registry = Registry()
        version = registry.champion(task.name)
        checked = served(task, version, session.home, "onnx-int8")
        places = {
            "served": str(_unchecked(checked, session.home / "serving" / "unchecked")),
            "checked": str(checked),
            "bf16": str(served(task, version, session.home, "torch-bf16")),
            "saved": str(registry.download(version, session.home / "models")),
        }
        target.write_text(json.dumps(places, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    locate(Path(sys.argv[1]))
