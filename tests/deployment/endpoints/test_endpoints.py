"""Traffic of endpoints, by the real clients against the stand-in on loopback."""

from collections import Counter

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployment.vertex.endpoints import Endpoints, endpoint_id, split
from tamis.errors import EngineError, UsageError
from tests.deployment.endpoints.endpoint_stubs import SERVING, answering, changes, shares, upload


class TestDeploy:
    def test_a_canary_then_all(self, endpoints, task, api):
        upload(endpoints, task, "1", "2", "3")
        assert endpoints.state(task).endpoint is None
        first = endpoints.deploy(task, "1", 10)  # nothing else could take the rest
        assert shares(first) == {"1": 100}
        assert first.agrees
        canary = endpoints.deploy(task, "2", 10, keep="1")
        assert shares(canary) == {"1": 90, "2": 10}
        assert not canary.agrees
        assert api.get(f"/models/{task}").json()["labels"]["mlflow_version"] == "1"
        assert str(canary) == "version 1: 90%, version 2: 10%"
        full = endpoints.deploy(task, "2", 100, keep="1")
        assert shares(full) == {"2": 100, "1": 0}
        assert full.agrees
        assert shares(endpoints.deploy(task, "3", 10, keep="2")) == {"2": 90, "3": 10, "1": 0}
        assert shares(endpoints.deploy(task, "3", 100, keep="2")) == {"3": 100, "2": 0}
        found = api.get(f"/endpoints/{endpoint_id(task)}").json()
        assert (found["displayName"], found["labels"]) == (task, {"team": "demo", "task": task})
        resources = found["deployedModels"][0]["dedicatedResources"]
        assert resources["machineSpec"] == {"machineType": "n2-standard-4"}
        assert (resources["minReplicaCount"], resources["maxReplicaCount"]) == (1, 3)
        default = api.get(f"/models/{task}").json()
        assert default["labels"]["mlflow_version"] == "3"

    def test_the_rest_goes_by_what_each_had(self, endpoints, task):
        upload(endpoints, task, "1", "2", "3")
        endpoints.deploy(task, "1", 100)
        endpoints.deploy(task, "2", 10)
        assert shares(endpoints.deploy(task, "3", 50)) == {"3": 50, "1": 45, "2": 5}

    def test_again_changes_nothing(self, endpoints, task, api):
        upload(endpoints, task, "1", "2")
        endpoints.deploy(task, "1", 100)
        full = endpoints.deploy(task, "2", 100, keep="1")
        before = len(changes(api))
        upload(endpoints, task, "2")
        assert endpoints.deploy(task, "2", 100, keep="1") == full
        assert len(changes(api)) == before

    @pytest.mark.parametrize("step", range(4))
    def test_a_call_killed_anywhere_is_finished_by_the_next(
        self, endpoints, task, monkeypatch, step
    ):
        upload(endpoints, task, "1", "2", "3")
        endpoints.deploy(task, "1", 100)
        endpoints.deploy(task, "2", 100, keep="1")
        done = 0

        def killing(name, owner):
            real = getattr(owner, name)

            def call(*rest, **more):
                nonlocal done
                answer = real(*rest, **more)
                if done == step:
                    raise KeyboardInterrupt
                done += 1
                return answer

            return call

        with monkeypatch.context() as patch:
            for name in ("deploy_model", "update_endpoint", "undeploy_model"):
                patch.setattr(endpoints._client, name, killing(name, endpoints._client))
            models = endpoints._models._client
            patch.setattr(models, "merge_version_aliases", killing("merge_version_aliases", models))
            with pytest.raises(KeyboardInterrupt):
                endpoints.deploy(task, "3", 100, keep="2")
        now = endpoints.state(task, "3")
        assert sum(each.share for each in now.models) == 100  # at no moment nobody serves
        assert now.share_of("3") == (0 if step == 0 else 100)
        assert shares(endpoints.deploy(task, "3", 100, keep="2")) == {"3": 100, "2": 0}
        assert endpoints._models.find(task, "3").version_aliases == ["mlflow-3", "default"]

    def test_a_version_is_deployed_once_though_the_list_does_not_show_it_yet(
        self, endpoints, task, monkeypatch
    ):
        upload(endpoints, task, "1", "2")
        endpoints.deploy(task, "1", 100)
        old = endpoints.state(task)
        endpoints.deploy(task, "2", 10)
        monkeypatch.setattr(endpoints, "state", lambda *_: old)
        with pytest.raises(EngineError, match=f"endpoint of {task} is being changed by another"):
            endpoints.deploy(task, "2", 10)

    def test_models_of_others_on_the_endpoint_stay(self, endpoints, task, api):
        upload(endpoints, task, "1")
        other = f"{task}_other"
        api.post("/models:upload", json={"modelId": other, "model": {"displayName": "other"}})
        endpoints.deploy(task, "1", 100)
        parent = "projects/123456789012/locations/us-central1"
        body = {
            "deployedModel": {
                "id": "77",
                "model": f"{parent}/models/{other}",
                "automaticResources": {},
            },
            "trafficSplit": {"0": 30, "1": 70},
        }
        where = f"/endpoints/{endpoint_id(task)}"
        assert api.post(f"{where}:deployModel", json=body).status_code == 200
        assert str(endpoints.state(task)) == f"version 1: 70%, {other}@1: 30%"
        assert shares(endpoints.deploy(task, "1", 100, keep="9")) == {"1": 100, None: 0}

    def test_a_version_has_to_be_uploaded(self, endpoints, task):
        with pytest.raises(UsageError, match=f"{task}: version 4 is not in Vertex Model Registry"):
            endpoints.deploy(task, "4", 100)
        with pytest.raises(UsageError, match="allowed: 1 to 100"):
            endpoints.deploy(task, "4", 0)

    def test_predictions_go_where_the_split_says(self, endpoints, task, api, running):
        from google.cloud.aiplatform_v1 import PredictionServiceClient

        upload(endpoints, task, "1", "2")
        endpoints.deploy(task, "1", 100)
        parent = "projects/123456789012/locations/us-central1"
        client = PredictionServiceClient(
            transport="rest", client_options={"api_endpoint": running.vertex_url}
        )

        def asked(times):
            found = [
                client.predict(endpoint=endpoints.name(task), instances=["a"]).predictions[0]
                for _ in range(times)
            ]
            return Counter(found)

        with answering("old") as old, answering("new") as new:
            for number, url in (("1", old), ("2", new)):
                body = {"model": f"{parent}/models/{task}@{number}", "url": url}
                at = f"{running.vertex_url}/standin/serving"
                assert httpx.post(at, json=body, trust_env=False).status_code == 200
            assert asked(5) == {"old /predict": 5}
            endpoints.deploy(task, "2", 30, keep="1")
            assert 2 < asked(60)["new /predict"] < 40
            endpoints.deploy(task, "2", 100, keep="1")
            assert asked(5) == {"new /predict": 5}
            endpoints.rollback(task, "1")
            assert asked(5) == {"old /predict": 5}


class TestRollback:
    def test_traffic_goes_back_and_nothing_is_taken_off(self, endpoints, task, api):
        upload(endpoints, task, "1", "2")
        endpoints.deploy(task, "1", 100)
        endpoints.deploy(task, "2", 100, keep="1")
        before = len(changes(api))
        back = endpoints.rollback(task, "1")
        assert shares(back) == {"1": 100, "2": 0}
        assert back.agrees
        assert api.get(f"/models/{task}").json()["labels"]["mlflow_version"] == "1"
        # One change of the split, and of the default version: no deployment, which takes minutes.
        assert len(changes(api)) == before + 2
        assert endpoints.rollback(task, "1") == back
        assert len(changes(api)) == before + 2

    def test_from_a_canary(self, endpoints, task):
        upload(endpoints, task, "1", "2")
        endpoints.deploy(task, "1", 100)
        endpoints.deploy(task, "2", 10, keep="1")
        assert shares(endpoints.rollback(task, "1")) == {"1": 100, "2": 0}

    def test_to_a_version_that_is_not_there_any_more(self, endpoints, task):
        upload(endpoints, task, "1", "2")
        endpoints.deploy(task, "2", 100)
        assert shares(endpoints.rollback(task, "1")) == {"1": 100, "2": 0}

    def test_to_the_container_that_served_it(self, endpoints, stacks, task):
        upload(endpoints, task, "1", "2")
        endpoints.deploy(task, "1", 100)
        endpoints.deploy(task, "2", 100, keep="1")
        other = Endpoints(stacks(more=SERVING.replace("serving:1", "serving:2")))
        upload(other, task, "1")
        (serving,) = [each for each in other.rollback(task, "1").models if each.share]
        assert (serving.version, serving.vertex_version) == ("1", "1")

    def test_not_to_other_files_under_the_same_number(self, endpoints, task):
        upload(endpoints, task, "1", "2")
        endpoints.deploy(task, "1", 100)
        endpoints.deploy(task, "2", 100, keep="1")
        endpoints.upload(task, "1", "gs://tamis-test/models/else", {"digest": "f" * 64})
        (serving,) = [each for each in endpoints.rollback(task, "1").models if each.share]
        assert serving.digest == "f" * 63


shares_of = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 100))


@given(shares_of, st.sampled_from("abcdef"), st.integers(1, 100))
def test_a_split_is_whole_and_in_proportion(now, chosen, percent):
    then = split(now, chosen, percent)
    assert sum(then.values()) == 100
    assert set(then) == {*now, chosen}
    others = {key: value for key, value in now.items() if key != chosen}
    total = sum(others.values())
    assert then[chosen] == (percent if total else 100)
    for key, value in others.items():
        exact = value * (100 - percent) / total if total else 0
        assert abs(then[key] - exact) < 1
        assert value or not then[key]


@given(st.from_regex(r"[a-z][a-z0-9_]{1,62}", fullmatch=True))
def test_ids_of_endpoints_are_what_vertex_takes(task):
    found = endpoint_id(task)
    assert len(found) <= 63
    assert found[0].isalpha()
    assert found[-1].isalnum()
    assert all(each.isalnum() or each == "-" for each in found)
