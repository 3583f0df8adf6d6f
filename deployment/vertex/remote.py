"""A session on a stack whose servers are elsewhere: connect, see that all is registered."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import requests

from deployment import components
from deployment.stacks import PROJECT
from deployment.vertex.settings import VertexStack
from deployment.vertex.source import only_source
from tamis.errors import StackError

ANSWER_SECONDS = 20.0
"""How long a server may take to say that it is there."""


@contextmanager
def begin(name: str, stack: VertexStack, experiments: tuple[str, ...]) -> Iterator[None]:
    """Connect to the stack's servers and make it active in this session.

    Args:
        name: Name of the stack file.
        stack: Its settings.
        experiments: MLflow experiments that the block logs to.

    Raises:
        StackError: A server does not answer, refuses us, or the stack is not registered.
    """
    connect(stack)
    components.begin(PROJECT)
    wrong = components.problems(name, components.of_vertex(stack))
    if wrong:
        raise StackError(
            f"--stack {name}: {'; '.join(wrong)} (on {stack.zenml_server}); "
            f"`python run.py stack up {name}` mends that"
        )
    components.activate(name)
    from deployment.vertex import google

    google.begin(stack)
    for experiment in experiments:
        _ensure_experiment(experiment)
    with only_source():
        yield


def connect(stack: VertexStack) -> None:
    """Log in to a stack's ZenML server; the key is in the environment, or ``zenml`` kept it.

    Raises:
        StackError: It does not answer, or refuses us.
    """
    server = stack.zenml_server.rstrip("/")
    require_answer("zenml_server", f"{server}/health")
    os.environ["ZENML_STORE_URL"] = server
    from zenml.client import Client

    logging.getLogger("zenml").setLevel(logging.ERROR)
    try:
        _ = Client().zen_store
        _ = Client().active_user
    except Exception as error:
        raise StackError(
            f"zenml_server: {server} refuses us ({_first_line(error)}); "
            f"`zenml login {server}`, or put an API key into ZENML_STORE_API_KEY"
        ) from None


def require_secret(stack: VertexStack) -> None:
    """See whether ZenML has the credentials of the MLflow server.

    Raises:
        StackError: It has not.
    """
    from zenml.client import Client

    keys = {"basic": ("username", "password"), "token": ("token",)}[stack.mlflow.auth]
    given = " ".join(f"--{key}=..." for key in keys)
    mend = f"`zenml secret create {stack.mlflow.secret} {given}`"
    try:
        secret = Client().get_secret(stack.mlflow.secret)
    except KeyError:
        raise StackError(f"mlflow.secret: ZenML has no {stack.mlflow.secret!r}; {mend}") from None
    missing = [key for key in keys if key not in secret.values]
    if missing:
        raise StackError(f"mlflow.secret: {stack.mlflow.secret} has no {missing[0]}; {mend}")


def require_answer(key: str, url: str) -> None:
    """See whether a server is there, without credentials.

    Raises:
        StackError: Nothing answers.
    """
    try:
        answer = requests.get(url, timeout=ANSWER_SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        raise StackError(f"{key}: {url} does not answer ({type(error).__name__})") from None
    if answer.status_code >= 500:
        raise StackError(f"{key}: {url} answers {answer.status_code} {answer.reason}")


def _ensure_experiment(name: str) -> None:
    from deployment.registry import Registry, ensure_experiment

    ensure_experiment(Registry().client, name)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
