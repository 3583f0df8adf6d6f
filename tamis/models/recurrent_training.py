"""Training of recurrent classifiers: words from the training side only, the best epoch taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from tamis.corpus.dataset import Dataset
from tamis.corpus.split import Assignment
from tamis.errors import DataError
from tamis.evaluation.metrics import compute, gain
from tamis.models.info import RecurrentInfo
from tamis.models.log import Trained, TrainingLog
from tamis.models.losses import weighted_mean
from tamis.models.recurrent import (
    Network,
    RecurrentClassifier,
    batch,
    computing,
    run,
    words_of_texts,
)
from tamis.models.replay import weights_of
from tamis.models.selection import Rows, calibrate, set_threshold
from tamis.models.settings import RecurrentSettings
from tamis.models.training import facts, reference_rows, rows_of
from tamis.models.word_vectors import first_vectors, learn_vocabulary, size_of
from tamis.target import Floats
from tamis.task import Task

_SORTED_TOGETHER = 20
"""Batches whose texts are sorted by length together, so that a batch has little to fill up."""
_CLIP = 1.0


def train_recurrent(
    task: Task, settings: RecurrentSettings, dataset: Dataset, assignment: Assignment
) -> Trained[RecurrentClassifier]:
    """Train on the training side and take the epoch with the best validation figure.

    The vocabulary and the vectors that are learnt from texts come from the training side alone;
    the validation side also calibrates the scores and sets the threshold. The caller's random
    state of torch is left as it was.

    Raises:
        DataError: The training documents have no words, or training diverged.
        ModelError: GloVe's package is missing, or its files are not those that were pinned.
    """
    rows = rows_of(dataset, assignment)
    words = words_of_texts(dataset.texts(), task.text)
    own = [words[row] for row in rows["train"]]
    vocabulary = learn_vocabulary(own, settings.min_documents, settings.max_words)
    if not vocabulary.words:
        raise DataError("there are no words in the training documents")
    vectors = first_vectors(settings.vectors, vocabulary, own, settings.size, task.seed)
    ids = [vocabulary.ids(each) for each in words]
    weights = weights_of(task.retrain.replay, dataset, assignment)
    with torch.random.fork_rng(devices=[]), computing(1):
        torch.manual_seed(task.seed)
        network = Network(
            len(vocabulary),
            vectors.shape[1],
            settings.hidden,
            task.target.n_outputs,
            settings.network,
            settings.dropout,
        )
        network.embedding.weight.data.copy_(torch.from_numpy(vectors))
        learner = _Learner(task, settings, ids, dataset.labels, rows, weights)
        epochs, best = learner.learn(network)
    learner.fold(network)
    seen = np.concatenate([rows["train"], rows["validation"]])
    pooled, outputs = run(network.eval(), [ids[row] for row in seen])
    raw, known = task.target.score(outputs), dataset.labels[rows["validation"]]
    held = slice(len(rows["train"]), None)
    score_map, note = calibrate(task.calibration, task.target, known, raw[held])
    scores = score_map(raw)
    threshold = set_threshold(task.threshold, task.target, known, scores[held])
    sample = reference_rows(len(seen), task.seed)
    info = RecurrentInfo(
        **facts(task, assignment, f"linear ({settings.variant})", threshold),
        vectors=settings.vectors,
        network=settings.network,
        size=size_of(settings.vectors, settings.size),
        hidden=settings.hidden,
    )
    classifier = RecurrentClassifier(
        info, vocabulary, network, pooled[sample], scores[sample], score_map
    )
    log = TrainingLog(
        task=task.name,
        family="recurrent",
        train=settings.variant,
        metric=task.metric,
        documents={side: len(where) for side, where in rows.items()},
        epochs=tuple(epochs),
        chosen=f"epoch {best + 1} of {len(epochs)}, {len(vocabulary.words):,} words",
        threshold=threshold,
        replay=info.replay,
        calibration=note,
    )
    return Trained(classifier, log)


@dataclass(frozen=True)
class _Learner:
    """What the epochs of one training share.

    Attributes:
        ids: Word ids of each document (n).
        labels: Encoded labels (n,).
        rows: Positions of the documents of each side.
        weights: Weight of each document (n,); None where each weighs the same.
    """

    task: Task
    settings: RecurrentSettings
    ids: Sequence[Sequence[int]]
    labels: Floats
    rows: dict[str, NDArray[np.int64]]
    weights: Floats | None = None

    @property
    def _scale(self) -> tuple[float, float]:
        """Centre and spread of the labels that are regressed."""
        if self.task.target.kind != "ordinal":
            return 0.0, 1.0
        known = self.labels[self.rows["train"]]
        return float(known.mean()), float(known.std()) or 1.0

    def learn(self, network: Network) -> tuple[list[float], int]:
        """Train in place; the validation figure after each epoch, and which one was taken."""
        rng = np.random.default_rng(self.task.seed)
        optimiser = torch.optim.AdamW(
            network.parameters(), lr=self.settings.learning_rate, weight_decay=0.01
        )
        figures: list[float] = []
        best, state = 0, network.state_dict()
        for epoch in range(self.settings.epochs):
            network.train()
            for some in self._shuffled(rng):
                loss = self._loss(network(*batch([self.ids[row] for row in some])), some)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
                optimiser.step()
            figures.append(self._figure(network))
            if epoch == 0 or gain(self.task.metric, figures[epoch], figures[best]) > 0:
                best = epoch
                state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
            if epoch - best >= self.settings.patience:
                break
        network.load_state_dict(state)
        return figures, best

    def fold(self, network: Network) -> None:
        """Put the scale of the labels into the head, whose outputs are on it from then on."""
        centre, spread = self._scale
        with torch.no_grad():
            network.head.weight.mul_(spread)
            network.head.bias.mul_(spread).add_(centre)

    def _shuffled(self, rng: np.random.Generator) -> Iterator[Rows]:
        """Batches of training documents of like length, in random order."""
        size = self.settings.batch_size
        order = rng.permutation(self.rows["train"])
        lengths = np.array([len(self.ids[row]) for row in order])
        found = []
        for start in range(0, len(order), size * _SORTED_TOGETHER):
            part = slice(start, start + size * _SORTED_TOGETHER)
            alike = order[part][np.argsort(lengths[part], kind="stable")]
            found += [alike[at : at + size] for at in range(0, len(alike), size)]
        for number in rng.permutation(len(found)):
            yield found[number]

    def _loss(self, outputs: torch.Tensor, rows: Rows) -> torch.Tensor:
        labels = torch.from_numpy(self.labels[rows])
        weights = None if self.weights is None else torch.from_numpy(self.weights[rows]).float()
        if self.task.target.kind == "ordinal":
            centre, spread = self._scale
            wanted = ((labels - centre) / spread).float()
            return weighted_mean(functional.mse_loss, outputs[:, 0], wanted, weights)
        return weighted_mean(functional.cross_entropy, outputs, labels.long(), weights)

    def _figure(self, network: Network) -> float:
        """The metric of record on validation.

        Raises:
            DataError: The scores are not finite.
        """
        target, rows = self.task.target, self.rows["validation"]
        centre, spread = self._scale
        _, outputs = run(network.eval(), [self.ids[row] for row in rows])
        scores = target.score(outputs * spread + centre)
        known = self.labels[rows]
        if not np.isfinite(scores).all():
            rate = self.settings.learning_rate
            raise DataError(f"training diverged: a learning rate of {rate:g} is too high")
        threshold = set_threshold(self.task.threshold, target, known, scores)
        return compute(target, known, scores, threshold)[self.task.metric]
