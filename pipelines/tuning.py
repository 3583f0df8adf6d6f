"""Training with a search for hyper-parameters before it."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from steps.behaviour import behave
from steps.data import ingest, split, validate
from steps.model import evaluate, gate, register, train
from steps.tune import tune
from tamis.task import Task


@pipeline(name="tamis_tuning", execution_mode=ExecutionMode.FAIL_FAST)
def tuning(
    task: Task,
    trials: int,
    stamp: str,
    home: str,
    ledger: str,
    journals: str,
    data: str = "",
) -> None:
    """Search, then train, judge and register with the best settings.

    Args:
        task: The task; ``tune`` says what is searched.
        trials: How many, those of an earlier run of the same search included.
        stamp: Changes when the sources do.
        home: Folder for checkpoints and downloaded models.
        ledger: URL of the promotion ledger.
        journals: Folder or URL of the searches' journals.
        data: Id of the artifact with the documents of an old version; empty reads the sources.
    """
    documents = ingest(task, stamp, data)
    validation = validate(task, documents)
    sides = split(task, documents, validation)
    tuned, _ = tune(task, documents, sides, trials, home, journals)
    classifier, log = train(tuned, documents, sides, home)
    evaluation = evaluate(tuned, classifier, log, documents, sides)
    behaviour = behave(tuned, classifier, documents, sides)
    decision = gate(tuned, evaluation, documents, home, behaviour)
    register(tuned, classifier, evaluation, log, documents, sides, decision, ledger, behaviour)
