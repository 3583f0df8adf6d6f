"""What machines cost: configs/prices.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from tamis.config import Strict, read_yaml, validate

PRICES = Path(__file__).resolve().parents[2] / "configs" / "prices.yaml"


class Machine(Strict):
    """A machine that can be rented.

    Attributes:
        cores: Processors.
        hour: Price of an hour.
        speed: How fast a core is beside one of the machine that estimates.
        accelerated: Whether the price holds the machine's accelerators.
    """

    cores: Annotated[int, Field(ge=1)]
    hour: Annotated[float, Field(ge=0)]
    speed: Annotated[float, Field(gt=0)] = 1.0
    accelerated: bool = False

    def bill(self, cpu_seconds: float) -> tuple[float, float]:
        """Hours that so much work takes on all cores, and what they cost.

        Args:
            cpu_seconds: Of one core of the machine that estimates.
        """
        hours = cpu_seconds / 3600 / self.cores / self.speed
        return hours, hours * self.hour


class VertexPrices(Strict):
    """What Vertex AI adds to the price of a machine.

    Attributes:
        surcharge: Share of the machine's price.
        spot: Price of a spot machine, as a share of the full one.
        run: Price of one pipeline run.
    """

    surcharge: Annotated[float, Field(ge=0)] = 0.0
    spot: Annotated[float, Field(gt=0, le=1)] = 1.0
    run: Annotated[float, Field(ge=0)] = 0.0


class Prices(Strict):
    """Machines by name, in one currency.

    Attributes:
        currency: Of all prices.
        machines: By name.
        accelerators: Price of an hour of one, by Vertex AI's name of it.
        vertex: What Vertex AI adds.
    """

    currency: str
    machines: dict[str, Machine]
    accelerators: dict[str, Annotated[float, Field(ge=0)]] = Field(default={})
    vertex: VertexPrices = VertexPrices()


def load_prices(path: Path = PRICES) -> Prices:
    """The price table.

    Raises:
        ConfigError: It is wrong.
    """
    return validate(Prices, read_yaml(path, path.name), path.name)
