from datetime import UTC, datetime, timedelta

import pytest

from deployment.vertex.cost import Cost, Use, describe, of_job, price_of, summed
from deployment.vertex.jobs import JobState, TaskState
from deployment.vertex.settings import Gpu, Machine, VertexStack
from tamis.config import validate
from tamis.errors import ConfigError
from tamis.scoring.prices import PRICES, Prices, VertexPrices, load_prices
from tests.deployment.vertex.test_settings import GOOD

BEGAN = datetime(2025, 5, 1, 12, tzinfo=UTC)
T4, L4 = Gpu(type="NVIDIA_TESLA_T4"), Gpu(type="NVIDIA_L4")
TABLE = Prices.model_validate(
    {
        "currency": "EUR",
        "machines": {
            "small-4": {"cores": 4, "hour": 0.5},
            "dear-8": {"cores": 8, "hour": 2.0},
            "cheap-8": {"cores": 8, "hour": 1.0},
            "g2-standard-8": {"cores": 8, "hour": 4.0, "accelerated": True},
            "g2-standard-24": {"cores": 24, "hour": 5.0, "accelerated": True},
            "wide-32": {"cores": 32, "hour": 7.0},
        },
        "accelerators": {"NVIDIA_TESLA_T4": 0.3},
        "vertex": {"surcharge": 0.1, "spot": 0.4, "run": 0.03},
    }
)
FREE = TABLE.model_copy(update={"vertex": VertexPrices()})


def machine(name, **more):
    return Machine(machine_type=name, **more)


def picked(cpu, **more):
    return Machine(cpu=cpu, memory="16GiB", **more)


def stack_of(machines, steps):
    """A stack of which only the machines matter."""
    known = {name: made.model_dump() for name, made in machines.items()}
    return validate(VertexStack, GOOD | {"machines": known, "steps": steps}, "mine.yaml")


def task(step, hours, state="SUCCEEDED"):
    ended = BEGAN + timedelta(hours=hours)
    return TaskState(step, state, BEGAN, ended, "")


def job(*tasks):
    return JobState("job-1", "SUCCEEDED", tasks, "", {}, "https://console")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (machine("cheap-8"), 1.0),
        (machine("small-4"), 0.5),
        (machine("cheap-8", gpu=T4), 1.3),
        (machine("cheap-8", gpu=Gpu(type="NVIDIA_TESLA_T4", count=4)), 2.2),
        (machine("g2-standard-8", gpu=L4), 4.0),
        (machine("n9-standard-8"), None),
        (machine("cheap-8", gpu=L4), None),
        (picked(0.5), 0.5),
        (picked(4), 0.5),
        (picked(4.5), 1.0),
        (picked(8), 1.0),
        (picked(9), 7.0),
        (picked(9, gpu=T4), 7.3),
        (picked(33), None),
        (picked(2, gpu=T4), 0.8),
        (picked(2, gpu=L4), None),
    ],
)
def test_an_hour_of_a_machine(made, expected):
    for hours in (1, 0.25):
        price = price_of(made, hours, FREE)
        assert price == (None if expected is None else pytest.approx(expected * hours))


def test_a_spot_machine_and_the_surcharge_of_vertex():
    assert price_of(machine("cheap-8"), 2, TABLE) == pytest.approx(2 * 1.0 * 1.1)
    spot = machine("cheap-8", gpu=T4, spot=True)
    assert price_of(spot, 2, TABLE) == pytest.approx(2 * (1.0 + 0.3) * 0.4 * 1.1)
    assert price_of(machine("g2-standard-8", gpu=L4, spot=True), 1, TABLE) == pytest.approx(
        4.0 * 0.4 * 1.1
    )


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (machine("n2-standard-8"), "n2-standard-8"),
        (machine("g2-standard-8", gpu=L4), "g2-standard-8 with NVIDIA_L4"),
        (
            machine("n1-standard-8", gpu=Gpu(type="NVIDIA_TESLA_T4", count=2), spot=True),
            "n1-standard-8 with 2 NVIDIA_TESLA_T4, spot",
        ),
        (picked(4), "4 cores and 16GiB"),
        (picked(0.5, gpu=T4), "0.5 cores and 16GiB with NVIDIA_TESLA_T4"),
    ],
)
def test_a_machine_in_words(made, told):
    assert describe(made) == told


def test_the_hours_of_a_job_by_the_machines_of_its_steps():
    stack = stack_of(
        {"cpu": picked(4), "gpu": machine("g2-standard-8", gpu=L4, spot=True)},
        {"default": "cpu", "train": "gpu", "evaluate": "gpu"},
    )
    done = job(task("ingest", 0.5), task("train", 2), task("evaluate", 1), task("gate", 0.25))
    cost = of_job(stack, done, TABLE)
    gpu, cpu = sorted(cost.uses, key=lambda use: -use.hours)
    assert (gpu.machine, gpu.hours) == ("g2-standard-8 with NVIDIA_L4, spot", 3.0)
    assert (cpu.machine, cpu.hours) == ("4 cores and 16GiB", 0.75)
    assert gpu.price == pytest.approx(3 * 4.0 * 0.4 * 1.1)
    assert cpu.price == pytest.approx(0.75 * 0.5 * 1.1)
    assert (cost.fee, cost.currency) == (0.03, "EUR")
    assert cost.total == pytest.approx(0.03 + gpu.price + cpu.price)
    assert str(cost) == (
        "0.750 h of 4 cores and 16GiB, 3.000 h of g2-standard-8 with NVIDIA_L4, spot: "
        f"about {cost.total:.2f} EUR"
    )


def test_machines_of_two_names_that_are_the_same_are_one():
    stack = stack_of({"a": picked(4), "b": picked(4)}, {"default": "a", "train": "b"})
    (use,) = of_job(stack, job(task("ingest", 1), task("train", 2)), TABLE).uses
    assert use.hours == 3.0


def test_a_job_whose_steps_have_not_begun_costs_its_fee():
    stack = stack_of({"cpu": picked(4)}, {"default": "cpu"})
    waiting = TaskState("ingest", "PENDING", None, None, "")
    cost = of_job(stack, job(waiting), TABLE)
    assert cost.uses == () and cost.total == 0.03
    assert str(cost) == "no machine was used; about 0.03 EUR"
    assert summed([cost]) == {"EUR": 0.03}


def test_a_step_that_goes_on_counts_until_now_and_a_clock_that_is_wrong_does_not_count():
    stack = stack_of({"cpu": picked(4)}, {"default": "cpu"})
    began = datetime.now(UTC) - timedelta(hours=2)
    cost = of_job(stack, job(TaskState("ingest", "RUNNING", began, None, "")), TABLE)
    assert cost.uses[0].hours == pytest.approx(2, abs=0.01)
    ahead = datetime.now(UTC) + timedelta(hours=2)
    assert of_job(stack, job(TaskState("ingest", "RUNNING", ahead, None, "")), TABLE).uses == ()


def test_a_machine_that_the_table_does_not_know_is_named():
    stack = stack_of(
        {"cpu": picked(4), "huge": machine("n9-highmem-96")}, {"default": "cpu", "train": "huge"}
    )
    cost = of_job(stack, job(task("ingest", 1), task("train", 10)), TABLE)
    assert cost.total == pytest.approx(0.03 + 0.5 * 1.1)
    assert str(cost) == (
        "1.000 h of 4 cores and 16GiB, 10.000 h of n9-highmem-96: about 0.58 EUR, "
        "without n9-highmem-96 (not in configs/prices.yaml)"
    )


def test_jobs_of_one_run_are_summed():
    first = Cost((Use("a", 1.0, 2.0), Use("b", 0.5, None)), 0.03, "EUR")
    second = Cost((Use("a", 0.25, 0.5),), 0.03, "EUR")
    found = summed([first, second])
    assert found == {"hours, a": 1.25, "hours, b": 0.5, "EUR": pytest.approx(2.56)}
    assert summed([]) == {}


def test_the_table_that_comes_with_it_is_read_and_knows_the_machines_of_the_stack_file():
    table = load_prices()
    assert table.currency == "USD"
    assert 0 < table.vertex.spot < 1 and table.vertex.surcharge > 0 and table.vertex.run > 0
    assert table.machines["g2-standard-8"].accelerated
    assert not table.machines["e2-standard-4"].accelerated
    for made in (picked(4), machine("g2-standard-8", gpu=L4, spot=True)):
        assert price_of(made, 1, table) > 0
    assert price_of(machine("n2-standard-8", gpu=T4), 1, table) > price_of(
        machine("n2-standard-8"), 1, table
    )


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("surcharge: 0.15", "surcharge: -1", "vertex.surcharge"),
        ("spot: 0.4", "spot: 0", "vertex.spot"),
        ("spot: 0.4", "spot: 1.5", "vertex.spot"),
        ("run: 0.03", "run: -0.01", "vertex.run"),
        ("run: 0.03", "fee: 0.03", "vertex.fee"),
        ("currency: USD", "curency: USD", "currency"),
        ("NVIDIA_TESLA_T4: 0.35", "NVIDIA_TESLA_T4: free", "accelerators"),
        ("cores: 4, hour: 0.134", "cores: 0, hour: 0.134", "machines"),
        ("accelerated: true", "accelerated: 1", "machines"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, old, new, key):
    text = PRICES.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "prices.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_prices(path)
    assert caught.value.key.startswith(key) and "\n" not in str(caught.value)
