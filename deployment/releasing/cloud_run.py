"""The target ``cloud-run``: a revision a version, shares by the service's traffic split.

Figures are read from a version's own address, which its tag gives it. Where a version has several
instances each answer comes from one of them, so a release counts best with one instance a version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from deployment.releasing.scrape import scrape
from deployment.releasing.target import Observation, Target, Traffic
from tamis.errors import EngineError, StackError
from tamis.serving.release_settings import CloudRunSettings, ReleaseSettings

_READY = "Ready"
_PORT = 3_000


class CloudRunTarget(Target):
    """Versions of one task on Cloud Run.

    Args:
        task: The task.
        settings: Of the release.
        own: Of Cloud Run.
    """

    name: ClassVar[str] = "cloud-run"

    def __init__(self, task: str, settings: ReleaseSettings, own: CloudRunSettings) -> None:
        from google.cloud import run_v2

        from deployment.vertex.google import credentials

        self._settings, self._own = settings, own
        self._service = own.service or task.replace("_", "-")
        options = {"api_endpoint": own.api_endpoint} if own.api_endpoint else None
        how: dict[str, Any] = {
            "credentials": credentials(), "client_options": options, "transport": "rest",
        }  # fmt: skip
        self._services = run_v2.ServicesClient(**how)
        self._revisions = run_v2.RevisionsClient(**how)
        self._parent = f"projects/{own.project}/locations/{own.region}"
        self._name = f"{self._parent}/services/{self._service}"

    def state(self) -> Traffic:
        """As the service's status tells it."""
        service = self._get()
        if service is None:
            return Traffic()
        shares: dict[str, int] = {}
        for each in service.traffic_statuses:
            version = self._version(each.revision)
            if version and each.percent:
                shares[version] = shares.get(version, 0) + each.percent
        ready = frozenset(
            name for name in self.running() if _is_ready(self._revision(name))
        )  # fmt: skip
        return Traffic(shares, None, ready, service.uri or None)

    def running(self) -> frozenset[str]:
        """Versions that have a revision."""
        with _asking("listing revisions"):
            found = self._revisions.list_revisions(parent=self._name)
            names = [self._version(each.name.rsplit("/", 1)[-1]) for each in found]
        return frozenset(name for name in names if name)

    def start(self, version: str, folder: Path, shadow: bool) -> None:
        """Make a version's revision, tagged and without traffic; the image holds the model."""
        from google.cloud import run_v2

        if _is_ready(self._revision(version)):
            return
        service = self._get()
        template = self._template(version)
        revision = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION
        with _asking(f"deploying version {version}"):
            if service is None:
                latest = run_v2.TrafficTarget(
                    type_=revision, revision=self._named(version), tag=f"v{version}", percent=100
                )
                made = run_v2.Service(template=template, traffic=[latest])
                done = self._services.create_service(
                    parent=self._parent, service=made, service_id=self._service
                )
            else:
                service.template = template
                kept = [each for each in service.traffic if each.revision != self._named(version)]
                # A revision that an earlier try has left keeps its share, which is none.
                kept.append(
                    run_v2.TrafficTarget(
                        type_=revision, revision=self._named(version), tag=f"v{version}", percent=0
                    )
                )
                service.traffic = kept
                done = self._services.update_service(service=service)
            self._wait(done)
        if not _is_ready(self._revision(version)):
            raise EngineError(f"version {version}: its revision on Cloud Run is not ready")

    def route(self, shares: Mapping[str, int], shadow: str | None) -> None:
        """Set the traffic split; every revision keeps its tag."""
        from google.cloud import run_v2

        service = self._get()
        if service is None:
            raise EngineError(f"the service {self._service} is not there")
        revision = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION
        wanted = [
            run_v2.TrafficTarget(
                type_=revision, revision=self._named(version), tag=f"v{version}",
                percent=shares.get(version, 0),
            )
            for version in sorted({*self.running(), *shares})
        ]  # fmt: skip
        if [_plain(each) for each in service.traffic] == [_plain(each) for each in wanted]:
            return
        service.traffic = wanted
        with _asking("splitting the traffic"):
            # With the service's etag: another's change in between is refused, not undone.
            self._wait(self._services.update_service(_traffic_only(service)))

    def stop(self, version: str) -> None:
        """Take a version's tag and delete its revision; Cloud Run lets requests in flight end."""
        service = self._get()
        if service is None or version not in self.running():
            return
        kept = [each for each in service.traffic if each.revision != self._named(version)]
        with _asking(f"removing version {version}"):
            if len(kept) != len(service.traffic):
                service.traffic = kept
                self._wait(self._services.update_service(_traffic_only(service)))
            name = f"{self._name}/revisions/{self._named(version)}"
            self._wait(self._revisions.delete_revision(name=name))

    def observe(self, version: str) -> Observation:
        """From the metrics behind a version's tag."""
        service = self._get()
        for each in service.traffic_statuses if service else ():
            if each.tag == f"v{version}" and each.uri:
                return scrape(f"{each.uri}/metrics") or Observation()
        return Observation()

    def _template(self, version: str) -> Any:
        from google.cloud import run_v2

        own = self._own
        container = run_v2.Container(
            image=own.image.replace("{version}", version),
            ports=[run_v2.ContainerPort(container_port=_PORT)],
            resources=run_v2.ResourceRequirements(limits={"cpu": own.cpu, "memory": own.memory}),
            startup_probe=run_v2.Probe(
                http_get=run_v2.HTTPGetAction(path="/readyz", port=_PORT),
                period_seconds=5, failure_threshold=36,
            ),
        )  # fmt: skip
        if own.keys_secret:
            secret = run_v2.SecretKeySelector(secret=own.keys_secret, version="latest")
            source = run_v2.EnvVarSource(secret_key_ref=secret)
            container.env = [run_v2.EnvVar(name="TAMIS_SERVE_KEYS", value_source=source)]
        return run_v2.RevisionTemplate(
            revision=self._named(version),
            containers=[container],
            service_account=own.service_account or "",
            scaling=run_v2.RevisionScaling(
                min_instance_count=own.min_instances, max_instance_count=own.max_instances
            ),
        )

    def _wait(self, change: Any) -> None:
        change.result(timeout=self._settings.ready_seconds)

    def _named(self, version: str) -> str:
        return f"{self._service}-v{version}"

    def _version(self, revision: str) -> str | None:
        start = f"{self._service}-v"
        return revision.removeprefix(start) if revision.startswith(start) else None

    def _get(self) -> Any | None:
        from google.api_core.exceptions import NotFound

        with _asking("looking up the service"):
            try:
                return self._services.get_service(name=self._name)
            except NotFound:
                return None

    def _revision(self, version: str) -> Any | None:
        from google.api_core.exceptions import NotFound

        with _asking(f"looking up version {version}"):
            try:
                return self._revisions.get_revision(
                    name=f"{self._name}/revisions/{self._named(version)}"
                )
            except NotFound:
                return None


def _traffic_only(service: Any) -> Any:
    from google.cloud import run_v2

    return run_v2.UpdateServiceRequest(service=service, update_mask={"paths": ["traffic"]})


def _plain(target: Any) -> tuple[str, int]:
    return target.revision, target.percent


def _is_ready(revision: Any | None) -> bool:
    from google.cloud import run_v2

    succeeded = run_v2.Condition.State.CONDITION_SUCCEEDED
    return revision is not None and any(
        each.type_ == _READY and each.state == succeeded for each in revision.conditions
    )


@contextmanager
def _asking(what: str) -> Iterator[None]:
    from google.api_core.exceptions import Forbidden, GoogleAPIError, Unauthorized

    try:
        yield
    except (Forbidden, Unauthorized) as error:
        raise StackError(
            f"Cloud Run, {what}: not allowed ({error.message}); grant roles/run.developer"
        ) from None
    except TimeoutError:
        raise EngineError(f"Cloud Run, {what}: not done in time") from None
    except (GoogleAPIError, OSError) as error:
        raise EngineError(f"Cloud Run, {what}: {error}") from None
