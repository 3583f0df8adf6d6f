"""What training cost in electricity and carbon, estimated from its CPU time.

An estimate by order of magnitude: nothing was metered. After the method of Lannelongue, Grealey
& Inouye 2021, "Green Algorithms: Quantifying the Carbon Footprint of Computation" (Advanced
Science 8), without its term for memory.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

WATTS_PER_CORE = 4.26
"""Of a busy virtual core with its share of the server: the median over Google Cloud's processors in
SPECpower, from Cloud Carbon Footprint, "Methodology", section Compute (2023)."""
OVERHEAD = 1.58
"""Power usage effectiveness of an average data centre: Uptime Institute, Global Data Center Survey
2023."""
GRAMS_PER_KWH = 436.0
"""CO2 equivalents of the world's electricity in 2022: Ember, Global Electricity Review 2023."""


class Footprint(BaseModel):
    """CPU time of training, and what follows from it.

    Attributes:
        cpu_seconds: Of the training step, over all cores; 0 where it was not recorded.
        wall_seconds: From its begin to its end.
        machine: What it ran on, in words; empty where that was not recorded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    machine: str = ""

    @property
    def recorded(self) -> bool:
        """Whether the time of training is known."""
        return self.cpu_seconds > 0

    @property
    def kilowatt_hours(self) -> float:
        """Electricity of the cores that were busy, with the data centre's overhead."""
        return self.cpu_seconds / 3_600 * WATTS_PER_CORE / 1_000 * OVERHEAD

    @property
    def grams(self) -> float:
        """CO2 equivalents in grams."""
        return self.kilowatt_hours * GRAMS_PER_KWH

    def facts(self) -> dict[str, str]:
        """Time, machine and estimate in words, by what they are."""
        if not self.recorded:
            return {"Time of training": "not recorded"}
        return {
            "CPU time": f"{self.cpu_seconds:,.0f} s",
            "Wall time": f"{self.wall_seconds:,.0f} s",
            "Machine": self.machine or "not recorded",
            "Electricity (estimate)": f"{self.kilowatt_hours * 1_000:.3g} Wh",
            "Carbon (estimate)": f"{self.grams:.2g} g of CO2 equivalents",
        }

    def assumptions(self) -> str:
        """What the estimate rests on, in words."""
        return (
            f"The two estimates were not metered. They take {WATTS_PER_CORE:g} W for each busy "
            f"core (Cloud Carbon Footprint, median of Google Cloud's processors under full load), "
            f"{OVERHEAD:g} for the overhead of the data centre (Uptime Institute 2023) and "
            f"{GRAMS_PER_KWH:g} g of CO2 equivalents a kWh (Ember, world average of 2022). "
            f"Accelerators, idle cores, memory beyond the server's usual, the making of the "
            f"hardware and the training of the backbone by its authors are not counted."
        )
