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

ROUNDING = 1e-9
"""By which a bound of a rate may miss 0 or 1."""

LEVEL = 0.95
Z = 1.959963984540054
"""Standard normal quantile at (1 + LEVEL) / 2."""

REPLICATES = 500

LARGEST = 1e38
"""What float32 holds, about: no number of an evaluation or a training is larger."""

MOST_COUNTED = 10**12
"""Crystals, pairs or epochs: a file that counts more is no result."""


@dataclass(frozen=True)
class Number:
    """One value with its interval and where it comes from.

    Attributes:
        value: None where nothing was measured (no crystal, no match).
        n: crystals (or pairs, or seeds) behind it.
        interval: 95 %, where one makes sense.
        gate: which crystals count, for metrics that exist under several conditions.
        note: what a reader must know to compare it.
        undecided: crystals (or pairs) whose computation gave no result. In a rate they are among ``n`` and count as
            failures; a mean or a distance leaves them out.
    """

    value: float | None
    n: int
    interval: Interval | None = None
    gate: str = ""
    note: str = ""
    undecided: int = 0

    @classmethod
    def rate(cls, good: npt.ArrayLike, n: int, *, gate: str = "", note: str = "", undecided: int = 0) -> Number:
        """The share of ``n`` that is good: flags or weights from 0 to 1, or their sum. What is not there counts 0."""
        total = float(np.sum(good))
        if n == 0:
            return cls(None, 0, None, gate, note, undecided)
        return cls(total / n, n, wilson(total, n), gate, note, undecided)

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
        # One value says nothing of the spread.
        return cls(float(statistic(values)), len(values), interval(values) if len(values) > 1 else None, gate, note)

    @classmethod
    def mean(cls, values: Floats, *, seed: int, gate: str = "", note: str = "") -> Number:
        return cls.of(values, np.mean, lambda some: bootstrap_mean(some, seed=seed), gate=gate, note=note)

    @classmethod
    def median(cls, values: Floats, *, gate: str = "", note: str = "") -> Number:
        return cls.of(values, np.median, median_interval, gate=gate, note=note)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], unit: str) -> Number:
        """From what :meth:`to_json` gave of a number of this unit, "" for a rate.

        Raises:
            KeyError, TypeError, ValueError: it is none, or one that no evaluation gives, such as a rate of 1e308.
        """
        value, interval, n = content["value"], content["interval"], is_count(content["n"])
        low, high = (0.0, 0.0) if interval is None else interval
        least, most = (-LARGEST, LARGEST) if unit else (-ROUNDING, 1 + ROUNDING)
        for number in (0.0 if value is None else value, low, high):
            if type(number) not in (int, float) or not least <= number <= most:
                raise ValueError(f"{str(number)[:30]} is no {'number of an evaluation' if unit else 'rate'}")
        if low > high:
            raise ValueError(f"an interval from {low} to {high}")
        return cls(value, n, None if interval is None else (low, high))

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


def drawable(values: npt.ArrayLike) -> Floats:
    """The values as floats, NaN beyond about the range of float32 (1e38), and 0 below 1e-38.

    What is drawn gets sums, squares and logarithms: those of larger numbers have no value.
    """
    found = np.asarray(values, np.float64)
    size = np.abs(found)
    return np.where(size <= LARGEST, np.where(size < 1 / LARGEST, 0.0, found), np.nan)


def is_count(value: Any) -> int:
    """The value, where it can be a number of crystals; raises ValueError elsewhere."""
    if type(value) is not int or not 0 <= value <= MOST_COUNTED:
        raise ValueError(f"{str(value)[:30]} is no count")
    return value


def wilson(successes: float, n: int) -> Interval:
    """Interval of a rate (Wilson 1927): right for few crystals and for rates of 0 and 1. n > 0.

    ``successes`` may be a sum of weights from 0 to 1, whose variance is at most that of flags: the interval is then
    too wide rather than too narrow.
    """
    rate = successes / n
    centre = (rate + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(rate * (1 - rate) / n + Z**2 / (4 * n**2))
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


def t_interval(values: Sequence[float]) -> Interval | None:
    """Interval of the mean of n >= 2 independent values: mean ± t(n - 1) s / √n; None for fewer."""
    n = len(values)
    if n < 2:
        return None
    from scipy.stats import t

    half = float(t.ppf((1 + LEVEL) / 2, n - 1)) * float(np.std(values, ddof=1)) / np.sqrt(n)
    return float(np.mean(values) - half), float(np.mean(values) + half)
