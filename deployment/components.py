"""Stacks as ZenML knows them: components, made or mended until they are what the file says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployment.stacks import LocalStack
from deployment.vertex.settings import VertexStack
from tamis.errors import StackError


@dataclass(frozen=True)
class Component:
    """One component of a stack.

    Attributes:
        kind: ZenML's name of its type, such as ``artifact_store``.
        flavor: Of ZenML's flavours.
        settings: Its configuration; None takes out what was set before.
    """

    kind: str
    flavor: str
    settings: dict[str, Any]


def of_local(stack: LocalStack) -> list[Component]:
    """Components of a stack on this machine."""
    return [
        Component("orchestrator", "local", {}),
        Component("artifact_store", "local", {"path": str(stack.folder / "artifacts")}),
        Component("experiment_tracker", "mlflow", {"tracking_uri": stack.tracking_uri}),
        Component("model_registry", "mlflow", {}),
    ]


def of_vertex(stack: VertexStack) -> list[Component]:
    """Components of a stack on Vertex AI; credentials are references to a ZenML secret."""
    orchestrator = {
        "project": stack.project,
        "location": stack.region,
        "workload_service_account": stack.service_account,
        "network": stack.network,
    }
    keys = {
        "basic": {"tracking_username": "username", "tracking_password": "password"},
        "token": {"tracking_token": "token"},
    }[stack.mlflow.auth]
    unused = dict.fromkeys(("tracking_username", "tracking_password", "tracking_token"))
    secret = stack.mlflow.secret
    references = unused | {setting: f"{{{{{secret}.{key}}}}}" for setting, key in keys.items()}
    return [
        Component("orchestrator", "vertex", orchestrator),
        Component("artifact_store", "gcp", {"path": stack.bucket}),
        Component("container_registry", "gcp", {"uri": stack.registry}),
        Component("image_builder", "gcp", {"project": stack.project}),
        Component(
            "experiment_tracker",
            "mlflow",
            {"tracking_uri": stack.mlflow.tracking_uri, **references},
        ),
        Component("model_registry", "mlflow", {}),
    ]


def stack_name(name: str) -> str:
    """What a stack and its components are called in ZenML."""
    return f"tamis-{name}"


def begin(project: Path) -> None:
    """Have ZenML find the steps below the project."""
    from zenml.utils import source_utils

    source_utils.set_custom_source_root(str(project))


def _found(client: Any, name: str, component: Component) -> Any:
    from zenml.enums import StackComponentType

    kind = StackComponentType(component.kind)
    found = client.list_stack_components(name=stack_name(name), type=kind).items
    return found[0] if found else None


def register(name: str, wanted: list[Component]) -> list[str]:
    """Make the components and the stack what they should be; what is right is left alone.

    Returns:
        What was done, a line each.
    """
    from zenml.client import Client
    from zenml.enums import StackComponentType

    client = Client()
    done: list[str] = []
    title = stack_name(name)
    for component in wanted:
        kind = StackComponentType(component.kind)
        found = _found(client, name, component)
        if found is not None and found.flavor_name != component.flavor:
            raise StackError(
                f"ZenML: {component.kind} {title} is of flavour {found.flavor_name}, not "
                f"{component.flavor}; `zenml {component.kind.replace('_', '-')} delete {title}`"
            )
        if found is None:
            given = {key: value for key, value in component.settings.items() if value is not None}
            client.create_stack_component(title, component.flavor, kind, given)
            done.append(f"{component.kind} made ({component.flavor})")
        elif changed := _changed(found.configuration, component.settings):
            client.update_stack_component(found.id, kind, configuration=component.settings)
            done.append(f"{component.kind} changed ({', '.join(changed)})")
    if not client.list_stacks(name=title).items:
        client.create_stack(title, {StackComponentType(c.kind): title for c in wanted})
        done.append(f"stack {title} made")
    return done


def problems(name: str, wanted: list[Component]) -> list[str]:
    """What ZenML has that is not as it should be; nothing is changed."""
    from zenml.client import Client

    client = Client()
    found: list[str] = []
    for component in wanted:
        known = _found(client, name, component)
        if known is None:
            found.append(f"{component.kind}: not registered")
        elif known.flavor_name != component.flavor:
            found.append(f"{component.kind}: registered as {known.flavor_name}")
        elif changed := _changed(known.configuration, component.settings):
            found.append(f"{component.kind}: registered with another {', '.join(changed)}")
    if not found and not client.list_stacks(name=stack_name(name)).items:
        found.append("the components are registered, the stack is not")
    return found


def _changed(known: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    return [key for key, value in wanted.items() if known.get(key) != value]


def activate(name: str) -> None:
    """Make the stack active in this session."""
    from zenml.client import Client

    Client().activate_stack(stack_name(name))


def remove(name: str, wanted: list[Component]) -> list[str]:
    """Take the stack and its components out of ZenML; runs and artifacts stay.

    Returns:
        What was done, a line each.
    """
    from zenml.client import Client
    from zenml.enums import StackComponentType

    client = Client()
    done: list[str] = []
    title = stack_name(name)
    for stack in client.list_stacks(name=title).items:
        client.delete_stack(stack.id)
        done.append(f"stack {title} removed")
    for component in wanted:
        found = _found(client, name, component)
        if found is not None:
            client.delete_stack_component(found.id, StackComponentType(component.kind))
            done.append(f"{component.kind} removed")
    return done
