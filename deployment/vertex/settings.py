"""The file of a Vertex AI stack: configs/stacks/vertex.yaml. No secret is ever in it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from tamis.config import Strict, wrong

STEPS = (
    "annotate",
    "attach",
    "behave",
    "calibrate_alarm",
    "choose_backend",
    "choose_documents",
    "compare",
    "distill",
    "evaluate",
    "fold",
    "gate",
    "ingest",
    "ingest_window",
    "join",
    "load_champion",
    "manifest",
    "measure_drift",
    "promote_or_refuse",
    "rank_variants",
    "register",
    "remember",
    "score_sample",
    "sift",
    "split",
    "split_keeping",
    "train",
    "try_variant",
    "tune",
    "validate",
    "watch",
)
"""Steps of all pipelines, which may be given machines of their own."""
DEFAULT = "default"
RUN_LABELS = ("task", "pipeline", "run")
"""Labels that every run gets."""
_MOST_LABELS = 64 - len(RUN_LABELS)  # Google's limit


def _like(pattern: str, example: str) -> AfterValidator:
    """Text that matches; a placeholder such as ``<project>`` says what belongs there."""

    def check(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            raise ValueError(example)
        return value

    return AfterValidator(check)


_URL = r"https?://[A-Za-z0-9.\-:\[\]]+(/[^\s<>]*)?"
_IMAGE = r"[a-z0-9][a-z0-9.\-:]*(/[a-z0-9._\-]+)+(:[A-Za-z0-9._\-]+|@sha256:[0-9a-f]{64})"
Project = Annotated[
    str,
    _like(r"([a-z0-9.\-]+:)?[a-z][a-z0-9\-]{4,28}[a-z0-9]", "the id of your Google Cloud project"),
]
Region = Annotated[str, _like(r"[a-z]+-[a-z]+\d+", "a region such as us-central1")]
Bucket = Annotated[
    str, _like(r"gs://[a-z0-9][a-z0-9._\-]{1,220}[a-z0-9]", "a bucket such as gs://my-tamis")
]
Url = Annotated[str, _like(_URL, "an address such as https://server.example.org")]
Image = Annotated[
    str, _like(_IMAGE, "an image with its tag or digest, such as REGION-docker.pkg.dev/P/R/steps:1")
]
Route = Annotated[str, _like(r"/[A-Za-z0-9._~/\-]*", "a path such as /predict")]
Label = Annotated[
    str, _like(r"[a-z0-9_\-]{0,63}", "at most 63 lower-case letters, digits, _ and -")
]
LabelKey = Annotated[
    str, _like(r"[a-z][a-z0-9_\-]{0,62}", "a lower-case word of at most 63 characters")
]


class Gpu(Strict):
    """Accelerators of one machine.

    Attributes:
        type: As Vertex names it, such as ``NVIDIA_L4``.
        count: How many.
    """

    type: Annotated[str, _like(r"[A-Z][A-Z0-9_]+", "an accelerator such as NVIDIA_L4")]
    count: int = Field(default=1, ge=1, le=16)


class Machine(Strict):
    """What a step runs on: so much of a machine that Vertex picks, or a machine by its type.

    Attributes:
        cpu: Cores; with ``memory``, Vertex picks the machine.
        memory: Such as ``16GiB``.
        machine_type: Such as ``g2-standard-8``; the step then runs as a custom job.
        gpu: Accelerators.
        spot: Take a spot machine, which is cheaper and may be taken away; needs ``machine_type``.
        boot_disk_gb: Size of the disk; needs ``machine_type``.
    """

    cpu: float | None = Field(default=None, gt=0, le=416)
    memory: Annotated[str, _like(r"[1-9]\d*(GiB|MiB)", "a size such as 16GiB")] | None = None
    machine_type: (
        Annotated[
            str,
            _like(r"[a-z][a-z0-9]+-[a-z0-9\-]+", "a machine type such as n2-standard-8"),
        ]
        | None
    ) = None
    gpu: Gpu | None = None
    spot: bool = False
    boot_disk_gb: int | None = Field(default=None, ge=100, le=64_000)

    @model_validator(mode="after")
    def _one_way(self) -> Machine:
        if self.machine_type is not None:
            if self.cpu is not None or self.memory is not None:
                raise wrong("machine_type", self.machine_type, "either it, or cpu and memory")
        elif self.cpu is None or self.memory is None:
            raise wrong("cpu", self.cpu, "cpu and memory, or a machine_type")
        elif self.spot:
            raise wrong("spot", True, "only with a machine_type")
        elif self.boot_disk_gb is not None:
            raise wrong("boot_disk_gb", self.boot_disk_gb, "only with a machine_type")
        return self


class Mlflow(Strict):
    """The MLflow server.

    Attributes:
        tracking_uri: Its address.
        secret: Name of the ZenML secret with ``username`` and ``password``, or ``token``.
        auth: Which of the two.
    """

    tracking_uri: Url
    secret: Annotated[str, _like(r"[A-Za-z][A-Za-z0-9_\-]*", "the name of a ZenML secret")]
    auth: Literal["basic", "token"] = "basic"


class Serving(Strict):
    """The container that serves models on an endpoint, and what it runs on.

    Attributes:
        image: That answers over HTTP; it finds the model's files at ``AIP_STORAGE_URI``.
        predict_route: Where it takes predictions, ``AIP_PREDICT_ROUTE``.
        health_route: Where it says that it is ready, ``AIP_HEALTH_ROUTE``.
        port: That it listens on, ``AIP_HTTP_PORT``.
        machine_type: Of each replica.
        gpu: Accelerators of each replica.
        min_replicas: That always run; Vertex AI bills them by the hour.
        max_replicas: That Vertex AI may scale to.
        canary: Percent of the traffic that a new version gets first; 100 is all at once.
        timeout_minutes: How long a deployment may take before it counts as failed.
    """

    image: Image
    predict_route: Route = "/predict"
    health_route: Route = "/readyz"
    port: int = Field(default=8080, ge=1, le=65_535)
    machine_type: Annotated[
        str, _like(r"[a-z][a-z0-9]+-[a-z0-9\-]+", "a machine type such as n2-standard-4")
    ] = "n2-standard-4"
    gpu: Gpu | None = None
    min_replicas: int = Field(default=1, ge=1, le=1_000)
    max_replicas: int = Field(default=1, ge=1, le=1_000)
    canary: int = Field(default=100, ge=1, le=100)
    timeout_minutes: int = Field(default=30, ge=1, le=120)

    @model_validator(mode="after")
    def _room_to_scale(self) -> Serving:
        if self.max_replicas < self.min_replicas:
            raise wrong("max_replicas", self.max_replicas, f"from min_replicas={self.min_replicas}")
        return self


class VertexStack(Strict):
    """Runs on Vertex AI, artifacts in a bucket, ZenML and MLflow on their servers.

    Attributes:
        project: Google Cloud project.
        region: Where jobs run.
        bucket: Artifacts, output of filters, the promotion ledger.
        registry: Artifact Registry that holds the images.
        image: Of the steps without a GPU.
        gpu_image: Of the steps with one; None takes ``image``.
        service_account: That jobs run as.
        zenml_server: The ZenML server.
        mlflow: The MLflow server.
        network: VPC that jobs are peered with, as ``projects/NUMBER/global/networks/NAME``.
        api_endpoint: Of Vertex AI, where it is not the region's own (Private Service Connect).
        labels: For billing, on every job; task, pipeline and run come by themselves.
        machines: By a name of yours.
        steps: Which machine a step gets; ``default`` is for those that are not named.
        retries: How often a run that lost a machine is submitted again.
        scratch: Folder for temporary files on the machines.
        serving: What serves promoted models; None where no endpoint is wanted.
    """

    kind: Literal["vertex"]
    project: Project
    region: Region
    bucket: Bucket
    registry: Annotated[
        str,
        _like(r"[a-z0-9.\-:]+(/[a-z0-9._\-]+)+", "a registry such as REGION-docker.pkg.dev/P/R"),
    ]
    image: Image
    gpu_image: Image | None = None
    service_account: Annotated[
        str, _like(r"[a-z0-9\-]+@[a-z0-9.\-]+\.gserviceaccount\.com", "a service account's address")
    ]
    zenml_server: Url
    mlflow: Mlflow
    network: (
        Annotated[
            str,
            _like(r"projects/\d+/global/networks/[a-z0-9\-]+", "projects/NUMBER/global/networks/X"),
        ]
        | None
    ) = None
    api_endpoint: Url | None = None
    labels: dict[LabelKey, Label] = Field(default={}, max_length=_MOST_LABELS)
    machines: dict[str, Machine]
    steps: dict[str, str]
    retries: int = Field(default=2, ge=0, le=10)
    scratch: Annotated[str, _like(r"/[^\s<>]+", "an absolute path")] = "/tmp/tamis"  # noqa: S108
    serving: Serving | None = None

    @model_validator(mode="after")
    def _labels_are_free(self) -> VertexStack:
        for key in RUN_LABELS:
            if key in self.labels:
                raise wrong(f"labels.{key}", self.labels[key], "labels that no run gets by itself")
        return self

    @model_validator(mode="after")
    def _machines_are_known(self) -> VertexStack:
        for step, machine in self.steps.items():
            if step != DEFAULT and step not in STEPS:
                raise wrong("steps", step, f"{DEFAULT}, {', '.join(STEPS)}")
            if machine not in self.machines:
                known = ", ".join(self.machines) or "none"
                raise wrong(f"steps.{step}", machine, f"one of the machines {known}")
        if DEFAULT not in self.steps:
            raise wrong(
                "steps", sorted(self.steps), f"also {DEFAULT}, for steps that are not named"
            )
        return self

    def machine_of(self, step: str) -> Machine:
        """The machine of a step, or of one of its kind, such as ``try_variant_tfidf``."""
        kinds = [kind for kind in self.steps if step == kind or step.startswith(f"{kind}_")]
        # The longest: `split_keeping` is a step of its own, not one of several of `split`.
        kind = step if step in STEPS else max(kinds, key=len, default=DEFAULT)
        return self.machines[self.steps.get(kind, self.steps[DEFAULT])]

    def image_of(self, step: str) -> str:
        """The image of a step."""
        return (self.gpu_image or self.image) if self.machine_of(step).gpu else self.image
