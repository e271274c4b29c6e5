"""Success rates of a property-guided search: how many starting points led to a crystal as good as the data's best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError
from dpcdvae.intervals import LEVEL, Number, shown
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.neutrality import compositionally_valid

if TYPE_CHECKING:
    from rich.console import RenderableType

SCHEMA = "dpcdvae.search/1"
PERCENTILES = (5, 10, 15)

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SuccessRate:
    """Starting points whose best valid crystal reached a quantile of the training set.

    Attributes:
        percent: 5, 10 or 15: the share of the training set that is as good.
        threshold: the property there.
        successes: at any saved point; start_successes: at the first one, before the search.
        n: starting points, those without any valid crystal included.
    """

    percent: int
    threshold: float
    successes: int
    start_successes: int
    n: int

    @property
    def number(self) -> Number:
        return Number.rate(self.successes, self.n)

    @property
    def start_number(self) -> Number:
        return Number.rate(self.start_successes, self.n)


def check_tools() -> None:
    """Raises InputError, before the hours of a search, when what validity needs is not installed."""
    compositionally_valid([Crystal(np.array([6]), np.zeros((1, 3)), np.eye(3))])


def thresholds(quantiles: Mapping[str, float], *, maximize: bool = False) -> dict[int, float]:
    """The goal for each of 5, 10, 15 %, from the quantiles by percentage in a model's card.

    Raises:
        InputError: the card lacks one of them.
    """
    wanted = {percent: str(100 - percent if maximize else percent) for percent in PERCENTILES}
    if missing := [key for key in wanted.values() if key not in quantiles]:
        raise InputError(f"the model's card has no {missing[0]} % quantile of its property: train the model again")
    return {percent: quantiles[key] for percent, key in wanted.items()}


def success_rates(
    values: Floats, valid: Flags, goals: Mapping[int, float], *, maximize: bool = False
) -> list[SuccessRate]:
    """SR5, SR10 and SR15 as CDVAE defines them (Xie et al., ICLR 2022), for each goal.

    Args:
        values: (S, n) the property of what n starting points gave at S saved points; NaN where it is not known.
        valid: (S, n) whether that was a valid crystal; one that was never built is not.
        goals: the property to reach, by percentage; "at least as good" counts.
    """
    sign = -1.0 if maximize else 1.0
    counted = np.where(valid & np.isfinite(values), sign * values, np.inf)
    best, n = counted.min(axis=0), values.shape[1]
    return [
        SuccessRate(percent, goal, int((best <= sign * goal).sum()), int((counted[0] <= sign * goal).sum()), n)
        for percent, goal in goals.items()
    ]


@dataclass(frozen=True)
class SearchReport:
    """What a search of n starting points came to at its S saved points.

    Attributes:
        name: of the property; unit: "" if unknown.
        evaluated_by: the model that says what property a decoded crystal has; "" for the searched model's own head.
        steps: (S,) gradient steps.
        predicted: (S, n) by the head, from z.
        evaluated: (S, n) by that model, from the crystal; NaN where there is none or it is not valid or not evaluated.
        valid: (S, n).
        goals: as :func:`thresholds` gives them.
        reasons: how many crystals could not be evaluated, by reason.
        settings: all that shaped the search.
    """

    name: str
    unit: str
    evaluated_by: str
    maximize: bool
    steps: tuple[int, ...]
    predicted: Floats
    evaluated: Floats
    valid: Flags
    goals: Mapping[int, float]
    reasons: Mapping[str, int]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rates(self) -> list[SuccessRate]:
        return success_rates(self.evaluated, self.valid, self.goals, maximize=self.maximize)

    @property
    def points(self) -> list[tuple[int, float | None, float | None, int]]:
        """For each saved point: gradient steps, mean predicted, mean evaluated (of the valid), number of valid ones.

        Means are over what is finite, None without any.
        """
        evaluated = np.where(self.valid, self.evaluated, np.nan)
        return [
            (step, _mean(self.predicted[k]), _mean(evaluated[k]), int(self.valid[k].sum()))
            for k, step in enumerate(self.steps)
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "property": {"name": self.name, "unit": self.unit},
            "evaluated_by": self.evaluated_by or "own head",
            "maximize": self.maximize,
            "starting_points": self.predicted.shape[1],
            "points": [
                {"step": step, "predicted_mean": predicted, "evaluated_mean": evaluated, "valid": valid}
                for step, predicted, evaluated, valid in self.points
            ],
            "success_rates": [
                {
                    "name": f"SR{rate.percent}",
                    "threshold": rate.threshold,
                    **rate.number.to_json(),
                    **{f"start_{key}": value for key, value in rate.start_number.to_json().items() if key != "n"},
                }
                for rate in self.rates
            ],
            "not_evaluated": dict(self.reasons),
            "settings": dict(self.settings),
        }

    def table(self) -> RenderableType:
        """What a person reads; print it with rich."""
        from rich.console import Group

        model = self.evaluated_by or "the model's own head: optimistic (--energy-model names an independent model)"
        notes = [f"evaluated by {model}"]
        notes += [f"not evaluated, so no success: {count} {what}" for what, count in self.reasons.items() if count]
        return Group(self._way(), "", self._success(), *notes)

    def _way(self) -> RenderableType:
        from rich.table import Table

        n, goal = self.predicted.shape[1], "maximised" if self.maximize else "minimised"
        unit = self.unit or self.name  # whatever it is, no rate
        title = f"{self.name}, {self.unit}" if self.unit else self.name
        table = Table(title=f"{title}: {goal} from {n} starting points", title_justify="left", title_style="bold")
        evaluated_column = ["evaluated, mean of valid"] if self.evaluated_by else []
        for column in ("gradient steps", "predicted, mean", *evaluated_column, "valid"):
            table.add_column(column, justify="right")
        for step, predicted, evaluated, valid in self.points:
            means = [shown(mean, unit) for mean in ([predicted, evaluated] if self.evaluated_by else [predicted])]
            table.add_row(str(step), *means, shown(valid / n, ""))
        return table

    def _success(self) -> RenderableType:
        from rich.table import Table

        table = Table(title="success rates", title_justify="left", title_style="bold")
        for column in ("", "goal", "success", f"{LEVEL:.0%}", "at step 0", f"{LEVEL:.0%}"):
            table.add_column(column, justify="right" if column else "left", no_wrap=True)
        sign = "≥" if self.maximize else "≤"
        for rate in self.rates:
            table.add_row(
                f"SR{rate.percent}",
                f"{sign} {rate.threshold:.7g}",
                *rate.number.shown(""),
                *rate.start_number.shown(""),
            )
        return table


def _mean(values: Floats) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None
