"""Where a task's champion, its cascade and its scored sample are; ``bench/scoring.py`` runs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from deployment.session import open_session
from tamis.task import load_task


def main() -> None:
    """Write the places as JSON."""
    task_file, *inputs, target = sys.argv[1:]
    task = load_task(task_file)
    with open_session("local") as session:
        from deployment import distilling, filtering
        from deployment.registry import Registry
        from tamis.scoring.backends.folder import export
        from tamis.scoring.cascade import read_cascade

        registry, home = Registry(), session.home
        version = registry.champion(task.name)
        model = registry.download(version, home / "models")
        cascade = registry.download_attached(version, distilling.NAME, home / "models")
        if cascade is None:
            raise SystemExit(f"{task.name}: no cascade was distilled")
        corpus = filtering.FilterRequest(
            inputs=tuple(inputs), output="", version=version.version, workers=1
        )
        sample = distilling.score_sample(
            task, distilling.DistillRequest(corpus=corpus, samples=str(home / "taught")), home
        )
        info = read_cascade(cascade).info
        places = {
            "model": str(model),
            "backend": str(export(model, info.backend, home / "exports")),
            "margin": info.margin,
            "cascade": str(cascade),
            "taught": sample.output,
        }
        Path(target).write_text(json.dumps(places, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
