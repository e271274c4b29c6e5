"""How many of the crystals are new among themselves."""

from __future__ import annotations

from dpcdvae.evaluation.comparison_notes import bounded, joined
from dpcdvae.evaluation.crystal_columns import column
from dpcdvae.evaluation.metric import metric
from dpcdvae.evaluation.sample import Sample
from dpcdvae.intervals import Number
from dpcdvae.structures.duplicates import SameStructures, find_same


def same_structures(sample: Sample) -> SameStructures:
    """Among ``sample.measurable``."""
    found = find_same(sample.measurable, sample.results)
    sample.give_up("uniqueness", sample.measurable, found.reasons)
    return found


@metric("uniqueness", "uniqueness")
def _uniqueness(sample: Sample) -> list[Number]:
    """Different structures over crystals: each counts 1 over the number of crystals of its structure.

    Among the crystals that there are: one that could not be built is neither new nor a duplicate.
    """
    found = sample.once(same_structures)
    note = joined("falls with n", bounded(found.left_out))
    return [Number.rate(found.weights, len(found.others), note=note, undecided=len(found.reasons))]


@column("same_structure", kind=int)
def _same_structure(sample: Sample) -> list[int | None]:
    """Crystals of its structure, itself included."""
    found = sample.once(same_structures)
    return sample.spread([None if k in found.reasons else 1 + len(same) for k, same in enumerate(found.others)])


@column("duplicate_of", kind=str)
def _duplicate_of(sample: Sample) -> list[str | None]:
    """Id of the first crystal of the same structure, where it comes earlier."""
    others = sample.once(same_structures).others
    return sample.spread([sample.measurable[o[0]].id if o and o[0] < k else None for k, o in enumerate(others)])
