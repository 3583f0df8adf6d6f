import json
import sys
from types import SimpleNamespace

import pytest

from deployment import components
from deployment.components import Component, of_local, of_vertex, problems, register, remove
from deployment.stacks import LocalStack
from deployment.vertex.settings import VertexStack
from tamis.config import validate
from tamis.errors import StackError
from tests.deployment.vertex.test_settings import GOOD

KINDS = (
    "orchestrator", "artifact_store", "container_registry", "image_builder", "experiment_tracker",
    "model_registry",
)  # fmt: skip
NETWORK = "projects/123/global/networks/my-vpc"


def stack_with(**more):
    return validate(VertexStack, GOOD | more, "mine.yaml")


def settings_of(stack):
    return {each.kind: each.settings for each in of_vertex(stack)}


def set_in(settings):
    return {key: value for key, value in settings.items() if value is not None}


def test_components_of_a_stack_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.delenv("TAMIS_HOME")
    stack = LocalStack(kind="local", home=str(tmp_path))
    found = {each.kind: each for each in of_local(stack)}
    assert found["orchestrator"].flavor == found["artifact_store"].flavor == "local"
    assert found["artifact_store"].settings == {"path": str(tmp_path / "artifacts")}
    assert found["experiment_tracker"].settings == {"tracking_uri": stack.tracking_uri}
    assert set(found) == {"orchestrator", "artifact_store", "experiment_tracker", "model_registry"}


def test_components_of_a_stack_on_vertex_ai():
    found = {each.kind: each for each in of_vertex(stack_with(network=NETWORK))}
    assert tuple(found) == KINDS
    assert found["orchestrator"].flavor == "vertex"
    assert found["orchestrator"].settings == {
        "project": "my-project-1",
        "location": "us-central1",
        "workload_service_account": GOOD["service_account"],
        "network": NETWORK,
    }
    for kind, settings in (
        ("artifact_store", {"path": "gs://my-tamis"}),
        ("container_registry", {"uri": GOOD["registry"]}),
        ("image_builder", {"project": "my-project-1"}),
    ):
        assert (found[kind].flavor, found[kind].settings) == ("gcp", settings)
    assert found["experiment_tracker"].flavor == found["model_registry"].flavor == "mlflow"


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        (
            "basic",
            {
                "tracking_username": "{{tamis_mlflow.username}}",
                "tracking_password": "{{tamis_mlflow.password}}",
            },
        ),
        ("token", {"tracking_token": "{{tamis_mlflow.token}}"}),
    ],
)
def test_credentials_are_references_to_a_secret(auth, expected):
    stack = stack_with(mlflow=GOOD["mlflow"] | {"auth": auth})
    given = set_in(settings_of(stack)["experiment_tracker"])
    assert given == {"tracking_uri": GOOD["mlflow"]["tracking_uri"]} | expected


class Server:
    """ZenML's records of stacks and components; what is changed is merged as ZenML does it."""

    def __init__(self):
        self.components, self.stacks, self.changes = {}, {}, []

    def list_stack_components(self, name, type):
        found = self.components.get((type, name))
        return SimpleNamespace(items=[found] if found else [])

    def create_stack_component(self, name, flavor, type, configuration):
        assert (type, name) not in self.components and None not in configuration.values()
        self.components[type, name] = SimpleNamespace(
            id=f"id of {type} {name}", flavor_name=flavor, configuration=json_copy(configuration)
        )
        self.changes.append(f"made {type}")

    def update_stack_component(self, id, type, configuration):
        (found,) = [each for each in self.components.values() if each.id == id]
        found.configuration = set_in(found.configuration | configuration)
        self.changes.append(f"changed {type}")

    def delete_stack_component(self, id, type):
        (key,) = [key for key, each in self.components.items() if each.id == id]
        used = [(type, parts.get(type)) for parts in self.stacks.values()]
        assert key not in used  # ZenML refuses it otherwise
        del self.components[key]

    def list_stacks(self, name):
        found = [SimpleNamespace(id=name)] if name in self.stacks else []
        return SimpleNamespace(items=found)

    def create_stack(self, name, components):
        assert all((kind, title) in self.components for kind, title in components.items())
        self.stacks[name] = components

    def delete_stack(self, id):
        del self.stacks[id]

    def activate_stack(self, name):
        self.changes.append(f"activated {name}")


def json_copy(value):
    return json.loads(json.dumps(value))


@pytest.fixture
def server(monkeypatch):
    found = Server()
    monkeypatch.setitem(sys.modules, "zenml", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "zenml.client", SimpleNamespace(Client=lambda: found))
    enums = SimpleNamespace(StackComponentType=lambda kind: kind)
    monkeypatch.setitem(sys.modules, "zenml.enums", enums)
    return found


WANTED = of_vertex(stack_with())
ALL_MADE = [f"{each.kind} made ({each.flavor})" for each in WANTED]


def test_a_stack_is_registered_once(server):
    assert problems("mine", WANTED) == [f"{kind}: not registered" for kind in KINDS]
    assert not server.components  # looking changes nothing
    assert register("mine", WANTED) == [*ALL_MADE, "stack tamis-mine made"]
    assert server.stacks == {"tamis-mine": dict.fromkeys(KINDS, "tamis-mine")}
    assert problems("mine", WANTED) == []
    server.changes.clear()
    assert register("mine", WANTED) == [] and not server.changes
    components.activate("mine")
    assert server.changes == ["activated tamis-mine"]


def test_what_is_registered_otherwise_is_named_and_mended(server):
    register("mine", WANTED)
    wanted = of_vertex(stack_with(region="europe-west4", bucket="gs://another"))
    assert problems("mine", wanted) == [
        "orchestrator: registered with another location",
        "artifact_store: registered with another path",
    ]
    assert register("mine", wanted) == [
        "orchestrator changed (location)", "artifact_store changed (path)",
    ]  # fmt: skip
    assert server.changes[-2:] == ["changed orchestrator", "changed artifact_store"]
    assert problems("mine", wanted) == []
    assert register("mine", wanted) == []


def test_what_was_taken_out_of_the_file_is_taken_out_of_zenml(server):
    token = GOOD["mlflow"] | {"auth": "token"}
    register("mine", of_vertex(stack_with(network=NETWORK, mlflow=token)))
    assert problems("mine", WANTED)[0] == "orchestrator: registered with another network"
    register("mine", WANTED)
    assert problems("mine", WANTED) == []
    for each in WANTED:
        known = server.components[each.kind, "tamis-mine"].configuration
        assert known == set_in(each.settings)


def test_a_half_made_stack_is_named_and_finished(server):
    register("mine", WANTED)
    del server.stacks["tamis-mine"]
    assert problems("mine", WANTED) == ["the components are registered, the stack is not"]
    del server.components["image_builder", "tamis-mine"]
    assert problems("mine", WANTED) == ["image_builder: not registered"]
    assert register("mine", WANTED) == ["image_builder made (gcp)", "stack tamis-mine made"]


def test_a_component_of_another_flavour_is_not_taken_for_ours(server):
    server.create_stack_component("tamis-mine", "kubernetes", "orchestrator", {})
    assert problems("mine", WANTED[:1]) == ["orchestrator: registered as kubernetes"]
    with pytest.raises(StackError) as caught:
        register("mine", WANTED)
    assert "tamis-mine is of flavour kubernetes, not vertex; `zenml orchestrator" in str(
        caught.value
    )


def test_a_stack_is_taken_out_and_another_is_left(server):
    register("other", [Component("orchestrator", "local", {})])
    register("mine", WANTED)
    done = remove("mine", WANTED)
    assert done == ["stack tamis-mine removed", *(f"{kind} removed" for kind in KINDS)]
    assert list(server.components) == [("orchestrator", "tamis-other")]
    assert list(server.stacks) == ["tamis-other"]
    assert remove("mine", WANTED) == []


def test_half_of_a_stack_is_taken_out_too(server):
    register("mine", WANTED)
    server.stacks.clear()
    del server.components["orchestrator", "tamis-mine"]
    assert remove("mine", WANTED) == [f"{kind} removed" for kind in KINDS[1:]]
