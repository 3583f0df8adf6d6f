"""The tests that a challenger is compared with the champion by.

Each takes the probability of a false alarm that it may use up; a judge that looks often gives
each look a part of it (``spent``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from deployment.releasing.target import Histogram

_Z95 = 1.959964


@dataclass(frozen=True)
class Rate:
    """So many of so many."""

    count: int
    of: int

    @property
    def value(self) -> float:
        """The share; 0 of none."""
        return self.count / self.of if self.of else 0.0

    def interval(self, z: float = _Z95) -> tuple[float, float]:
        """Wilson's score interval (Wilson 1927, JASA 22), 95% by default."""
        if not self.of:
            return 0.0, 1.0
        spread = z * z / self.of
        middle = (self.value + spread / 2) / (1 + spread)
        half = z / (1 + spread) * math.sqrt(
            self.value * (1 - self.value) / self.of + spread / (4 * self.of)
        )  # fmt: skip
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        return f"{self.count:,} of {self.of:,} ({self.value:.2%})"


def spent(alpha: float, look: int) -> float:
    """What a look may use up of a probability, from 1 on: parts that sum to the whole.

    By the union bound the sum holds for any number of looks, however they depend on each other.
    """
    return alpha / (look * (look + 1))


def more_often(challenger: Rate, champion: Rate) -> float:
    """p-value that the challenger's rate is no higher: Fisher's exact test, one-sided."""
    from scipy.stats import hypergeom

    total, events = challenger.of + champion.of, challenger.count + champion.count
    if not challenger.count or not champion.of:
        return 1.0
    return float(hypergeom.sf(challenger.count - 1, total, events, challenger.of))


def difference(challenger: Rate, champion: Rate, alpha: float) -> tuple[float, float]:
    """Interval of the difference of two rates (Newcombe 1998, Stat. Med. 17, method 10).

    Args:
        challenger: The rate that the other is taken from.
        champion: The other.
        alpha: Probability that the interval misses the difference, both sides together.
    """
    from scipy.stats import norm

    z = float(norm.isf(alpha / 2))
    (low, high), (low2, high2) = challenger.interval(z), champion.interval(z)
    one, two = challenger.value, champion.value
    gap = one - two
    return (
        gap - math.sqrt((one - low) ** 2 + (high2 - two) ** 2),
        gap + math.sqrt((high - one) ** 2 + (two - low2) ** 2),
    )


def quantile(histogram: Histogram, level: float, alpha: float) -> tuple[float, float, float]:
    """A quantile with an interval from the ranks it may have, widened to whole buckets.

    Args:
        histogram: Of values.
        level: Between 0 and 1.
        alpha: Probability that the interval misses it, both sides together.

    Returns:
        The quantile, the lower end and the upper end (infinite where too few values lie above).
    """
    from scipy.stats import binom

    number = histogram.total
    if not number:
        return 0.0, 0.0, math.inf
    value = histogram.quantile(level)[0]
    first = float(binom.ppf(alpha / 2, number, level))
    last = float(binom.isf(alpha / 2, number, level)) + 1
    low = histogram.quantile(first / number)[1] if first >= 1 else 0.0
    within = number - (histogram.counts[-1] if histogram.edges else number)
    high = histogram.quantile(last / number)[2] if last <= within else math.inf
    return value, low, high


def distance(one: Histogram, two: Histogram) -> float:
    """Largest distance of two cumulative distributions (Kolmogorov, Smirnov), at shared edges."""
    edges = tuple(edge for edge in one.edges if edge in set(two.edges))
    if not one.total or not two.total or not edges:
        return 0.0
    widest = below = below2 = 0.0
    for count, count2 in zip(one.on(edges), two.on(edges), strict=True):
        below, below2 = below + count / one.total, below2 + count2 / two.total
        widest = max(widest, abs(below - below2))
    return widest


def chance(samples: int, samples2: int, alpha: float) -> float:
    """How much of a distance chance alone exceeds with a probability of at most ``alpha``.

    The Dvoretzky-Kiefer-Wolfowitz inequality with Massart's constant (1990, Ann. Probab. 18),
    half of the probability for each sample.
    """
    return sum(math.sqrt(math.log(4 / alpha) / (2 * n)) if n else math.inf
               for n in (samples, samples2))  # fmt: skip


@dataclass
class Pairs:
    """What two versions said of the same documents.

    Attributes:
        number: Of documents.
        same: Of these, decided alike.
        total: Sum of the differences of the scores, each as a share of the scale.
        squares: Sum of their squares.
    """

    number: int = 0
    same: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, same: bool, gap: float) -> None:
        """One more document."""
        self.number += 1
        self.same += same
        self.total += gap
        self.squares += gap * gap

    @property
    def mean(self) -> float:
        """Mean difference of the scores."""
        return self.total / self.number if self.number else 0.0

    def at_least(self, alpha: float) -> float:
        """Lower end of a one-sided interval of the mean difference.

        The empirical Bernstein bound (Maurer and Pontil 2009, theorem 4), for differences that
        lie between 0 and 1.
        """
        if self.number < 2:
            return 0.0
        variance = (self.squares - self.number * self.mean**2) / (self.number - 1)
        log = math.log(2 / alpha)
        slack = math.sqrt(2 * max(0.0, variance) * log / self.number)
        return self.mean - slack - 7 * log / (3 * (self.number - 1))
