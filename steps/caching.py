"""What a step's cached result depends on.

ZenML hashes the source of the step function only. A step whose logic lives in the engine has
to say so, or it would serve results of code that is no longer there.
"""

from __future__ import annotations

from pathlib import Path

from zenml.config.cache_policy import CachePolicy

PROJECT = Path(__file__).resolve().parent.parent
COMMON = ("tamis/target.py", "tamis/task.py", "tamis/config.py", "tamis/decision.py")


def depends_on(*patterns: str) -> CachePolicy:
    """A cache policy that covers the engine's files that match, besides the common ones.

    Args:
        patterns: Globs below the project, such as ``tamis/corpus/*.py``.
    """
    files = {file for pattern in (*COMMON, *patterns) for file in PROJECT.glob(pattern)}
    names = sorted(file.relative_to(PROJECT).as_posix() for file in files)
    # By content: an artifact that was made anew but is the same has another id.
    return CachePolicy(file_dependencies=names, include_artifact_ids=False)


CORPUS = depends_on(
    "tamis/corpus/*.py",
    "tamis/models/classifier.py",
    "tamis/models/info.py",
    "data/demo_annotations.jsonl",
)
MODELS = depends_on("tamis/corpus/*.py", "tamis/models/*.py", "tamis/evaluation/metrics.py")
EVALUATION = depends_on("tamis/corpus/*.py", "tamis/models/*.py", "tamis/evaluation/*.py")
COMPARISON = depends_on(
    "tamis/corpus/*.py",
    "tamis/models/*.py",
    "tamis/comparison/*.py",
    "tamis/evaluation/metrics.py",
    "tamis/scoring/backends/*.py",
)
