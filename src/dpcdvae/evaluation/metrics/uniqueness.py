"""How many of the crystals are new among themselves."""

from __future__ import annotations

from dpcdvae.evaluation.metric import metric
from dpcdvae.evaluation.sample import Number, Sample
from dpcdvae.evaluation.uniqueness import find_duplicates

UNIQUENESS_SAMPLE = 1000
"""Uniqueness falls with the number of crystals and costs its square: a fixed number keeps reports comparable."""


@metric("uniqueness", "uniqueness")
def _uniqueness(sample: Sample) -> list[Number]:
    """Among the crystals that there are: one that could not be built is neither new nor a duplicate."""
    crystals = sample.measurable[:UNIQUENESS_SAMPLE]
    found = find_duplicates(crystals, engine=sample.engine, time_limit=sample.time_limit)
    sample.give_up("uniqueness", crystals, found.cut)
    note = f"first {len(crystals)}" if len(crystals) < len(sample.measurable) else ""
    return [sample.rate(~found.duplicate, len(crystals), note=note)]
