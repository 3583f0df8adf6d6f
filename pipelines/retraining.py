"""Take a window of new documents in: drift, challenger, comparison, promotion."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from steps.behaviour import behave
from steps.data import ingest, ingest_window, join, split_keeping, validate
from steps.model import evaluate, train
from steps.retrain import compare, load_champion, measure_drift, promote_or_refuse
from tamis.task import Task


@pipeline(name="tamis_retraining", execution_mode=ExecutionMode.FAIL_FAST)
def retraining(
    task: Task, stamp: str, window_stamp: str, champion_version: str, home: str, ledger: str
) -> None:
    """Train a challenger on old and new documents, and promote or release it if it is better.

    Args:
        task: The task; ``retrain.window`` names the new documents.
        stamp: Changes when the sources do.
        window_stamp: Changes when the window does.
        champion_version: The champion to compare with.
        home: Folder for checkpoints and downloaded models.
        ledger: URL of the promotion ledger.
    """
    champion, seen, earlier, version = load_champion(task, champion_version, home)
    window = ingest_window(task, window_stamp)
    measure_drift(task, version, window, home)
    old = ingest(task, stamp)
    documents = join(old, window, earlier)
    validation = validate(task, documents)
    sides = split_keeping(task, documents, validation, seen, old, window)
    challenger, log = train(task, documents, sides, home)
    evaluation = evaluate(task, challenger, log, documents, sides)
    behaviour = behave(task, challenger, documents, sides)
    decision, _ = compare(task, challenger, champion, documents, sides, window)
    promote_or_refuse(
        task,
        challenger,
        evaluation,
        log,
        documents,
        sides,
        decision,
        ledger,
        version,
        window,
        behaviour,
    )
