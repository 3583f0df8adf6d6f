"""Families and preparations side by side: every variant on the same folds, then the table."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from steps.compare import fold, rank_variants, try_variant
from steps.data import ingest, split, validate
from tamis.comparison.settings import Variant
from tamis.task import Task


@pipeline(name="tamis_comparison", execution_mode=ExecutionMode.FAIL_FAST)
def comparison(task: Task, variants: list[Variant], stamp: str, home: str) -> None:
    """Compare variants of a task's model.

    Args:
        task: The task; ``compare`` says how many folds, and what may be deployed.
        variants: What to compare: one step each.
        stamp: Changes when the sources do.
        home: Folder for checkpoints, and for what a killed comparison has done.
    """
    documents = ingest(task, stamp)
    validation = validate(task, documents)
    sides = split(task, documents, validation)
    folds = fold(task, documents, sides)
    trials = [
        try_variant(task, variant, documents, folds, home, id=f"try_variant_{variant.name}")
        for variant in variants
    ]
    rank_variants(task, documents, folds, trials)
