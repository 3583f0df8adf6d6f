"""Ingest, validate, split, train, evaluate, gate, register."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from steps.behaviour import behave
from steps.data import ingest, split, validate
from steps.model import evaluate, gate, register, train
from tamis.task import Task


@pipeline(name="tamis_training", execution_mode=ExecutionMode.FAIL_FAST)
def training(task: Task, stamp: str, home: str, ledger: str, data: str = "") -> None:
    """Train a task's classifier and register it.

    Args:
        task: The task.
        stamp: Changes when the sources do.
        home: Folder for checkpoints and downloaded models.
        ledger: URL of the promotion ledger.
        data: Id of the artifact with the documents of an old version; empty reads the sources.
    """
    documents = ingest(task, stamp, data)
    validation = validate(task, documents)
    sides = split(task, documents, validation)
    classifier, log = train(task, documents, sides, home)
    evaluation = evaluate(task, classifier, log, documents, sides)
    behaviour = behave(task, classifier, documents, sides)
    decision = gate(task, evaluation, documents, home, behaviour)
    register(task, classifier, evaluation, log, documents, sides, decision, ledger, behaviour)
