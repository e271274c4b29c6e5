"""How different the crystals are from one another, as CDVAE's scripts measure it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dpcdvae.evaluation.diversity import compared, mean_distances
from dpcdvae.evaluation.metric import metric
from dpcdvae.evaluation.metrics.validity import DRAWN_GATE, counted, drawn
from dpcdvae.evaluation.sample import Sample
from dpcdvae.evaluation.sample_fingerprints import fingerprints
from dpcdvae.intervals import Number, bootstrap_mean
from dpcdvae.structures.fingerprints.magpie import standardise_compositions


@metric("composition_diversity", "diversity, comp.", "fingerprint")
def _composition_diversity(sample: Sample) -> list[Number]:
    return _diversities(sample, standardise_compositions(sample.once(fingerprints).composition))


@metric("structure_diversity", "diversity, struct.", "fingerprint")
def _structure_diversity(sample: Sample) -> list[Number]:
    return _diversities(sample, sample.once(fingerprints).structure)


def _diversities(sample: Sample, rows: npt.NDArray[np.float64]) -> list[Number]:
    """Mean distance of two different crystals: of all the valid ones, and of those drawn as published."""
    chosen = {"valid": np.flatnonzero(sample.once(counted)), DRAWN_GATE: sample.once(drawn)}
    return [_diversity(sample, rows[indices], gate) for gate, indices in chosen.items()]


def _diversity(sample: Sample, rows: npt.NDArray[np.float64], gate: str) -> Number:
    chosen = compared(len(rows), sample.seed)
    n = len(chosen)
    if n < 2:
        return Number(None, 0, gate=gate)
    distances = mean_distances(rows[chosen])
    diversity = float(distances.mean())
    # A mean over pairs moves twice as much with a crystal as a mean over crystals (Hoeffding 1948).
    interval = bootstrap_mean(diversity + 2 * (distances - diversity), seed=sample.seed)
    note = f"{n} of {len(rows)} drawn" if n < len(rows) else ""
    return Number(diversity, n, interval, gate, note)
