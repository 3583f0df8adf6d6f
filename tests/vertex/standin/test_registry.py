"""The models and endpoints of the stand-in, asked for by the real client."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.vertex.standin.trial import PARENT, StandIn, logged_in


@pytest.fixture(scope="module")
def standin(tmp_path_factory):
    found = StandIn(tmp_path_factory.mktemp("standin"))
    yield found
    found.end()


@pytest.fixture(scope="module")
def aiplatform(standin, tmp_path_factory):
    with logged_in(standin, tmp_path_factory.mktemp("account")) as client:
        yield client


@pytest.fixture
def serving():
    """Starts HTTP servers that answer predictions with a word of their own."""
    servers = []

    def start(word):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                found = [[word, self.path, instance] for instance in body["instances"]]
                content = json.dumps({"predictions": found}).encode()
                self.send_response(200 if word != "broken" else 422)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def upload(aiplatform, **more):
    return aiplatform.Model.upload(
        display_name="quality",
        serving_container_image_uri="demo/serving:1",
        serving_container_predict_route="/predict",
        serving_container_health_route="/healthz",
        serving_container_ports=[8080],
        serving_container_environment_variables={"MODE": "serve"},
        **more,
    )


def test_models_have_versions_and_aliases(aiplatform):
    from google.api_core import exceptions

    first = upload(
        aiplatform,
        artifact_uri="gs://demo/model/1",
        version_aliases=["champion"],
        version_description="first",
        labels={"mlflow": "1"},
    )
    assert (first.version_id, sorted(first.version_aliases)) == ("1", ["champion", "default"])
    assert first.resource_name.startswith(f"{PARENT}/models/")
    assert first.uri == "gs://demo/model/1"
    second = upload(
        aiplatform,
        parent_model=first.resource_name,
        is_default_version=False,
        version_aliases=["challenger"],
        labels={"mlflow": "2"},
    )
    assert (second.version_id, list(second.version_aliases)) == ("2", ["challenger"])
    assert second.resource_name == first.resource_name
    assert aiplatform.Model(first.resource_name).version_id == "1"
    assert aiplatform.Model(f"{first.resource_name}@challenger").version_id == "2"
    registry = first.versioning_registry
    assert {v.version_id: v.version_description for v in registry.list_versions()} == {
        "1": "first",
        "2": "",
    }
    second.versioning_registry.add_version_aliases(["champion", "default"], "2")
    assert registry.get_version_info("1").version_aliases == []
    moved = aiplatform.Model(f"{first.resource_name}@champion")
    assert (moved.version_id, moved.labels) == ("2", {"mlflow": "2"})
    registry.remove_version_aliases(["challenger"], "2")
    assert sorted(registry.get_version_info("2").version_aliases) == ["champion", "default"]
    found = aiplatform.Model.list(filter="labels.mlflow=2")
    assert [model.version_id for model in found] == ["2"]
    assert aiplatform.Model.list(filter="labels.mlflow=1") == []
    moved.update(labels={"mlflow": "3"})
    assert aiplatform.Model(f"{first.resource_name}@2").labels == {"mlflow": "3"}
    with pytest.raises(exceptions.NotFound):
        aiplatform.Model(f"{first.resource_name}@unheard-of")
    with pytest.raises(exceptions.BadRequest, match="default version"):
        registry.delete_version("2")
    registry.delete_version("1")
    assert [v.version_id for v in registry.list_versions()] == ["2"]
    third = upload(aiplatform, parent_model=first.resource_name)
    assert (third.version_id, list(third.version_aliases)) == ("3", ["default"])
    third.delete()
    with pytest.raises(exceptions.NotFound):
        aiplatform.Model(first.resource_name)


def test_an_endpoint_splits_its_traffic(standin, aiplatform, serving):
    from google.api_core import exceptions

    old = upload(aiplatform, version_aliases=["champion"])
    new = upload(aiplatform, parent_model=old.resource_name, is_default_version=False)
    endpoint = aiplatform.Endpoint.create(display_name="quality", labels={"team": "demo"})
    machine = {"machine_type": "n1-standard-4", "min_replica_count": 1, "max_replica_count": 2}
    with pytest.raises(exceptions.BadRequest, match="no deployed model"):
        endpoint.predict(instances=[1])
    endpoint.deploy(old, deployed_model_display_name="champion", **machine)
    champion = endpoint.list_models()[0].id
    assert endpoint.traffic_split == {champion: 100}
    with pytest.raises(exceptions.ServiceUnavailable, match="No serving process"):
        endpoint.predict(instances=[1])
    for version, word in (("1", "old"), ("2", "new")):
        model = f"{old.resource_name}@{version}"
        answer = standin.http.post("/standin/serving", json={"model": model, "url": serving(word)})
        assert answer.status_code == 200
    found = endpoint.predict(instances=["a", "b"], parameters={"threshold": 1})
    assert found.predictions == [["old", "/predict", "a"], ["old", "/predict", "b"]]
    assert (found.deployed_model_id, found.model_version_id) == (champion, "1")
    assert found.model_resource_name == old.resource_name

    endpoint.deploy(new, deployed_model_display_name="canary", traffic_percentage=30, **machine)
    canary = next(model.id for model in endpoint.list_models() if model.id != champion)
    assert endpoint.traffic_split == {champion: 70, canary: 30}
    resources = endpoint.gca_resource.deployed_models[0].dedicated_resources
    assert resources.machine_spec.machine_type == "n1-standard-4"
    words = [endpoint.predict(instances=[1]).predictions[0][0] for _ in range(40)]
    assert 2 < words.count("new") < 28
    with pytest.raises(exceptions.BadRequest, match="sum to 100"):
        endpoint.update(traffic_split={champion: 70, canary: 20})
    with pytest.raises(exceptions.BadRequest, match="not deployed"):
        endpoint.update(traffic_split={champion: 70, "1": 30})
    body = {"deployedModelId": canary}
    where = f"/v1/{endpoint.resource_name}:undeployModel"
    refused = standin.http.post(where, json=body)
    assert refused.json()["error"]["status"] == "FAILED_PRECONDITION"
    endpoint.update(traffic_split={champion: 0, canary: 100})
    assert endpoint.predict(instances=[1]).predictions[0][0] == "new"
    with pytest.raises(exceptions.BadRequest, match="deployed"):
        old.delete()
    endpoint.undeploy(champion)
    assert endpoint.traffic_split == {canary: 100}
    found = aiplatform.Endpoint.list(filter='display_name="quality" AND labels.team="demo"')
    assert [other.resource_name for other in found] == [endpoint.resource_name]
    url = serving("broken")
    standin.http.post("/standin/serving", json={"model": f"{old.resource_name}@2", "url": url})
    with pytest.raises(exceptions.GoogleAPICallError, match="422"):
        endpoint.predict(instances=[1])
    with pytest.raises(exceptions.BadRequest, match="has deployed models"):
        endpoint.delete()
    endpoint.delete(force=True)
    assert aiplatform.Endpoint.list(filter='display_name="quality"') == []
    old.delete()
