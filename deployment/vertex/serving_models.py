"""Vertex Model Registry: a task's model, whose versions line up with those of MLflow.

The model's id is the task's name, so there is one for a task however often it is asked for. A
version carries the alias ``mlflow-N`` and labels that say what it was made from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import fsspec

from deployment.vertex import google
from deployment.vertex.options import label
from deployment.vertex.settings import Serving, VertexStack
from tamis.errors import EngineError, ModelError, StackError, TamisError
from tamis.models.classifier import digest as digest_of

if TYPE_CHECKING:
    from deployment.registry import Registry, Version

ANSWER_SECONDS = 60.0
"""How long Vertex AI may take to answer a request; work that follows has its own limit."""
TASK, VERSION, DIGEST = "task", "mlflow_version", "digest"
"""Labels of a version."""

Client = TypeVar("Client")


def serving_stack(name: str) -> VertexStack:
    """The stack that ``--endpoint`` was given with.

    Raises:
        StackError: It is not on Vertex AI, or says nothing about serving.
    """
    from deployment.stacks import load_stack

    stack = load_stack(name)
    if not isinstance(stack, VertexStack):
        raise StackError(f"--endpoint: given with --stack {name}; allowed: a stack of kind vertex")
    require_serving(stack)
    return stack


def require_serving(stack: VertexStack) -> Serving:
    """What a stack says about serving.

    Raises:
        StackError: Nothing.
    """
    if stack.serving is None:
        raise StackError(
            "--endpoint: the stack's file has no serving; allowed: a stack with serving, such as "
            "serving: {image: REGION-docker.pkg.dev/P/R/serving:1}"
        )
    return stack.serving


def machine_of(serving: Serving) -> Any:
    """What a replica runs on, as Vertex AI takes it.

    Raises:
        StackError: There is no such accelerator.
    """
    from google.cloud.aiplatform_v1.types import AcceleratorType, MachineSpec

    machine = MachineSpec(machine_type=serving.machine_type)
    if serving.gpu is not None:
        known = AcceleratorType.__members__
        if serving.gpu.type not in known:
            names = ", ".join(name for name in known if name.startswith("NVIDIA"))
            raise StackError(f"serving.gpu.type: given {serving.gpu.type!r}; allowed: {names}")
        machine.accelerator_type = known[serving.gpu.type]
        machine.accelerator_count = serving.gpu.count
    return machine


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Turn every error of Google's in the block into one sentence that says what was asked for.

    Raises:
        StackError: The credentials are refused, or they do not allow it.
        EngineError: Anything else.
    """
    from aiohttp import ClientError
    from gcsfs.retry import HttpError  # type: ignore[import-untyped]
    from google.api_core.exceptions import Forbidden, GoogleAPIError, Unauthorized
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except TamisError:
        raise
    except (GoogleAuthError, Unauthorized):
        raise StackError(f"{what}: the credentials are refused; {google.HOW_TO_LOG_IN}") from None
    except (Forbidden, PermissionError) as error:
        raise StackError(
            f"{what}: not allowed ({_line(error)}); grant roles/aiplatform.user on the project "
            "and roles/storage.objectAdmin on the bucket"
        ) from None
    except TimeoutError:
        raise EngineError(f"{what}: not done in time; Vertex AI may still be at it") from None
    except (GoogleAPIError, HttpError, ClientError, OSError) as error:
        raise EngineError(f"{what}: {_line(error)}") from None


def connect(stack: VertexStack, client: type[Client]) -> Client:
    """A client of one of Vertex AI's services, in the stack's region.

    Raises:
        StackError: There are no credentials.
    """
    given: Any = client
    made: Client = given(
        credentials=google.credentials(),
        transport="rest" if stack.api_endpoint else None,
        client_options={
            "api_endpoint": stack.api_endpoint or f"{stack.region}-aiplatform.googleapis.com"
        },
    )
    return made


def publish(folder: Path, url: str) -> str:
    """Copy a folder to where Vertex AI reads it; files that are there already are not copied.

    A file counts as there when its name and size agree, since an object store shows none that is
    half-written. Nothing else may be below the URL.

    Args:
        folder: With the model's files.
        url: fsspec URL of the copy, whose last part names the content.

    Returns:
        The URL.

    Raises:
        StackError: The bucket may not be written.
        EngineError: It cannot be.
    """
    with asking(f"copying the model's files to {url}"):
        fs, root = fsspec.core.url_to_fs(url)
        fs.invalidate_cache()
        known = {
            name.removeprefix(root).lstrip("/"): facts["size"]
            for name, facts in fs.find(root, detail=True).items()
        }
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = path.relative_to(folder).as_posix()
            if known.get(name) != path.stat().st_size:
                fs.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
                fs.put_file(str(path), f"{root}/{name}")
    return url


def publish_version(stack: VertexStack, registry: Registry, version: Version, cache: Path) -> str:
    """Copy a registered version's files into the stack's bucket, once.

    MLflow's own files may be behind its proxy, where Vertex AI cannot read.

    Args:
        stack: Whose bucket.
        registry: That the version is registered in.
        version: The version.
        cache: Folder on this machine for downloads.

    Returns:
        ``gs://bucket/models/TASK/VERSION-DIGEST``.

    Raises:
        ModelError: The files are not those that were registered.
    """
    folder = registry.download(version, cache)
    wanted = version.tags["digest"]
    if digest_of(folder) != wanted:
        raise ModelError(
            f"{version.name} version {version.version}: the files in {folder} are not those that "
            "were registered; remove the folder and run this again"
        )
    at = f"{stack.bucket}/models/{version.name}/{version.version}-{wanted[:12]}"
    return publish(folder, at)


class Models:
    """Versions of tasks' models in the Model Registry of a stack's project and region.

    Args:
        stack: Where.
        serving: The container that the versions are served by.
    """

    def __init__(self, stack: VertexStack, serving: Serving) -> None:
        from google.cloud.aiplatform_v1 import ModelServiceClient

        self._stack = stack
        self._serving = serving
        self._client = connect(stack, ModelServiceClient)
        self.parent = f"projects/{stack.project}/locations/{stack.region}"

    def name(self, task: str) -> str:
        """Resource name of a task's model."""
        return f"{self.parent}/models/{task}"

    def find(self, task: str, version: str) -> Any | None:
        """What was uploaded last of a version of MLflow's; None where nothing was."""
        return self._get(task, f"mlflow-{version}")

    def at(self, task: str, number: str) -> Any | None:
        """A version by Vertex AI's number; None where there is none."""
        return self._get(task, number)

    def upload(self, task: str, version: str, artifact_uri: str, labels: dict[str, str]) -> Any:
        """Upload a version of MLflow's, unless it is there with the same files and container.

        Vertex AI takes the image in when a version is uploaded, so another image or route makes
        another version, which takes the alias over. An image is told by its name.

        Args:
            task: The task.
            version: MLflow's number.
            artifact_uri: ``gs://`` folder with the model's files.
            labels: More of them, such as the digest.

        Returns:
            The version, as Vertex AI describes it.

        Raises:
            StackError: A model of that name is there that is not ours.
            EngineError: Vertex AI refused it.
        """
        from google.cloud.aiplatform_v1.types import UploadModelRequest

        if not artifact_uri.startswith("gs://"):
            raise StackError(f"upload: given {artifact_uri!r}; allowed: a folder of a bucket")
        known = self._get(task, "default")
        if known is not None and known.labels.get(TASK) != label(task):
            raise StackError(
                f"Vertex AI: model {self.name(task)} is not of this task (it has no label "
                f"{TASK}={label(task)}); label it or remove it"
            )
        model = self._described(task, version, artifact_uri, labels)
        found = self.find(task, version) if known is not None else None
        if found is not None and _same(found, model):
            return found
        request = UploadModelRequest(parent=self.parent, model=model)
        if known is None:
            request.model_id = task
        else:
            request.parent_model = self.name(task)
        with asking(f"uploading version {version} of {task} to Vertex Model Registry"):
            done: Any = self._client.upload_model(request, timeout=ANSWER_SECONDS)
            answer = done.result(timeout=self._serving.timeout_minutes * 60)
            return self._client.get_model(
                name=f"{self.name(task)}@{answer.model_version_id}", timeout=ANSWER_SECONDS
            )

    def make_default(self, model: Any) -> None:
        """Make a version the one that is meant where none is named."""
        if "default" in model.version_aliases:
            return
        with asking(f"making {model.name}@{model.version_id} the default version"):
            self._client.merge_version_aliases(
                name=f"{model.name}@{model.version_id}",
                version_aliases=["default"],
                timeout=ANSWER_SECONDS,
            )

    def _get(self, task: str, which: str) -> Any | None:
        from google.api_core.exceptions import NotFound

        with asking(f"looking up {task}@{which} in Vertex Model Registry"):
            try:
                return self._client.get_model(
                    name=f"{self.name(task)}@{which}", timeout=ANSWER_SECONDS
                )
            except NotFound:
                return None

    def _described(self, task: str, version: str, artifact_uri: str, labels: dict[str, str]) -> Any:
        from google.cloud.aiplatform_v1.types import Model, ModelContainerSpec, Port

        ours = labels | {TASK: task, VERSION: version}
        serving = self._serving
        return Model(
            display_name=task,
            description=f"The classifier of the task {task}.",
            version_description=f"Version {version} in MLflow.",
            version_aliases=[f"mlflow-{version}"],
            labels=self._stack.labels | {key: label(value) for key, value in ours.items()},
            artifact_uri=artifact_uri,
            container_spec=ModelContainerSpec(
                image_uri=serving.image,
                predict_route=serving.predict_route,
                health_route=serving.health_route,
                ports=[Port(container_port=serving.port)],
                deployment_timeout={"seconds": serving.timeout_minutes * 60},
            ),
        )


def _same(found: Any, wanted: Any) -> bool:
    """Whether two versions have the same files and are served the same way."""
    return bool(
        found.labels.get(DIGEST) == wanted.labels.get(DIGEST)
        and _container(found) == _container(wanted)
    )


def _container(model: Any) -> tuple[Any, ...]:
    spec = model.container_spec
    ports = [port.container_port for port in spec.ports]
    return spec.image_uri, spec.predict_route, spec.health_route, ports


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
