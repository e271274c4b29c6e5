"""The few numbers to read first, each with a verdict in words against real crystals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dpcdvae.evaluation.metrics.stability import threshold_gate
from dpcdvae.evaluation.metrics.validity import DRAWN_GATE
from dpcdvae.evaluation.stability import STABLE
from dpcdvae.intervals import Number

Key = tuple[str, str]
"""The key of a number in a report: metric and gate."""


@dataclass(frozen=True)
class Choice:
    """A number of the headline.

    Attributes:
        alternatives: its metrics with their gates, of which the first that the report has is taken.
        more_is_better: whether a higher value is the better one.
        real: the baselines of real crystals it may be compared with, in order of preference.
    """

    alternatives: tuple[Key, ...]
    more_is_better: bool = False
    real: tuple[str, ...] = ("reference", "training")


CHOICES = (
    # First what is there only because an option asks for it: --paired, --relaxed, --phases, --energy-model.
    Choice((("match_rate", "none"),), more_is_better=True, real=()),
    Choice((("match_rms", "none"),), real=()),
    Choice((("relaxed_rmsd", ""),), real=()),
    Choice((("sun", threshold_gate(STABLE)),), more_is_better=True, real=()),
    Choice((("energy_wasserstein", "none"), ("energy_wasserstein", DRAWN_GATE))),
    Choice((("validity", "none"), ("structural_validity", "")), more_is_better=True),
    # Crystals of the training set are real, but none of them is novel.
    Choice((("vun", ""), ("uniqueness", "")), more_is_better=True, real=("reference",)),
    Choice((("coverage_recall", ""),), more_is_better=True),
    Choice((("coverage_precision", ""),), more_is_better=True),
    Choice((("density_wasserstein", "none"), ("density_wasserstein", DRAWN_GATE))),
)
MOST = 6
FEW = 100
"""Crystals below which intervals that overlap say little."""

UNKNOWN = "no real crystals to compare with"
TOO_FEW = "one crystal tells nothing"
NOT_COMPARED = "not compared"
"""Of numbers that real crystals do not have."""


@dataclass(frozen=True)
class Line:
    """A number of the headline, with that of real crystals and the verdict."""

    metric: str
    number: Number
    real: Number | None
    verdict: str


def headline(numbers: Sequence[tuple[str, Number]], baselines: Mapping[str, Mapping[Key, Number]]) -> list[Line]:
    """At most :data:`MOST` lines of what a report has."""
    known = {(name, number.gate): number for name, number in numbers}
    lines = []
    for choice in CHOICES:
        key = next((key for key in choice.alternatives if key in known), None)
        if key is None:
            continue
        beside = (baselines.get(name, {}).get(key) for name in choice.real)
        real = next((number for number in beside if number is not None and number.value is not None), None)
        number = known[key]
        words = verdict(number, real, more_is_better=choice.more_is_better) if choice.real else NOT_COMPARED
        lines.append(Line(key[0], number, real, words))
    return lines[:MOST]


def verdict(number: Number, real: Number | None, *, more_is_better: bool) -> str:
    """In words, what the intervals of a number and of the same number of real crystals say.

    They differ where the intervals do not overlap. Without real crystals a distance is compared with zero: an interval
    that begins there is consistent with no difference.
    """
    if number.value is None:
        return "nothing to take it from"
    if number.interval is None:
        return TOO_FEW if number.n < 2 else UNKNOWN
    low, high = number.interval
    if real is None or real.value is None:
        if more_is_better:
            return UNKNOWN
        return _alike(number) if low <= 0 else "differs from real data"
    real_low, real_high = real.interval or (real.value, real.value)
    if low > real_high:
        return "better than real data" if more_is_better else "clearly worse than real data"
    if high < real_low:
        return "clearly worse than real data" if more_is_better else "better than real data"
    return _alike(number)


def _alike(number: Number) -> str:
    if number.n < FEW:
        return f"not told apart from real data (n = {number.n})"
    return "as good as real data"
