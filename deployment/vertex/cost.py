"""What a run on Vertex AI used, and about what that costs: configs/prices.yaml, `vertex`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from deployment.vertex.jobs import JobState
from deployment.vertex.settings import Machine, VertexStack
from tamis.scoring.prices import Prices, load_prices


@dataclass(frozen=True)
class Use:
    """Machine-hours of one run on one kind of machine.

    Attributes:
        machine: In words, such as ``g2-standard-8 with NVIDIA_L4, spot``.
        hours: Of wall time, from the start of a step to its end.
        price: In the currency of the price table; None where the table does not know it.
    """

    machine: str
    hours: float
    price: float | None


@dataclass(frozen=True)
class Cost:
    """What a run used.

    Attributes:
        uses: By machine.
        fee: Of Vertex AI Pipelines for the run itself.
        currency: Of the prices.
    """

    uses: tuple[Use, ...]
    fee: float
    currency: str

    @property
    def total(self) -> float:
        """Sum of what is known."""
        return self.fee + sum(use.price or 0.0 for use in self.uses)

    def __str__(self) -> str:
        if not self.uses:
            return f"no machine was used; about {self.total:.2f} {self.currency}"
        told = ", ".join(f"{use.hours:.3f} h of {use.machine}" for use in self.uses)
        unknown = [use.machine for use in self.uses if use.price is None]
        without = f", without {', '.join(unknown)} (not in configs/prices.yaml)" if unknown else ""
        return f"{told}: about {self.total:.2f} {self.currency}{without}"


def of_job(stack: VertexStack, job: JobState, prices: Prices | None = None) -> Cost:
    """What a job used so far, by the time of its steps and the machines of the stack's file.

    Storage, traffic, the servers and the time that a machine takes to start are not in it.

    Raises:
        ConfigError: The price table is wrong.
    """
    table = prices or load_prices()
    now = datetime.now(UTC)
    hours: dict[Machine, float] = defaultdict(float)
    for task in job.tasks:
        hours[stack.machine_of(task.step)] += task.hours(now)
    uses = tuple(
        Use(describe(machine), used, price_of(machine, used, table))
        for machine, used in hours.items()
        if used
    )
    return Cost(uses, table.vertex.run, table.currency)


def summed(costs: Iterable[Cost]) -> dict[str, float]:
    """Hours by machine and the price of several jobs, for the result document."""
    found: dict[str, float] = defaultdict(float)
    for cost in costs:
        for use in cost.uses:
            found[f"hours, {use.machine}"] += use.hours
        found[cost.currency] += cost.total
    return dict(found)


def describe(machine: Machine) -> str:
    """A machine in words."""
    name = machine.machine_type or f"{machine.cpu:g} cores and {machine.memory}"
    if machine.gpu is not None:
        each = f"{machine.gpu.count} " if machine.gpu.count > 1 else ""
        name += f" with {each}{machine.gpu.type}"
    return f"{name}, spot" if machine.spot else name


def price_of(machine: Machine, hours: float, prices: Prices) -> float | None:
    """What so many hours of a machine cost on Vertex AI; None where the table does not say.

    Where Vertex picks the machine, the cheapest of the table with as many cores counts.
    """
    if machine.machine_type is not None:
        known = prices.machines.get(machine.machine_type)
    else:
        plain = [m for m in prices.machines.values() if not m.accelerated]
        enough = [m for m in plain if m.cores >= (machine.cpu or 1)]
        known = min(enough, key=lambda m: m.hour, default=None)
    if known is None:
        return None
    hour = known.hour
    # The price of a g2 or a3 machine holds its accelerators.
    if machine.gpu is not None and not known.accelerated:
        each = prices.accelerators.get(machine.gpu.type)
        if each is None:
            return None
        hour += machine.gpu.count * each
    if machine.spot:
        hour *= prices.vertex.spot
    return hours * hour * (1 + prices.vertex.surcharge)
