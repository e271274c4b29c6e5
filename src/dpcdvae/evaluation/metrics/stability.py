"""Whether the crystals would hold against the known phases: energy above hull, stable, unique and novel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dpcdvae.evaluation.columns import column
from dpcdvae.evaluation.intervals import bootstrap_mean, median_interval
from dpcdvae.evaluation.metric import metric
from dpcdvae.evaluation.sample import Number, Sample
from dpcdvae.evaluation.stability import METASTABLE, STABLE, SUSPECT, HullEnergies, energies_above_hull

WHAT = "energy above hull"


def hull(sample: Sample) -> HullEnergies | None:
    """None where no reference phases are given."""
    if sample.stability is None:
        return None
    found = energies_above_hull(
        sample.crystals, sample.stability, engine=sample.engine, time_limit=sample.time_limit, cache=sample.cache
    )
    sample.give_up(WHAT, sample.crystals, found.reasons)
    return found


@metric("stability", "stable")
def _stability(sample: Sample) -> list[Number]:
    """Share of all generated on or near the hull; a crystal without an energy is not."""
    found = sample.once(hull)
    if found is None or sample.stability is None:
        return []
    phases, energies = sample.stability.phases, sample.stability.energies
    sources = f"{len(phases.phases)} phases of {phases.source}; {energies.name}, crystals as given"
    notes = filter(None, [sources, sample.stability.mismatch(), _suspects(found), _lacking(found)])
    return [
        sample.rate(found.within(STABLE), sample.generated, gate=_gate(STABLE), note="; ".join(notes)),
        sample.rate(found.within(METASTABLE), sample.generated, gate=_gate(METASTABLE)),
    ]


@metric("energy_above_hull", "energy above hull, mean", "eV/atom")
def _mean(sample: Sample) -> list[Number]:
    found = sample.once(hull)
    if found is None:
        return []
    known = found.above[np.isfinite(found.above)]
    if len(known) == 0:
        return [Number(None, 0)]
    return [Number(float(known.mean()), len(known), bootstrap_mean(known, seed=sample.seed))]


@metric("energy_above_hull_median", "energy above hull, median", "eV/atom")
def _median(sample: Sample) -> list[Number]:
    """A few crystals with atoms on top of each other move the mean by electronvolts, and this not at all."""
    found = sample.once(hull)
    if found is None:
        return []
    known = found.above[np.isfinite(found.above)]
    return [Number(float(np.median(known)), len(known), median_interval(known)) if len(known) else Number(None, 0)]


@column("energy_above_hull", "eV/atom", kind=float)
def _above(sample: Sample) -> npt.NDArray[np.float64] | Sequence[float]:
    found = sample.once(hull)
    return [] if found is None else found.above


@column("decomposition", kind=str)
def _decomposition(sample: Sample) -> Sequence[str | None]:
    """The phases that a crystal would fall into, with their shares of the atoms."""
    found = sample.once(hull)
    return [] if found is None else found.decompositions


def _gate(threshold: float) -> str:
    return f"<= {threshold:g} eV/atom"


def _lacking(found: HullEnergies) -> str:
    if not found.reasons:
        return ""
    common = Counter(found.reasons.values()).most_common(3)
    told = ", ".join(f"{reason} ({count})" for reason, count in common)
    more = ", ..." if len(set(found.reasons.values())) > len(common) else ""
    return f"{len(found.reasons)} without energy above hull: {told}{more}"


def _suspects(found: HullEnergies) -> str:
    suspects = int(np.count_nonzero(found.above < SUSPECT))
    return f"{suspects} more than {-SUSPECT:g} eV/atom below the hull: doubt their energies" if suspects else ""
