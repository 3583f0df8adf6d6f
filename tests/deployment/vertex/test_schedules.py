import sys
from datetime import UTC, datetime
from enum import StrEnum
from types import SimpleNamespace

import pytest

from deployment.vertex import schedules as module
from deployment.vertex.schedules import Scheduled, Schedules, check_cron
from deployment.vertex.settings import VertexStack
from tamis.config import validate
from tamis.errors import EngineError, UsageError
from tests.deployment.vertex.test_settings import GOOD
from tests.tiny import tiny_task

STACK = validate(VertexStack, GOOD, "mine.yaml")
CRON = "0 3 * * 1"
NEXT = datetime(2025, 5, 5, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    "cron",
    [
        "0 3 * * 1", "*/5 * * * *", "0 0 1,15 * *", "0 8-18/2 * * MON-FRI", "0 0 1 jan *",
        "TZ=Europe/Paris 0 3 * * 1", "CRON_TZ=America/New_York 0 3 * * 1", "TZ=UTC 59 23 31 12 7",
    ],
)  # fmt: skip
def test_what_a_scheduler_reads(cron):
    check_cron(cron)


@pytest.mark.parametrize(
    "cron",
    [
        "", " ", "0 3 * *", "0 3 * * 1 *", "0 3 * * 1 2025", "@daily", "every day at three am",
        "60 3 * * 1", "0 24 * * *", "0 0 32 * *", "0 0 * 13 *", "0 3 * * 8", "0 3 * * 1-",
        "H H * * *", "TZ=Europe/Paris", "TZ=Europe/Paris 0 3 * *", "ZONE=UTC 0 3 * * 1",
    ],
)  # fmt: skip
def test_what_no_scheduler_reads(cron):
    with pytest.raises(UsageError) as caught:
        check_cron(cron)
    told = str(caught.value)
    assert told.startswith(f"--cron: given {cron!r}; allowed: five fields such as '0 3 * * 1'")
    assert "\n" not in told


@pytest.mark.parametrize("cron", ["R R * * *", "0 0 L * *", "0 0 * * 5#2", "0 3 ? * 1"])
def test_what_only_croniter_reads(cron):
    with pytest.raises(UsageError, match="--cron"):
        check_cron(cron)


@pytest.mark.parametrize("cron", ["TZ=Mars/Base 0 3 * * 1", "TZ= 0 3 * * 1"])
def test_a_time_zone_that_there_is_not(cron):
    with pytest.raises(UsageError, match="--cron"):
        check_cron(cron)


@pytest.mark.parametrize(
    ("vertex", "zenml", "agrees"),
    [
        ("ACTIVE", True, True),
        ("PAUSED", False, True),
        ("COMPLETED", False, True),
        ("ACTIVE", False, False),
        ("PAUSED", True, False),
        ("COMPLETED", True, False),
        ("ACTIVE", None, False),
        ("PAUSED", None, False),
        (None, True, False),
        (None, False, False),
    ],
)
def test_whether_both_sides_say_the_same(vertex, zenml, agrees):
    assert Scheduled("s", CRON, vertex, zenml, "", 0).agrees is agrees


class Theirs:
    """A schedule on Vertex AI."""

    def __init__(self, world, name, state="ACTIVE", cron=CRON, runs=0, next_run=NEXT):
        self.world, self.display_name = world, name
        self.state = SimpleNamespace(name=state)
        self.gca_resource = SimpleNamespace(
            cron=cron, next_run_time=next_run, started_run_count=runs
        )

    def pause(self):
        self.world.done.append(f"vertex paused {self.display_name}")
        self.state.name = "PAUSED"

    def resume(self, catch_up):
        assert catch_up is False
        self.world.done.append(f"vertex resumed {self.display_name}")
        self.state.name = "ACTIVE"

    def delete(self):
        self.world.done.append(f"vertex deleted {self.display_name}")
        self.world.theirs.remove(self)


Kind = StrEnum("Kind", {"STORE": "artifact_store", "ORCHESTRATOR": "orchestrator"})


class World:
    """Vertex AI and ZenML, each with its schedules, and what was done to them."""

    def __init__(self):
        self.theirs, self.ours, self.done = [], [], []
        self.PipelineJobSchedule = SimpleNamespace(list=self.list)
        orchestrator = SimpleNamespace(id="orchestrator-1")
        self.active_stack_model = SimpleNamespace(
            components={
                Kind("artifact_store"): [SimpleNamespace(id="store-1")],
                Kind("orchestrator"): [orchestrator],
            }
        )
        self.zen_store = self

    def add(self, name, vertex=None, zenml=None, **more):
        if vertex:
            self.theirs.append(Theirs(self, name, vertex, **more))
        if zenml is not None:
            record = {"id": f"id of {name}", "name": name, "active": zenml}
            self.ours.append(SimpleNamespace(**record, cron_expression="1 1 1 1 1"))

    def list(self, filter=None):
        wanted = [each for each in self.theirs if filter == f'display_name="{each.display_name}"']
        return list(self.theirs) if filter is None else wanted

    def list_schedules(self, orchestrator_id, size):
        assert orchestrator_id == "orchestrator-1"
        return SimpleNamespace(items=self.ours[:size])

    def update_schedule(self, id, update):
        (record,) = [each for each in self.ours if each.id == id]
        record.active = update.active
        self.done.append(f"zenml {'resumed' if update.active else 'paused'} {record.name}")

    def delete_schedule(self, id, soft):
        assert soft is False  # the name would stay taken
        (record,) = [each for each in self.ours if each.id == id]
        self.ours.remove(record)
        self.done.append(f"zenml deleted {record.name}")


@pytest.fixture
def world(monkeypatch):
    """Both sides, in the place of their clients."""
    found = World()
    monkeypatch.setattr(module.google, "begin", lambda stack: found)
    modules = {
        "zenml": SimpleNamespace(),
        "zenml.client": SimpleNamespace(Client=lambda: found),
        "zenml.config": SimpleNamespace(),
        "zenml.config.schedule": SimpleNamespace(Schedule=SimpleNamespace),
        "zenml.models": SimpleNamespace(ScheduleUpdate=SimpleNamespace),
    }
    for name, made in modules.items():
        monkeypatch.setitem(sys.modules, name, made)
    return found


def test_schedules_of_both_sides_by_name(world):
    world.add("weekly", "ACTIVE", True, runs=3)
    world.add("daily", "PAUSED", True, next_run=None)
    world.add("ours-only", zenml=False)
    world.add("theirs-only", "ACTIVE", next_run=datetime.fromtimestamp(0, UTC))
    world.add("over", "COMPLETED")
    assert Schedules(STACK).all() == [
        Scheduled("daily", CRON, "PAUSED", True, "", 0),
        Scheduled("ours-only", "1 1 1 1 1", None, False, "", 0),
        Scheduled("theirs-only", CRON, "ACTIVE", None, "", 0),
        Scheduled("weekly", CRON, "ACTIVE", True, "2025-05-05 03:00 UTC", 3),
    ]


@pytest.mark.parametrize(
    ("vertex", "zenml", "verb", "done"),
    [
        ("ACTIVE", True, "pause", ["vertex paused s", "zenml paused s"]),
        ("PAUSED", False, "resume", ["vertex resumed s", "zenml resumed s"]),
        ("ACTIVE", True, "delete", ["vertex deleted s", "zenml deleted s"]),
        ("PAUSED", True, "pause", ["zenml paused s"]),
        ("ACTIVE", False, "resume", ["zenml resumed s"]),
        ("ACTIVE", None, "pause", ["vertex paused s"]),
        (None, True, "pause", ["zenml paused s"]),
        ("ACTIVE", None, "delete", ["vertex deleted s"]),
        (None, False, "delete", ["zenml deleted s"]),
    ],
)
def test_a_change_reaches_both_sides(world, vertex, zenml, verb, done):
    world.add("s", vertex, zenml)
    world.add("another", "ACTIVE", False)
    schedules = Schedules(STACK)
    getattr(schedules, verb)("s")
    assert world.done == done
    left = {each.name: each for each in schedules.all()}
    assert left.pop("another") == Scheduled(
        "another", CRON, "ACTIVE", False, "2025-05-05 03:00 UTC", 0
    )
    if verb == "delete":
        assert not left
    elif vertex and zenml is not None:
        assert left["s"].agrees


def test_all_schedules_of_one_name_follow(world):
    world.add("s", "ACTIVE", True)
    world.add("s", "ACTIVE")
    Schedules(STACK).delete("s")
    assert world.done == ["vertex deleted s", "vertex deleted s", "zenml deleted s"]


@pytest.mark.parametrize("verb", ["pause", "resume", "delete"])
@pytest.mark.parametrize(("known", "told"), [((), "there is none"), (("b", "a"), "a, b")])
def test_a_schedule_that_there_is_not(world, verb, known, told):
    for name in known:
        world.add(name, "ACTIVE", True)
    with pytest.raises(UsageError) as caught:
        getattr(Schedules(STACK), verb)("s")
    assert str(caught.value) == f"schedule: given 's'; allowed: {told}"
    assert not world.done


class Pipeline:
    """A pipeline that is only asked for its options, and may be refused."""

    name = "tamis_training"

    def __init__(self, world, refusal=None):
        self.world, self.refusal, self.options, self.given = world, refusal, None, None

    def with_options(self, **options):
        self.options = options
        return self

    def __call__(self, **given):
        self.given = given
        schedule = self.options["schedule"]
        self.world.add(schedule.name, None if self.refusal else "ACTIVE", True)
        if self.refusal:
            raise self.refusal


@pytest.fixture
def shared_task(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "steps_of", lambda pipeline, parameters: ["ingest", "train"])
    options = lambda stack, steps, labels: {"steps": steps, "settings": labels}  # noqa: E731
    monkeypatch.setattr(module, "pipeline_options", options)
    return tiny_task(tmp_path)


def test_a_schedule_is_made_that_caches_nothing(world, shared_task):
    pipeline = Pipeline(world)
    given = {"task": shared_task, "home": "/tmp/tamis"}
    Schedules(STACK).create("Weekly Training", "TZ=Europe/Paris 0 3 * * 1", pipeline, given)
    assert pipeline.given == given
    schedule = pipeline.options.pop("schedule")
    assert vars(schedule) == {
        "name": "Weekly Training", "cron_expression": "TZ=Europe/Paris 0 3 * * 1",
    }  # fmt: skip
    assert pipeline.options == {
        "run_name": "weekly-training-{date}-{time}",
        "enable_cache": False,
        "tags": ["toy"],
        "steps": ["ingest", "train"],
        "settings": {
            "team": "data", "task": "toy", "pipeline": "tamis_training", "run": "weekly-training",
        },
    }  # fmt: skip
    assert not world.done


@pytest.mark.parametrize(("vertex", "zenml"), [("ACTIVE", True), ("PAUSED", None), (None, False)])
def test_a_name_that_is_taken_on_either_side(world, shared_task, vertex, zenml):
    world.add("weekly", vertex, zenml)
    pipeline = Pipeline(world)
    with pytest.raises(UsageError, match="--name: given 'weekly'; allowed: a name that no"):
        Schedules(STACK).create("weekly", CRON, pipeline, {"task": shared_task})
    assert pipeline.options is None


def test_what_cannot_be_scheduled_is_refused_first(world, shared_task, tmp_path):
    local = tiny_task(tmp_path, sources=[{"kind": "files", "path": "a.csv"}])
    pipeline = Pipeline(world)
    with pytest.raises(UsageError, match="sources.0.path: given 'a.csv', which lies on this"):
        Schedules(STACK).create("weekly", CRON, pipeline, {"task": local})
    with pytest.raises(UsageError, match="--cron"):
        Schedules(STACK).create("weekly", "daily", pipeline, {"task": shared_task})
    assert pipeline.options is None and not world.ours


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("quota exceeded\nfor schedules"), "quota exceeded"),
        (ValueError(), "ValueError"),
    ],
)
def test_a_schedule_that_vertex_refuses_leaves_no_record(world, shared_task, error, told):
    world.add("another", "ACTIVE", True)
    with pytest.raises(EngineError) as caught:
        Schedules(STACK).create("weekly", CRON, Pipeline(world, error), {"task": shared_task})
    assert str(caught.value) == f"schedule weekly was not made: {told}"
    assert caught.value.__cause__ is error
    assert [each.name for each in world.ours] == ["another"]
    assert world.done == ["zenml deleted weekly"]
