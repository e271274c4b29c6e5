"""Whether the crystals would hold against the known phases: energy above hull, stable, unique and novel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dpcdvae.evaluation.comparison_notes import bounded, commonest, joined
from dpcdvae.evaluation.crystal_columns import column
from dpcdvae.evaluation.metric import metric
from dpcdvae.evaluation.sample import Sample
from dpcdvae.evaluation.stability import METASTABLE, STABLE, SUSPECT, HullEnergies, energies_above_hull
from dpcdvae.intervals import Number
from dpcdvae.structures.duplicates import find_duplicates
from dpcdvae.structures.match_sets import match_training


def hull(sample: Sample) -> HullEnergies | None:
    """None where no reference phases are given."""
    if sample.stability is None:
        return None
    found = energies_above_hull(sample.crystals, sample.stability, sample.results)
    sample.give_up("energy above hull", sample.crystals, found.reasons)
    return found


@metric("stability", "stable")
def _stability(sample: Sample) -> list[Number]:
    """Share of all generated on or near the hull; a crystal without an energy is not."""
    found = sample.once(hull)
    if found is None or sample.stability is None:
        return []
    phases, energies = sample.stability.phases, sample.stability.energies
    unrelaxed = ", crystals as given" if energies.costly else ""  # single points
    sources = f"{len(phases.phases)} phases of {phases.source}; {energies.name}{unrelaxed}"
    lacking = len(found.reasons)
    notes = filter(None, [sources, sample.stability.mismatch(), _suspects(found), _lacking(found)])
    rates = [
        Number.rate(found.within(threshold), sample.generated, gate=threshold_gate(threshold), undecided=lacking)
        for threshold in (STABLE, METASTABLE)
    ]
    return [replace(rates[0], note="; ".join(notes)), *rates[1:]]


@metric("energy_above_hull", "energy above hull, mean", "eV/atom")
def _mean(sample: Sample) -> list[Number]:
    known = _known(sample)
    return [] if known is None else [Number.mean(known, seed=sample.seed)]


@metric("energy_above_hull_median", "energy above hull, median", "eV/atom")
def _median(sample: Sample) -> list[Number]:
    """A few crystals with atoms on top of each other move the mean by electronvolts, and this not at all."""
    known = _known(sample)
    return [] if known is None else [Number.median(known)]


def _known(sample: Sample) -> npt.NDArray[np.float64] | None:
    """The energies above hull of the crystals that have one; None where no reference phases are given."""
    found = sample.once(hull)
    return None if found is None else found.above[np.isfinite(found.above)]


@dataclass(frozen=True)
class NewCrystals:
    """The crystals near the hull that are not of the training set.

    Attributes:
        novel: indices of these crystals.
        lowest: those of them that match none that lies lower, so that each structure counts once.
        left_out: comparisons that were made with the nearest candidates alone.
        undecided: crystals near the hull whose comparison gave no result; they do not count as new.
    """

    novel: list[int]
    lowest: set[int]
    left_out: int
    undecided: int


def new_near_hull(sample: Sample) -> NewCrystals | None:
    """Of all crystals up to ``METASTABLE`` above the hull; None without them or without a training set."""
    found = sample.once(hull)
    if found is None or sample.training is None or sample.training.crystals is None:
        return None
    training = sample.training.crystals
    # The lowest first: of several of one structure it is the one that counts, whatever their order in the file.
    places = sorted(np.flatnonzero(found.within(METASTABLE)).tolist(), key=lambda k: float(found.above[k]))
    near = [sample.crystals[k] for k in places]
    known = match_training(near, training, sample.results)
    new = [n for n in range(len(near)) if known.match[n] is None and n not in known.reasons]
    same = find_duplicates([near[n] for n in new], sample.results)
    reasons = known.reasons | {new[m]: reason for m, reason in same.reasons.items()}
    sample.give_up("stable, unique and novel, crystals of the training set", training, known.other_reasons)
    sample.give_up("stable, unique and novel", near, reasons)
    novel = {m: places[n] for m, n in enumerate(new) if m not in same.reasons}
    lowest = {k for m, k in novel.items() if same.duplicate_of[m] is None}
    return NewCrystals(list(novel.values()), lowest, known.left_out + same.left_out, len(reasons))


@metric("sun", "stable, unique and novel (S.U.N.)")
def _sun(sample: Sample) -> list[Number]:
    return _new(sample, STABLE)


@metric("msun", "metastable, unique and novel")
def _msun(sample: Sample) -> list[Number]:
    return _new(sample, METASTABLE)


def _new(sample: Sample, threshold: float) -> list[Number]:
    """Different structures within the threshold that the training set does not hold, over all generated."""
    found = sample.once(hull)
    if found is None:
        return []
    gate, new = threshold_gate(threshold), sample.once(new_near_hull)
    if new is None:
        why = "no training set" if sample.training is None else f"no crystals of {sample.training.source}"
        return [Number(None, 0, gate=gate, note=f"{why} to compare with")]
    within = found.within(threshold)
    notes = [f"{within.sum()} within, {sum(bool(within[k]) for k in new.novel)} of them novel"]
    notes.append(bounded(new.left_out))
    good, n = _lowest(sample, threshold), sample.generated
    return [Number.rate(good, n, gate=gate, note=joined(*notes), undecided=new.undecided)]


def _lowest(sample: Sample, threshold: float) -> list[bool]:
    """Of each new structure within the threshold the crystal that lies lowest."""
    found, new = sample.once(hull), sample.once(new_near_hull)
    if found is None or new is None:
        return []
    within = found.within(threshold)
    return [k in new.lowest and bool(within[k]) for k in range(len(sample.crystals))]


@column("energy_above_hull", "eV/atom", kind=float)
def _above(sample: Sample) -> npt.NDArray[np.float64] | Sequence[float]:
    found = sample.once(hull)
    return [] if found is None else found.above


@column("decomposition", kind=str)
def _decomposition(sample: Sample) -> Sequence[str | None]:
    """The phases that a crystal would fall into, with their shares of the atoms."""
    found = sample.once(hull)
    return [] if found is None else found.decompositions


@column("sun", kind=bool)
def _is_sun(sample: Sample) -> list[bool]:
    """Whether it stands for a stable new structure: of several of the same structure the lowest alone."""
    return _lowest(sample, STABLE)


@column("msun", kind=bool)
def _is_msun(sample: Sample) -> list[bool]:
    return _lowest(sample, METASTABLE)


def threshold_gate(threshold: float) -> str:
    """Gate of the numbers for energies up to so many eV/atom above the hull."""
    return f"<= {threshold:g} eV/atom"


def _lacking(found: HullEnergies) -> str:
    if not found.reasons:
        return ""
    return f"{len(found.reasons)} without energy above hull: {commonest(found.reasons.values())}"


def _suspects(found: HullEnergies) -> str:
    suspects = int(np.count_nonzero(found.above < SUSPECT))
    return f"{suspects} more than {-SUSPECT:g} eV/atom below the hull: doubt their energies" if suspects else ""
