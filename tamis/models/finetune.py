"""Fine-tuning of an encoder with a linear head, by the trainer of transformers.

The whole network learns, or low-rank adapters in it, or a network of some of its layers that
imitates a larger one.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer import TRAINER_STATE_NAME

from tamis.corpus.dataset import Dataset
from tamis.corpus.split import Assignment
from tamis.errors import ConfigError
from tamis.evaluation.metrics import HIGHER_IS_BETTER, compute
from tamis.models.backbone import load_backbone, thin, transformer_layers
from tamis.models.encoder import Encoder, pad_batch, pool
from tamis.models.encoder_classifier import EncoderClassifier
from tamis.models.frozen import check_length, train_frozen
from tamis.models.heads import Head
from tamis.models.info import EncoderInfo
from tamis.models.log import Trained, TrainingLog
from tamis.models.losses import weighted_divergence, weighted_mean
from tamis.models.replay import weights_of
from tamis.models.selection import calibrate, set_threshold
from tamis.models.settings import (
    DistilledSettings,
    EncoderSettings,
    FullSettings,
    LoraSettings,
    Pooling,
)
from tamis.models.tokens import Tokens, tokenize
from tamis.models.training import facts, reference_sample, rows_of
from tamis.target import Target
from tamis.task import Task

POOLING: Pooling = "mean"
_HOW = {"full": "fine-tuned", "lora": "low-rank adapters, merged", "distilled": "distilled"}


class EncoderWithHead(torch.nn.Module):
    """An encoder, mean pooling and a linear head, with the loss of the target.

    Ordinal targets are regressed on the scale brought to zero mean and unit variance; the
    constants are folded into the head afterwards.
    """

    def __init__(
        self,
        encoder: Any,
        target: Target,
        centre: float,
        spread: float,
        teacher_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = torch.nn.Linear(encoder.config.hidden_size, target.n_outputs)
        self.teacher_weight = teacher_weight
        torch.nn.init.normal_(self.head.weight, std=0.02)
        torch.nn.init.zeros_(self.head.bias)
        self.ordinal = target.kind == "ordinal"
        self.centre, self.spread = centre, spread

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor,
        teacher: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Loss and outputs (b, k) of a batch of token ids (b, t).

        Labels and weights of the examples are (b,), what a teacher puts out is (b, k).
        """
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        # Unit vectors are short: scaled up, they let the head learn at the network's rate.
        vectors = pool(hidden.last_hidden_state, attention_mask, POOLING)
        outputs = self.head(vectors * vectors.shape[1] ** 0.5)
        loss = self._loss(outputs.float(), labels, weights)
        if teacher is not None:
            share, imitation = (
                self.teacher_weight,
                self._imitation(outputs.float(), teacher, weights),
            )
            loss = share * imitation + (1 - share) * loss
        return {"loss": loss, "logits": outputs}

    def _loss(
        self, outputs: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None
    ) -> torch.Tensor:
        if self.ordinal:
            wanted = (labels - self.centre) / self.spread
            return weighted_mean(functional.mse_loss, outputs[:, 0], wanted, weights)
        return weighted_mean(functional.cross_entropy, outputs, labels.long(), weights)

    def _imitation(
        self, outputs: torch.Tensor, teacher: torch.Tensor, weights: torch.Tensor | None
    ) -> torch.Tensor:
        if self.ordinal:
            wanted = (teacher - self.centre) / self.spread
            return weighted_mean(functional.mse_loss, outputs, wanted, weights)
        return weighted_divergence(outputs, teacher, weights)

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
    """Token ids with labels, what a teacher puts out and weights where there are any."""

    def __init__(
        self,
        tokens: Tokens,
        labels: Sequence[float],
        teacher: NDArray[np.float32] | None,
        weights: Sequence[float] | None,
    ) -> None:
        self.tokens, self.labels, self.teacher, self.weights = tokens, labels, teacher, weights

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> dict[str, Any]:
        example = {"ids": self.tokens.ids[position], "label": self.labels[position]}
        if self.weights is not None:
            example["weight"] = self.weights[position]
        return example if self.teacher is None else example | {"teacher": self.teacher[position]}


def finetune(
    task: Task,
    model_settings: EncoderSettings,
    dataset: Dataset,
    assignment: Assignment,
    checkpoints: Path,
) -> Trained[EncoderClassifier]:
    """Fine-tune, and take the epoch with the best validation figure.

    A run that was killed resumes from its last checkpoint, with the same random state, when it
    is started again with the same task and documents.

    Args:
        task: The task.
        model_settings: Its model, whose ``train`` says what learns.
        dataset: Labelled documents.
        assignment: Their split.
        checkpoints: Folder for checkpoints, emptied at the end.

    Raises:
        ConfigError: The backbone reads fewer tokens, or has fewer layers, than the task wants.
    """
    settings = settings_of(model_settings)
    teacher = _teacher(task, model_settings, dataset, assignment, checkpoints)
    set_seed(task.seed)
    model, tokenizer = load_backbone(model_settings.backbone)
    check_length(task, model)
    texts, labels = dataset.texts(), dataset.labels
    rows = rows_of(dataset, assignment)
    known = labels[rows["train"]]
    weights = weights_of(task.retrain.replay, dataset, assignment)
    network = EncoderWithHead(
        _learner(task, model, settings),
        task.target,
        float(known.mean()),
        float(known.std()) or 1.0,
        settings.weight if isinstance(settings, DistilledSettings) else 0.0,
    )

    def examples(side: str) -> _Examples:
        chosen = rows[side]
        own = [texts[row] for row in chosen]
        taught = None if teacher is None else _outputs(teacher.classifier, own)
        weigh = None if weights is None or side != "train" else weights[chosen].tolist()
        tokens = tokenize(tokenizer, own, task.text)
        return _Examples(tokens, labels[chosen].tolist(), taught, weigh)

    trainer = Trainer(
        model=network,
        args=_arguments(task, settings, checkpoints, len(rows["train"])),
        train_dataset=examples("train"),
        eval_dataset=examples("validation"),
        data_collator=_Collate(tokenizer.pad_token_id or 0),
        compute_metrics=_Metrics(task, network.centre, network.spread),
        callbacks=[EarlyStoppingCallback(settings.patience)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=_last(checkpoints))
    epochs = [
        entry[f"eval_{task.metric}"]
        for entry in trainer.state.log_history
        if f"eval_{task.metric}" in entry
    ]
    if isinstance(settings, LoraSettings):
        network.encoder = network.encoder.merge_and_unload()
    trained = _finish(task, model_settings, dataset, assignment, network, tokenizer, epochs)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return trained


def settings_of(model: EncoderSettings) -> FullSettings:
    """The settings of what learns: of the whole network, of adapters, or of a smaller network."""
    found = {"full": model.full, "lora": model.lora, "distilled": model.distilled}
    return found[model.train]


def _learner(task: Task, model: Any, settings: FullSettings) -> Any:
    """The network that learns."""
    if isinstance(settings, LoraSettings):
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules="all-linear",
        )
        return get_peft_model(model, config)
    if isinstance(settings, DistilledSettings):
        depth = len(transformer_layers(model))
        if settings.layers > depth:
            allowed = f"at most {depth}, which is what the backbone has"
            raise ConfigError(task.name, "model.distilled.layers", settings.layers, allowed)
        return thin(model, settings.layers)
    return model


def _teacher(
    task: Task,
    model: EncoderSettings,
    dataset: Dataset,
    assignment: Assignment,
    checkpoints: Path,
) -> Trained[EncoderClassifier] | None:
    """The larger network that is imitated, trained on the same documents."""
    if model.train != "distilled":
        return None
    larger = model.model_copy(update={"train": model.distilled.teacher})
    split = task.split.model_copy(update={"folds": 0})
    taught = task.model_copy(update={"model": larger, "split": split})
    if larger.train == "frozen":
        return train_frozen(taught, larger, dataset, assignment, None)
    folder = checkpoints.with_name(f"{checkpoints.name}-teacher")
    return finetune(taught, larger, dataset, assignment, folder)


def _outputs(teacher: EncoderClassifier, texts: Sequence[str]) -> NDArray[np.float32]:
    """What the teacher's head puts out (n, k)."""
    vectors, _ = teacher.embed(texts)
    return teacher.head.outputs(vectors).astype(np.float32)


def _finish(
    task: Task,
    model_settings: EncoderSettings,
    dataset: Dataset,
    assignment: Assignment,
    network: EncoderWithHead,
    tokenizer: Any,
    epochs: list[float],
) -> Trained[EncoderClassifier]:
    encoder = Encoder(network.encoder, tokenizer, task.text)
    depth, head = encoder.depth, network.folded_head()
    rows = rows_of(dataset, assignment)
    texts, train = dataset.texts(), model_settings.train
    seen = np.concatenate([rows["train"], rows["validation"]])
    vectors, _ = encoder.features([texts[row] for row in seen], [depth], [POOLING])
    unit = vectors[depth, POOLING]
    raw = task.target.score(head.outputs(unit[len(rows["train"]) :]))
    known = dataset.labels[rows["validation"]]
    score_map, note = calibrate(task.calibration, task.target, known, raw)
    threshold = set_threshold(task.threshold, task.target, known, score_map(raw))
    info = EncoderInfo(
        **facts(task, assignment, f"linear ({_HOW[train]})", threshold),
        train=train,
        backbone=model_settings.backbone,
        layer=depth,
        pooling=POOLING,
        formula="linear",
    )
    reference = reference_sample(unit, task.seed)
    classifier = EncoderClassifier(info, encoder, head, reference, score_map)
    log = TrainingLog(
        task=task.name,
        train=train,
        metric=task.metric,
        documents={side: len(where) for side, where in rows.items()},
        epochs=tuple(epochs),
        chosen=f"epoch {int(np.argmax(_signed(task, epochs))) + 1} of {len(epochs)}, {_HOW[train]}",
        threshold=threshold,
        replay=info.replay,
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


def _arguments(
    task: Task, settings: FullSettings, checkpoints: Path, documents: int
) -> TrainingArguments:
    gpu = torch.cuda.is_available()
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
        use_cpu=not gpu,
        bf16=settings.precision == "bf16" or (settings.precision == "auto" and gpu),
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        logging_strategy="epoch",
        disable_tqdm=True,
        dataloader_pin_memory=gpu,
    )


class _Collate:
    """A batch of examples, filled up to the longest."""

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        tokens = Tokens([example["ids"] for example in examples], self.pad)
        ids, mask = pad_batch(tokens, np.arange(len(examples)), "cpu")
        labels = torch.tensor([example["label"] for example in examples], dtype=torch.float32)
        batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        if "weight" in examples[0]:
            batch["weights"] = torch.tensor([example["weight"] for example in examples])
        if "teacher" in examples[0]:
            batch["teacher"] = torch.from_numpy(np.stack([each["teacher"] for each in examples]))
        return batch


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
