"""The table of metrics: every number of a report, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dpcdvae.evaluation.sample import Number, Sample
from dpcdvae.registry import Registry


@dataclass(frozen=True)
class Metric:
    """An entry of the table: its name for people, the unit ("" for a rate), and how it is taken from a sample."""

    title: str
    unit: str
    measure: Callable[[Sample], list[Number]]


METRICS: Registry[Metric] = Registry("metric")


def metric(name: str, title: str, unit: str = "") -> Callable[[Callable[[Sample], list[Number]]], None]:
    """Decorator that files a function as the metric ``name``; a metric that does not apply gives no numbers."""

    def add(measure: Callable[[Sample], list[Number]]) -> None:
        METRICS.register(name)(Metric(title, unit, measure))

    return add
