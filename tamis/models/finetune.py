"""Fine-tuning of the whole encoder with a linear head, by the trainer of transformers."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments, set_seed
from transformers.trainer import TRAINER_STATE_NAME

from tamis.corpus.dataset import Dataset
from tamis.corpus.split import Assignment
from tamis.evaluation.metrics import HIGHER_IS_BETTER, compute
from tamis.models.backbone import load_backbone
from tamis.models.classifier import Classifier
from tamis.models.encoder import Encoder, pad_batch, pool
from tamis.models.heads import Head
from tamis.models.selection import calibrate, set_threshold
from tamis.models.settings import Pooling
from tamis.models.tokens import Tokens, tokenize
from tamis.models.train import Trained, TrainingLog, check_length, info_of, reference_sample
from tamis.target import Target
from tamis.task import Task

POOLING: Pooling = "mean"


class EncoderWithHead(torch.nn.Module):
    """An encoder, mean pooling and a linear head, with the loss of the target.

    Ordinal targets are regressed on the scale brought to zero mean and unit variance; the
    constants are folded into the head afterwards.
    """

    def __init__(self, encoder: Any, target: Target, centre: float, spread: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = torch.nn.Linear(encoder.config.hidden_size, target.n_outputs)
        torch.nn.init.normal_(self.head.weight, std=0.02)
        torch.nn.init.zeros_(self.head.bias)
        self.ordinal = target.kind == "ordinal"
        self.centre, self.spread = centre, spread

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Loss and outputs (b, k) of a batch of token ids (b, t) with labels (b,)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        # Unit vectors are short: scaled up, they let the head learn at the network's rate.
        vectors = pool(hidden.last_hidden_state, attention_mask, POOLING)
        outputs = self.head(vectors * vectors.shape[1] ** 0.5)
        if self.ordinal:
            loss = torch.nn.functional.mse_loss(outputs[:, 0], (labels - self.centre) / self.spread)
        else:
            loss = torch.nn.functional.cross_entropy(outputs, labels.long())
        return {"loss": loss, "logits": outputs}

    def folded_head(self) -> Head:
        """The head on unit vectors, its outputs on the target's scale."""
        weight = self.head.weight.detach().cpu().numpy().T.astype(np.float64)
        bias = self.head.bias.detach().cpu().numpy().astype(np.float64)
        weight = weight * weight.shape[0] ** 0.5
        if self.ordinal:
            weight, bias = weight * self.spread, bias * self.spread + self.centre
        return Head(
            "linear", {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
        )


class _Examples(torch.utils.data.Dataset[dict[str, Any]]):
    """Token ids with labels, by position."""

    def __init__(self, tokens: Tokens, labels: Sequence[float]) -> None:
        self.tokens, self.labels = tokens, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return {"ids": self.tokens.ids[position], "label": self.labels[position]}


def finetune(task: Task, dataset: Dataset, assignment: Assignment, checkpoints: Path) -> Trained:
    """Fine-tune the whole network; the epoch with the best validation figure is taken.

    A run that was killed resumes from its last checkpoint, with the same random state, when it
    is started again with the same task and documents.

    Args:
        task: The task; ``model.full`` holds the settings.
        dataset: Labelled documents.
        assignment: Their split.
        checkpoints: Folder for checkpoints, emptied at the end.
    """
    set_seed(task.seed)
    model, tokenizer = load_backbone(task.model.backbone)
    check_length(task, model)
    texts, labels = dataset.texts(), dataset.labels
    rows = {side: assignment.rows(dataset, side) for side in ("train", "validation", "test")}
    known = labels[rows["train"]]
    network = EncoderWithHead(model, task.target, float(known.mean()), float(known.std()) or 1.0)

    def examples(side: str) -> _Examples:
        chosen = rows[side]
        tokens = tokenize(tokenizer, [texts[row] for row in chosen], task.text)
        return _Examples(tokens, labels[chosen].tolist())

    trainer = Trainer(
        model=network,
        args=_arguments(task, checkpoints, len(rows["train"])),
        train_dataset=examples("train"),
        eval_dataset=examples("validation"),
        data_collator=_Collate(tokenizer.pad_token_id or 0),
        compute_metrics=_Metrics(task, network.centre, network.spread),
        callbacks=[EarlyStoppingCallback(task.model.full.patience)],
    )
    trainer.train(resume_from_checkpoint=_last(checkpoints))
    epochs = [
        entry[f"eval_{task.metric}"]
        for entry in trainer.state.log_history
        if f"eval_{task.metric}" in entry
    ]
    trained = _finish(task, dataset, assignment, network, tokenizer, epochs)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return trained


def _finish(
    task: Task,
    dataset: Dataset,
    assignment: Assignment,
    network: EncoderWithHead,
    tokenizer: Any,
    epochs: list[float],
) -> Trained:
    encoder = Encoder(network.encoder, tokenizer, task.text)
    depth, head = encoder.depth, network.folded_head()
    rows = {side: assignment.rows(dataset, side) for side in ("train", "validation", "test")}
    texts = dataset.texts()
    seen = np.concatenate([rows["train"], rows["validation"]])
    vectors, _ = encoder.features([texts[row] for row in seen], [depth], [POOLING])
    unit = vectors[depth, POOLING]
    raw = task.target.score(head.outputs(unit[len(rows["train"]) :]))
    known = dataset.labels[rows["validation"]]
    score_map, note = calibrate(task.calibration, task.target, known, raw)
    threshold = set_threshold(task.threshold, task.target, known, score_map(raw))
    info = info_of(task, assignment, depth, POOLING, "linear (fine-tuned)", "linear", threshold)
    classifier = Classifier(info, encoder, head, reference_sample(unit, task.seed), score_map)
    log = TrainingLog(
        task=task.name,
        train="full",
        metric=task.metric,
        documents={side: len(where) for side, where in rows.items()},
        epochs=tuple(epochs),
        chosen=f"epoch {int(np.argmax(_signed(task, epochs))) + 1} of {len(epochs)}, fine-tuned",
        threshold=threshold,
        calibration=note,
    )
    return Trained(classifier, log)


def _signed(task: Task, figures: list[float]) -> list[float]:
    return figures if HIGHER_IS_BETTER[task.metric] else [-figure for figure in figures]


def _last(checkpoints: Path) -> str | None:
    """The newest complete checkpoint; the trainer's state is the last file of one."""
    found = [
        path for path in checkpoints.glob("checkpoint-*") if (path / TRAINER_STATE_NAME).is_file()
    ]
    return str(max(found, key=lambda path: int(path.name.rpartition("-")[2]))) if found else None


def _arguments(task: Task, checkpoints: Path, documents: int) -> TrainingArguments:
    settings = task.model.full
    steps = -(-documents // settings.batch_size) * settings.epochs
    return TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=4 * settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=round(settings.warmup_share * steps),
        weight_decay=settings.weight_decay,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        restore_callback_states_from_checkpoint=True,
        metric_for_best_model=task.metric,
        greater_is_better=HIGHER_IS_BETTER[task.metric],
        seed=task.seed,
        data_seed=task.seed,
        bf16=torch.cuda.is_available(),
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        logging_strategy="epoch",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


class _Collate:
    """A batch of examples, filled up to the longest."""

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        tokens = Tokens([example["ids"] for example in examples], self.pad)
        ids, mask = pad_batch(tokens, np.arange(len(examples)), "cpu")
        labels = torch.tensor([example["label"] for example in examples], dtype=torch.float32)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class _Metrics:
    """Validation figures of an epoch, by the task's own metrics."""

    def __init__(self, task: Task, centre: float, spread: float) -> None:
        self.task, self.centre, self.spread = task, centre, spread

    def __call__(self, prediction: Any) -> dict[str, float]:
        outputs = np.asarray(prediction.predictions, dtype=np.float64)
        labels = np.asarray(prediction.label_ids, dtype=np.float64)
        target = self.task.target
        if target.kind == "ordinal":
            outputs = outputs * self.spread + self.centre
        scores = target.score(outputs)
        threshold = set_threshold(self.task.threshold, target, labels, scores)
        figures = compute(target, labels, scores, threshold)
        return {str(name): figure for name, figure in figures.items()}
