"""What is missing before a stack on Vertex AI can be used: a line a problem, with its mend."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests

from deployment import components
from deployment.vertex import google, remote
from deployment.vertex.settings import VertexStack
from tamis.config import problems
from tamis.errors import StackError, TamisError

_LOOPBACK = ("127.0.0.1", "localhost")
_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)


@dataclass
class Findings:
    """What was looked at.

    Attributes:
        good: What is as it should be, a line each.
        wrong: What is missing and how to mend it, a line each.
    """

    good: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def look(self, what: str, check: Callable[[], object]) -> bool:
        """Do one check; whether it passed."""
        try:
            check()
        except TamisError as error:
            self.wrong.append(str(error))
        except Exception as error:
            told = (str(error).strip().splitlines() or [""])[0][:300]
            self.wrong.append(f"{what}: {type(error).__name__}: {told}")
        else:
            self.good.append(what)
            return True
        return False


def file_problems(data: dict[str, Any], shown: str) -> list[str]:
    """Everything that is wrong with the content of a stack's file."""
    return [str(error) for error in problems(VertexStack, data, shown)]


def check(name: str, stack: VertexStack, look: Findings) -> None:
    """Look at everything that a run needs, one thing after another, and go on after a problem.

    Must be called in a session whose ZenML is not active on the stack yet.
    """
    has_login = look.look("Google Cloud credentials", google.credentials)
    has_zenml = look.look(f"ZenML server {stack.zenml_server}", lambda: remote.connect(stack))
    uri = stack.mlflow.tracking_uri.rstrip("/")
    has_mlflow = look.look(
        f"MLflow server {uri}",
        lambda: remote.require_answer("mlflow.tracking_uri", f"{uri}/health"),
    )
    if has_zenml and look.look(
        f"ZenML secret {stack.mlflow.secret}", lambda: remote.require_secret(stack)
    ):
        registered = look.look(f"stack {name} in ZenML", lambda: _registered(name, stack))
        if registered and has_mlflow:
            look.look("MLflow accepts the secret", lambda: _mlflow(name))
    if has_login:
        look.look(f"bucket {stack.bucket}", lambda: _bucket(stack))
        look.look(f"Vertex AI in {stack.project}, {stack.region}", lambda: _vertex(stack))
        serving = {stack.serving.image} if stack.serving else set()
        for image in sorted({stack.image, stack.gpu_image or stack.image} | serving):
            look.look(f"image {image}", lambda image=image: _image(image))  # type: ignore[misc]


def _registered(name: str, stack: VertexStack) -> None:
    wrong = components.problems(name, components.of_vertex(stack))
    if wrong:
        raise StackError(
            f"ZenML: stack {name}: {'; '.join(wrong)}; `python run.py stack up {name}`"
        )


def _mlflow(name: str) -> None:
    from deployment.registry import Registry

    components.activate(name)
    Registry().client.search_experiments(max_results=1)


def _bucket(stack: VertexStack) -> None:
    import fsspec

    with _google("bucket", "roles/storage.objectAdmin on the bucket", stack):
        fs = fsspec.filesystem("gs")
        if not fs.exists(stack.bucket):
            raise StackError(
                f"bucket: {stack.bucket} does not exist or may not be seen; `terraform apply`, or "
                f"`gcloud storage buckets create {stack.bucket} --location={stack.region}`"
            )
        probe = f"{stack.bucket}/tamis-check-{secrets.token_hex(4)}"
        fs.pipe_file(probe, b"may be removed")
        fs.rm_file(probe)


def _vertex(stack: VertexStack) -> None:
    with _google("Vertex AI", "roles/aiplatform.user on the project", stack):
        google.begin(stack).PipelineJob.list(filter='state="PIPELINE_STATE_RUNNING"')


@contextmanager
def _google(what: str, role: str, stack: VertexStack) -> Iterator[None]:
    from google.api_core.exceptions import Forbidden, GoogleAPICallError, Unauthorized
    from google.auth.exceptions import RefreshError

    try:
        yield
    except StackError:
        raise
    except (RefreshError, Unauthorized):
        raise StackError(f"{what}: the credentials are refused; {google.HOW_TO_LOG_IN}") from None
    except (GoogleAPICallError, OSError) as error:
        # gcsfs has no class of its own for it.
        if isinstance(error, Forbidden | PermissionError) or str(error).startswith("Forbidden"):
            raise StackError(
                f"{what}: not allowed ({_line(error)}); enable the API, and grant {role}"
            ) from None
        raise StackError(f"{what}: {stack.project}: {_line(error)}") from None


def _image(image: str) -> None:
    """Ask the registry by its own protocol, as a container engine would."""
    from google.auth.transport.requests import Request

    host, _, rest = image.partition("/")
    digest = "@" in rest
    repository, _, reference = rest.partition("@") if digest else rest.rpartition(":")
    login = google.credentials()
    login.refresh(Request())
    scheme = "http" if host.partition(":")[0] in _LOOPBACK else "https"
    answer = requests.head(
        f"{scheme}://{host}/v2/{repository}/manifests/{reference}",
        auth=("oauth2accesstoken", login.token),
        headers={"Accept": _MANIFESTS},
        timeout=remote.ANSWER_SECONDS,
    )
    if answer.status_code == 404:
        raise StackError(
            f"image: {image} is not in the registry; `gcloud builds submit --config "
            "deployment/images/cloudbuild.yaml .` builds and pushes it"
        )
    if answer.status_code in (401, 403):
        raise StackError(
            f"image: {image} may not be read; grant roles/artifactregistry.reader on the registry"
        )
    answer.raise_for_status()
    if answer.status_code != 200:
        raise StackError(f"image: {image}: {host} answers {answer.status_code} {answer.reason}")


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
