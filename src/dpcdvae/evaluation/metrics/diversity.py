"""How different the crystals are from one another, as CDVAE's scripts measure it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dpcdvae.evaluation.diversity import compared, mean_distances
from dpcdvae.evaluation.metric import metric
from dpcdvae.evaluation.sample import DRAWN_GATE, Number, Sample
from dpcdvae.intervals import bootstrap_mean
from dpcdvae.structures.fingerprints.magpie import standardise_compositions


@metric("composition_diversity", "diversity, comp.", "fingerprint")
def _composition_diversity(sample: Sample) -> list[Number]:
    return _diversities(sample, standardise_compositions(sample.fingerprints.composition))


@metric("structure_diversity", "diversity, struct.", "fingerprint")
def _structure_diversity(sample: Sample) -> list[Number]:
    return _diversities(sample, sample.fingerprints.structure)


def _diversities(sample: Sample, fingerprints: npt.NDArray[np.float64]) -> list[Number]:
    """Mean distance of two different crystals: of all the valid ones, and of those drawn as published."""
    chosen = {"valid": np.flatnonzero(sample.counted), DRAWN_GATE: sample.drawn}
    return [_diversity(sample, fingerprints[indices], gate) for gate, indices in chosen.items()]


def _diversity(sample: Sample, fingerprints: npt.NDArray[np.float64], gate: str) -> Number:
    chosen = compared(len(fingerprints), sample.seed)
    n = len(chosen)
    if n < 2:
        return Number(None, 0, gate=gate)
    distances = mean_distances(fingerprints[chosen])
    diversity = float(distances.mean())
    # A mean over pairs moves twice as much with a crystal as a mean over crystals (Hoeffding 1948).
    interval = bootstrap_mean(diversity + 2 * (distances - diversity), seed=sample.seed)
    note = f"{n} of {len(fingerprints)} drawn" if n < len(fingerprints) else ""
    return Number(diversity, n, interval, gate, note)
