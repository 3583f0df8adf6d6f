"""Endpoints of Vertex AI: which version of a task's model serves what share of the traffic.

Every change is read off Vertex AI first and is made in steps that can be made again: a task has
one endpoint of a fixed id, and a version is deployed under its own number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployment.vertex.options import label
from deployment.vertex.serving_models import (
    ANSWER_SECONDS,
    DIGEST,
    TASK,
    VERSION,
    Models,
    asking,
    connect,
    machine_of,
    require_serving,
)
from deployment.vertex.settings import VertexStack
from tamis.errors import EngineError, UsageError


@dataclass(frozen=True)
class Deployed:
    """A model on an endpoint.

    Attributes:
        id: On the endpoint.
        version: MLflow's; None where it is not of this task.
        digest: Of its files, as a label.
        share: Percent of the traffic.
        vertex_version: Vertex AI's number.
        model: Name of the model.
    """

    id: str
    version: str | None
    digest: str
    share: int
    vertex_version: str
    model: str

    @property
    def name(self) -> str:
        """MLflow's version, or the name of a model that is not of this task."""
        return self.version or f"{self.model}@{self.vertex_version}"

    def __str__(self) -> str:
        return f"{'version ' if self.version else ''}{self.name}: {self.share}%"


@dataclass(frozen=True)
class Served:
    """An endpoint at one moment.

    Attributes:
        task: The task.
        endpoint: Resource name; None where there is none yet.
        models: Deployed there, those with the most traffic first.
        champion: The version that ought to serve, where that is known.
    """

    task: str
    endpoint: str | None
    models: tuple[Deployed, ...]
    champion: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether the champion, and nothing else, has traffic."""
        serving = {each.version for each in self.models if each.share}
        return self.champion is not None and serving == {self.champion}

    def share_of(self, version: str) -> int:
        """Percent of the traffic that a version of MLflow's has."""
        return sum(each.share for each in self.models if each.version == version)

    def after(self, version: str, share: int) -> dict[str, int]:
        """Percent that each version would have if one were given a share."""
        now: dict[str, int] = {}
        for each in self.models:
            now[each.name] = now.get(each.name, 0) + each.share
        return split(now, version, share)

    def __str__(self) -> str:
        return ", ".join(map(str, self.models)) or "nothing"


def split(shares: Mapping[str, int], chosen: str, percent: int) -> dict[str, int]:
    """Give one of several a share; what is left goes to the others in proportion to theirs.

    Args:
        shares: Percent of each now.
        chosen: Whose share is given; it need not be among them.
        percent: Of the traffic. Where no other has any, ``chosen`` gets all.

    Returns:
        Percent of each, whole numbers that sum to 100.
    """
    others = {key: share for key, share in shares.items() if key != chosen}
    total = sum(others.values())
    left = 100 - percent if total else 0
    result = {key: share * left // total if total else 0 for key, share in others.items()}
    # The largest remainders get what rounding down has left over.
    order = sorted(others, key=lambda key: (-(others[key] * left % total) if total else 0, key))
    for key in order[: left - sum(result.values())]:
        result[key] += 1
    return result | {chosen: 100 - left}


class Endpoints:
    """Endpoints of a stack's project and region, one a task.

    Args:
        stack: With ``serving``.

    Raises:
        StackError: It has none, names an unknown accelerator, or there are no credentials.
    """

    def __init__(self, stack: VertexStack) -> None:
        self._stack = stack
        self._serving = require_serving(stack)
        self._machine = machine_of(self._serving)
        from google.cloud.aiplatform_v1 import EndpointServiceClient

        self._models = Models(stack, self._serving)
        self._client = connect(stack, EndpointServiceClient)

    def name(self, task: str) -> str:
        """Resource name of a task's endpoint."""
        return f"{self._models.parent}/endpoints/{endpoint_id(task)}"

    def is_uploaded(self, task: str, version: str, digest: str) -> bool:
        """Whether a version of MLflow's was uploaded with these files, by whatever container."""
        found = self._models.find(task, version)
        return found is not None and found.labels.get(DIGEST) == label(digest)

    def upload(self, task: str, version: str, artifact_uri: str, labels: dict[str, str]) -> str:
        """Put a version into Vertex Model Registry, once; see ``Models.upload``.

        Returns:
            Resource name of the version.
        """
        model = self._models.upload(task, version, artifact_uri, labels)
        return f"{model.name}@{model.version_id}"

    def share(self, now: Served, version: str, asked: int | None) -> int:
        """What a promoted version gets: never less than it has, unless that is asked for.

        Args:
            now: The endpoint.
            version: MLflow's.
            asked: Percent; None takes the stack's canary share.
        """
        wanted = asked or max(self._serving.canary, now.share_of(version))
        return now.after(version, wanted)[version]

    def deploy(self, task: str, version: str, share: int, keep: str | None = None) -> Served:
        """Let a version that was uploaded serve a share of the traffic.

        Once it serves all, the task's other models are taken off, except the version to go back
        to. The same call again finishes what a killed one began.

        Args:
            task: The task.
            version: MLflow's.
            share: Percent of the traffic; all where nothing else serves.
            keep: The champion before, which stays deployed without traffic.

        Raises:
            UsageError: The version was not uploaded, or the share is none.
            StackError: The credentials do not allow it.
            EngineError: Vertex AI refused a step.
        """
        if not 1 <= share <= 100:
            raise UsageError(f"share: given {share}; allowed: 1 to 100 percent")
        model = self._uploaded(task, version)
        self._ensure(task)
        mine = self._ensure_deployed(task, model)
        self._give(task, mine, share)
        now = self.state(task, version)
        if not now.agrees:
            return now
        self._models.make_default(model)
        for each in now.models:
            if not each.share and each.version not in (keep, None):
                self._undeploy(task, each)
        return self.state(task, version)

    def rollback(self, task: str, version: str) -> Served:
        """Give a version all traffic at once; the others stay deployed without any.

        A version that is still deployed serves again as it did, by the container of then.

        Args:
            task: The task.
            version: MLflow's.

        Raises:
            UsageError: The version was not uploaded.
            StackError: The credentials do not allow it.
            EngineError: Vertex AI refused a step.
        """
        model = self._uploaded(task, version)
        self._ensure(task)
        same = [
            each
            for each in self.state(task).models
            if each.version == version and each.digest == model.labels.get(DIGEST)
        ]
        if same:
            newest = max(same, key=lambda each: (each.share, int(each.vertex_version)))
            mine = newest.id
            model = self._models.at(task, newest.vertex_version) or model
        else:
            mine = self._ensure_deployed(task, model)
        self._give(task, mine, 100)
        self._models.make_default(model)
        return self.state(task, version)

    def state(self, task: str, champion: str | None = None) -> Served:
        """What serves a task now.

        Args:
            task: The task.
            champion: Version that ought to serve, to compare with.

        Raises:
            StackError: The credentials do not allow it.
            EngineError: Vertex AI does not answer.
        """
        found = self._get(task)
        if found is None:
            return Served(task, None, (), champion)
        models = [self._describe(task, each, found) for each in found.deployed_models]
        ordered = tuple(sorted(models, key=lambda each: (-each.share, each.id)))
        return Served(task, found.name, ordered, champion)

    def _describe(self, task: str, deployed: Any, endpoint: Any) -> Deployed:
        name = deployed.model.partition("@")[0].rsplit("/", 1)[-1]
        number = deployed.model_version_id
        model = self._models.at(task, number) if name == task else None
        labels = dict(model.labels) if model is not None else {}
        return Deployed(
            id=deployed.id,
            version=labels.get(VERSION),
            digest=labels.get(DIGEST, ""),
            share=endpoint.traffic_split.get(deployed.id, 0),
            vertex_version=number,
            model=name,
        )

    def _uploaded(self, task: str, version: str) -> Any:
        model = self._models.find(task, version)
        if model is None:
            raise UsageError(
                f"{task}: version {version} is not in Vertex Model Registry; upload it first"
            )
        return model

    def _get(self, task: str) -> Any | None:
        from google.api_core.exceptions import NotFound

        with asking(f"looking up the endpoint of {task}"):
            try:
                return self._client.get_endpoint(name=self.name(task), timeout=ANSWER_SECONDS)
            except NotFound:
                return None

    def _ensure(self, task: str) -> None:
        """Make the task's endpoint, unless it is there."""
        from google.api_core.exceptions import Conflict
        from google.cloud.aiplatform_v1.types import CreateEndpointRequest, Endpoint

        if self._get(task) is not None:
            return
        request = CreateEndpointRequest(
            parent=self._models.parent,
            endpoint_id=endpoint_id(task),
            endpoint=Endpoint(
                display_name=task,
                description=f"Serves the champion of the task {task}.",
                labels=self._stack.labels | {TASK: label(task)},
            ),
        )
        with asking(f"making the endpoint of {task}"):
            try:
                done = self._client.create_endpoint(request, timeout=ANSWER_SECONDS)
            except Conflict:
                raise EngineError(f"the endpoint of {task} is being made by another run") from None
            self._wait(done)

    def _ensure_deployed(self, task: str, model: Any) -> str:
        """Deploy a version, unless it is; without traffic where something else has it.

        Returns:
            Its id on the endpoint.
        """
        from google.api_core.exceptions import Conflict
        from google.cloud.aiplatform_v1.types import (
            DedicatedResources,
            DeployedModel,
            DeployModelRequest,
        )

        now = self.state(task)
        for each in now.models:
            if (each.model, each.vertex_version) == (task, model.version_id):
                return each.id
        request = DeployModelRequest(
            endpoint=self.name(task),
            deployed_model=DeployedModel(
                # Of our own, so that a second call does not deploy it twice.
                id=model.version_id,
                model=f"{model.name}@{model.version_id}",
                display_name=f"{task} {model.labels.get(VERSION, '')}",
                dedicated_resources=DedicatedResources(
                    machine_spec=self._machine,
                    min_replica_count=self._serving.min_replicas,
                    max_replica_count=self._serving.max_replicas,
                ),
            ),
        )
        if not any(each.share for each in now.models):
            request.traffic_split = {"0": 100}  # which stands for the one that is deployed
        with asking(f"deploying version {model.labels.get(VERSION)} of {task}"):
            try:
                done = self._client.deploy_model(request, timeout=ANSWER_SECONDS)
            except Conflict as error:
                raise EngineError(
                    f"the endpoint of {task} is being changed by another run ({error.message})"
                ) from None
            self._wait(done)
        return str(model.version_id)

    def _give(self, task: str, deployed: str, share: int) -> None:
        """Set the traffic split, unless it is so already."""
        endpoint = self._get(task)
        if endpoint is None:
            raise EngineError(f"the endpoint of {task} was removed meanwhile")
        now = {each.id: endpoint.traffic_split.get(each.id, 0) for each in endpoint.deployed_models}
        wanted = split(now, deployed, share)
        if now == wanted:
            return
        # With its etag: another run's change in between is refused rather than undone.
        endpoint.traffic_split = wanted
        with asking(f"giving {wanted[deployed]}% of the traffic of {task} to {deployed}"):
            self._client.update_endpoint(
                {"endpoint": endpoint, "update_mask": {"paths": ["traffic_split"]}},
                timeout=ANSWER_SECONDS,
            )

    def _undeploy(self, task: str, deployed: Deployed) -> None:
        with asking(f"taking version {deployed.version} of {task} off its endpoint"):
            done = self._client.undeploy_model(
                endpoint=self.name(task), deployed_model_id=deployed.id, timeout=ANSWER_SECONDS
            )
            self._wait(done)

    def _wait(self, change: Any) -> None:
        change.result(timeout=self._serving.timeout_minutes * 60)


def endpoint_id(task: str) -> str:
    """Id of a task's endpoint: letters, digits and dashes, a letter or digit at the end."""
    plain = task.replace("_", "-")
    if not plain.endswith("-"):
        return plain
    return f"{plain.rstrip('-')[:54]}-{hashlib.sha256(task.encode()).hexdigest()[:8]}"
