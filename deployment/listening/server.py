"""The listener as a process."""

from __future__ import annotations

from pathlib import Path

from deployment.listening.app import Webhook
from deployment.listening.inbox import Inbox
from deployment.listening.metrics import Metrics
from deployment.listening.worker import PAUSE_SECONDS, Command, Worker
from deployment.retraining.journal import Retrains

TOKEN = "TAMIS_LISTEN_TOKEN"  # noqa: S105
_PATIENCE = 5.0
_CONNECTIONS = 64


def listen(
    task: str,
    token: str,
    home: Path,
    ledger: str,
    command: Command,
    host: str,
    port: int,
    pause: float = PAUSE_SECONDS,
) -> None:
    """Listen until SIGTERM or Ctrl-C; requests under way are answered, a run is ended.

    Args:
        task: Name of the task.
        token: That requests have to bear.
        home: Folder of the stack's local files.
        ledger: URL of the promotion ledger's folder.
        command: How a run is started.
        host: Address to listen on.
        port: Port; 0 takes any.
        pause: Seconds after a run that failed.

    Raises:
        OutputBusy: Another listener is at work on the task.
    """
    import uvicorn

    from deployment.serving.connections import BoundedProtocol

    class Protocol(BoundedProtocol):
        patience = staticmethod(lambda: _PATIENCE)

    inbox = Inbox(home / "listening" / task)
    try:
        metrics = Metrics(home)
        worker = Worker(inbox, command, lambda: Retrains(ledger, task), metrics, pause)
        app = Webhook(task, token, inbox, worker, metrics).app()
        config = uvicorn.Config(
            app, host=host, port=port, http=Protocol, ws="none", lifespan="on",
            access_log=False, server_header=False, date_header=False, log_level="warning",
            limit_concurrency=_CONNECTIONS, timeout_keep_alive=5, timeout_graceful_shutdown=5,
            proxy_headers=False,
        )  # fmt: skip
        uvicorn.Server(config).run()
    finally:
        inbox.close()
