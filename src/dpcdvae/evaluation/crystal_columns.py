"""The table of columns: what is known of each single crystal, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy.typing as npt

from dpcdvae.evaluation.sample import Sample
from dpcdvae.registry import Registry

Value = bool | int | float | str | None

Measure = TypeVar("Measure", bound=Callable[[Sample], Sequence[Any] | npt.NDArray[Any]])


@dataclass(frozen=True)
class Column:
    """An entry of the table.

    Attributes:
        unit: "" where it has none.
        kind: bool, int, float or str: what its values are, where they are not None.
        measure: one value for each of ``sample.crystals``, NaN as good as None; nothing at all (``[]``) where the
            column does not apply. What several columns need is shared by ``sample.once``.
    """

    unit: str
    kind: type
    measure: Callable[[Sample], Sequence[Any] | npt.NDArray[Any]]


COLUMNS: Registry[Column] = Registry("column")


def column(name: str, unit: str = "", kind: type = float) -> Callable[[Measure], Measure]:
    """Decorator that files a function as the column ``name``; it stands beside the metric that it explains."""

    def add(measure: Measure) -> Measure:
        COLUMNS.register(name)(Column(unit, kind, measure))
        return measure

    return add
