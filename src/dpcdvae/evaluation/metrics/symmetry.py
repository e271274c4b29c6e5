"""Whether the crystals are as symmetric as those of the reference."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dpcdvae.evaluation.comparison_notes import joined
from dpcdvae.evaluation.crystal_columns import column
from dpcdvae.evaluation.distributions import POPULATION, total_variation, total_variation_interval
from dpcdvae.evaluation.metric import metric
from dpcdvae.evaluation.sample import Sample
from dpcdvae.intervals import Number
from dpcdvae.structures.space_groups import (
    CONVENTIONS,
    SYMPREC,
    SpaceGroups,
    by_crystal_system,
    find_space_groups,
    symbols,
)


def space_groups(sample: Sample) -> SpaceGroups:
    found = find_space_groups(sample.crystals, sample.results, sample.symmetry)
    sample.give_up("space group", sample.crystals, found.reasons)
    return found


def reference_space_groups(sample: Sample) -> SpaceGroups:
    """None found where the reference has no crystals."""
    crystals = sample.reference.crystals or ()
    found = find_space_groups(crystals, sample.results, sample.symmetry)
    sample.give_up("space group of the reference", crystals, found.reasons)
    return found


@metric("space_group_distance", "space groups", "variation")
def _space_group_distance(sample: Sample) -> list[Number]:
    """Half the sum of the differences between the shares of the 230 groups: 0 the same, 1 nothing in common."""
    if sample.reference.crystals is None:
        return []
    theirs = sample.once_for_all(reference_space_groups).histogram()
    return [_distance(sample, sample.once(space_groups).histogram(), theirs)]


@metric("crystal_system_distance", "crystal systems", "variation")
def _crystal_system_distance(sample: Sample) -> list[Number]:
    """The same of the seven crystal systems, for which fewer crystals are enough."""
    if sample.reference.crystals is None:
        return []
    theirs = by_crystal_system(sample.once_for_all(reference_space_groups).histogram())
    return [_distance(sample, by_crystal_system(sample.once(space_groups).histogram()), theirs)]


def _distance(sample: Sample, counts: npt.NDArray[np.int64], reference: npt.NDArray[np.int64]) -> Number:
    lacking = len(sample.once(space_groups).reasons)
    if counts.sum() == 0 or reference.sum() == 0:
        return Number(None, 0, note=_convention(sample), undecided=lacking)
    interval = total_variation_interval(counts, reference, seed=sample.seed)
    note = joined(_convention(sample), POPULATION)
    return Number(total_variation(counts, reference), int(counts.sum()), interval, note=note, undecided=lacking)


@metric("p1_share", "without symmetry (P1)")
def _p1_share(sample: Sample) -> list[Number]:
    """Among the crystals whose space group is known."""
    found = sample.once(space_groups)
    known = int((found.numbers > 0).sum())
    return [Number.rate(found.numbers == 1, known, note=_convention(sample), undecided=len(found.reasons))]


def _convention(sample: Sample) -> str:
    return f"symprec {SYMPREC:g} Å, {CONVENTIONS[sample.symmetry].meaning}"


@column("space_group_number", kind=int)
def _number(sample: Sample) -> list[int | None]:
    return [number or None for number in sample.once(space_groups).numbers.tolist()]


@column("space_group_symbol", kind=str)
def _symbol(sample: Sample) -> list[str | None]:
    return [symbols()[number] or None for number in sample.once(space_groups).numbers.tolist()]
