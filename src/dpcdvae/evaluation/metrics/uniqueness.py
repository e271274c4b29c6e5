"""How many of the crystals are new among themselves."""

from __future__ import annotations

from collections.abc import Sequence

from dpcdvae.evaluation.comparison_notes import bounded, joined, undecided
from dpcdvae.evaluation.crystal_columns import column
from dpcdvae.evaluation.metric import metric
from dpcdvae.evaluation.sample import Sample
from dpcdvae.intervals import Number
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.duplicates import Duplicates, find_duplicates

UNIQUENESS_SAMPLE = 1000
"""Uniqueness falls with the number of crystals and costs its square: a fixed number keeps reports comparable."""


def compared(sample: Sample) -> Sequence[Crystal]:
    """The crystals whose uniqueness and novelty are known: the first of ``sample.measurable``."""
    return sample.measurable[:UNIQUENESS_SAMPLE]


def duplicates(sample: Sample) -> Duplicates:
    """Of the crystals of :func:`compared`."""
    found = find_duplicates(compared(sample), sample.results)
    sample.give_up("uniqueness", compared(sample), found.reasons)
    return found


def duplicate_of(sample: Sample) -> list[int | None]:
    """For each crystal of :func:`compared` the place in it of an earlier one of the same structure, None without one.

    Nothing is known of crystals beyond: the list is as long as :func:`compared`.
    """
    return sample.once(duplicates).duplicate_of


def unique(sample: Sample) -> list[bool | None]:
    """For each crystal of :func:`compared` whether no earlier one has the same structure; None if undecided."""
    found = sample.once(duplicates)
    return [None if k in found.reasons else earlier is None for k, earlier in enumerate(found.duplicate_of)]


@metric("uniqueness", "uniqueness")
def _uniqueness(sample: Sample) -> list[Number]:
    """Among the crystals that there are: one that could not be built is neither new nor a duplicate."""
    good = sample.once(unique)
    note = joined(first_of(sample), bounded(sample.once(duplicates).left_out), undecided(good, "unique"))
    return [Number.rate([one is True for one in good], len(good), note=note)]


def first_of(sample: Sample) -> str:
    return f"first {len(compared(sample))}" if len(compared(sample)) < len(sample.measurable) else ""


@column("unique", kind=bool)
def _unique(sample: Sample) -> list[bool | None]:
    return sample.spread(sample.once(unique))


@column("duplicate_of", kind=str)
def _duplicate_of(sample: Sample) -> list[str | None]:
    """Id of an earlier crystal of the same structure."""
    crystals = compared(sample)
    return sample.spread([None if k is None else crystals[k].id for k in sample.once(duplicate_of)])
