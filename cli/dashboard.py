"""python run.py dashboard: the ZenML dashboard and the MLflow UI on what is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.options import StackName


def _skip_survey() -> None:
    """Somebody with ten minutes wants to see the runs, not a questionnaire."""
    from zenml.client import Client
    from zenml.constants import FINISHED_ONBOARDING_SURVEY_KEY

    client = Client()
    client.update_user(
        client.active_user.id,
        updated_email_opt_in=False,
        updated_metadata={FINISHED_ONBOARDING_SURVEY_KEY: True},
    )


def dashboard(
    stack: StackName = "local",
    port: Annotated[int, typer.Option("--port", help="ZenML's; MLflow takes the next.")] = 8237,
) -> None:
    """Open the ZenML dashboard and the MLflow UI; Ctrl-C ends both."""
    from cli.plan import console
    from deployment.session import open_session
    from deployment.stacks import LocalStack, load_stack

    loaded = load_stack(stack)
    if not isinstance(loaded, LocalStack):
        console.print(f"ZenML   {loaded.zenml_server}")
        console.print(f"MLflow  {loaded.mlflow.tracking_uri}")
        return
    ours = loaded.owns_zenml
    with open_session(stack):  # makes the stores if there are none yet
        if ours:
            _skip_survey()
    environment = os.environ | {
        "ZENML_CONFIG_PATH": str(loaded.zenml_config),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    programs = Path(sys.executable).parent
    commands = {
        f"ZenML   http://127.0.0.1:{port}": [
            str(programs / "zenml"), "login", "--local", "--blocking", "--port", str(port),
        ],
        f"MLflow  http://127.0.0.1:{port + 1}": [
            str(programs / "mlflow"), "ui", "--backend-store-uri", loaded.tracking_uri,
            "--host", "127.0.0.1", "--port", str(port + 1),
        ],
    }  # fmt: skip
    running = []
    try:
        for title, command in commands.items():
            console.print(title)
            running.append(
                subprocess.Popen(
                    command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            )
        console.print("[dim]Ctrl-C ends both.[/]")
        for process in running:
            process.wait()
    except KeyboardInterrupt:
        console.print("ended")
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(timeout=20)
