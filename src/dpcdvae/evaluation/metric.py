"""The table of metrics: every number of a report, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dpcdvae.evaluation.sample import Sample
from dpcdvae.intervals import Number
from dpcdvae.registry import Registry


@dataclass(frozen=True)
class Metric:
    """An entry of the table.

    Attributes:
        title: its name for people.
        unit: "" for a rate.
        measure: takes it from a sample.
        subject: the module it stands in; a report sets subjects apart.
    """

    title: str
    unit: str
    measure: Callable[[Sample], list[Number]]

    @property
    def subject(self) -> str:
        return self.measure.__module__


METRICS: Registry[Metric] = Registry("metric")


def metric(name: str, title: str, unit: str = "") -> Callable[[Callable[[Sample], list[Number]]], None]:
    """Decorator that files a function as the metric ``name``; a metric that does not apply gives no numbers."""

    def add(measure: Callable[[Sample], list[Number]]) -> None:
        METRICS.register(name)(Metric(title, unit, measure))

    return add
