"""Numbers with their 95 % intervals, from the number of crystals (or of seeds) behind them.

The Wilson interval is our own: ``scipy.stats.binomtest`` gives the same digits (a test compares them), but importing
``scipy.stats`` takes a second or more, which every ``dpcdvae evaluate`` would wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]

LEVEL = 0.95
_Z = 1.959963984540054  # standard normal quantile at (1 + LEVEL) / 2
REPLICATES = 500


@dataclass(frozen=True)
class Number:
    """One value with what is needed to trust it.

    Attributes:
        value: None where there is nothing to take it from (no crystal, no match).
        n: crystals (or pairs, or seeds) behind it.
        interval: 95 %, where one makes sense.
        gate: which crystals count, for metrics that exist under several conditions.
        note: what a reader must know to compare it.
    """

    value: float | None
    n: int
    interval: Interval | None = None
    gate: str = ""
    note: str = ""

    @classmethod
    def rate(cls, good: npt.ArrayLike, n: int, *, gate: str = "", note: str = "") -> Number:
        """The share of ``n`` that is good: flags, of which what is not there counts as False, or how many are."""
        successes = int(np.sum(good))
        if n == 0:
            return cls(None, 0, None, gate, note)
        return cls(successes / n, n, wilson(successes, n), gate, note)

    @classmethod
    def of(
        cls,
        values: Floats,
        statistic: Callable[[Floats], float | np.floating[Any]],
        interval: Callable[[Floats], Interval],
        *,
        gate: str = "",
        note: str = "",
    ) -> Number:
        """A statistic of ``values`` (n,) with its interval, None for no values."""
        if len(values) == 0:
            return cls(None, 0, None, gate, note)
        return cls(float(statistic(values)), len(values), interval(values), gate, note)

    @classmethod
    def mean(cls, values: Floats, *, seed: int, gate: str = "", note: str = "") -> Number:
        return cls.of(values, np.mean, lambda some: bootstrap_mean(some, seed=seed), gate=gate, note=note)

    @classmethod
    def median(cls, values: Floats, *, gate: str = "", note: str = "") -> Number:
        return cls.of(values, np.median, median_interval, gate=gate, note=note)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Number:
        """From what :meth:`to_json` gave."""
        return cls(content["value"], content["n"], content["interval"] and tuple(content["interval"]))

    def to_json(self) -> dict[str, Any]:
        """``value``, ``interval`` and ``n`` as JSON values."""
        return {"value": self.value, "interval": self.interval and list(self.interval), "n": self.n}

    def shown(self, unit: str) -> tuple[str, str]:
        """The value and its interval for people, each as :func:`shown`; no interval is the empty string."""
        if self.interval is None:
            return shown(self.value, unit), ""
        dash = "–" if self.interval[0] >= 0 else " to "
        return shown(self.value, unit), dash.join(shown(bound, unit) for bound in self.interval)


def shown(value: float | None, unit: str) -> str:
    """A value as text: percent for a rate, which has no unit, else about four digits, more than most are good for."""
    if value is None:
        return "-"
    if not unit:
        return f"{100 * value:.1f}%"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.4g}"


def wilson(successes: int, n: int) -> Interval:
    """Interval of a rate (Wilson 1927): right for few crystals and for rates of 0 and 1. n > 0."""
    rate = successes / n
    centre = (rate + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(rate * (1 - rate) / n + _Z**2 / (4 * n**2))
    # At the ends the bound is the rate itself, which rounding must not miss.
    low = 0.0 if successes == 0 else float(centre - half)
    high = 1.0 if successes == n else float(centre + half)
    return low, high


def bootstrap(values: Floats, statistic: Callable[[Floats], float], *, seed: int) -> Interval:
    """Percentile interval of a ``statistic`` of ``values`` (n > 0), which are drawn anew with replacement."""
    rng = np.random.default_rng(seed)
    drawn = [statistic(values[rng.integers(len(values), size=len(values))]) for _ in range(REPLICATES)]
    low, high = np.quantile(drawn, (0.5 - LEVEL / 2, 0.5 + LEVEL / 2))
    return float(low), float(high)


def bootstrap_mean(values: Floats, *, seed: int) -> Interval:
    """Percentile interval of the mean of ``values`` (n > 0)."""
    return bootstrap(values, lambda drawn: float(drawn.mean()), seed=seed)


def median_interval(values: Floats) -> Interval:
    """Interval of the median of ``values`` (n > 0), from their ranks: free of any distribution."""
    from scipy.special import bdtr

    ordered, n = np.sort(values), len(values)
    # The quantile of the binomial distribution, without the second that importing scipy.stats takes.
    below = max(0, int(np.searchsorted(bdtr(np.arange(n + 1), n, 0.5), 0.5 - LEVEL / 2)) - 1)
    return float(ordered[below]), float(ordered[n - 1 - below])


def bootstrap_total_variation(
    counts: npt.NDArray[np.int64], reference: Floats, distance: float, *, seed: int
) -> Interval:
    """Interval of the total variation ``distance`` of a histogram of ``counts`` from the shares of a reference.

    The crystals are drawn anew, the reference stays; shifted as in :func:`bootstrap_wasserstein`.
    """
    n = counts.sum()
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=REPLICATES)
    distances = np.abs(drawn / n - reference).sum(axis=1) / 2
    low, high = np.quantile(distances, (0.5 - LEVEL / 2, 0.5 + LEVEL / 2)) - distances.mean() + distance
    return max(0.0, min(float(low), distance)), min(1.0, max(float(high), distance))


def bootstrap_wasserstein(values: Floats, reference: Floats, distance: float, *, seed: int) -> Interval:
    """Interval of the Wasserstein ``distance`` of the two samples: what other crystals of the same source would give.

    ``values`` are drawn anew with replacement, the reference stays. Every replicate carries the
    sampling noise twice and so lies too high, most of all near zero; therefore the replicates are
    shifted to have the measured distance as their mean. The interval ends at zero.
    """
    sample, inverse = np.unique(values, return_inverse=True)
    reference = np.sort(reference)
    grid = np.unique(np.concatenate([sample, reference]))
    widths = np.diff(grid)
    reference_cdf = distribution(reference, grid)
    position = np.searchsorted(sample, grid[:-1], side="right")
    rng = np.random.default_rng(seed)
    distances = np.empty(REPLICATES)
    for k in range(REPLICATES):  # one at a time: a matrix of all would not fit the processor's cache
        drawn = np.bincount(inverse[rng.integers(len(inverse), size=len(inverse))], minlength=len(sample))
        cdf = np.concatenate([[0.0], np.cumsum(drawn) / len(inverse)])[position]
        distances[k] = np.sum(np.abs(cdf - reference_cdf) * widths)
    low, high = np.quantile(distances, (0.5 - LEVEL / 2, 0.5 + LEVEL / 2)) - distances.mean() + distance
    # Round-off must not shut the distance itself out.
    return max(0.0, min(float(low), distance)), max(float(high), distance)


def distribution(ordered: Floats, grid: Floats) -> Floats:
    """(len(grid) - 1,) cumulative distribution of a sorted sample between the points of a sorted grid."""
    return np.searchsorted(ordered, grid[:-1], side="right") / len(ordered)


def t_interval(values: Sequence[float]) -> Interval | None:
    """Interval of the mean of n >= 2 independent values: mean ± t(n - 1) s / √n; None for fewer."""
    n = len(values)
    if n < 2:
        return None
    from scipy.stats import t

    half = float(t.ppf((1 + LEVEL) / 2, n - 1)) * float(np.std(values, ddof=1)) / np.sqrt(n)
    return float(np.mean(values) - half), float(np.mean(values) + half)
