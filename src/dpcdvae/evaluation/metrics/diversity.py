"""How different the crystals are from one another, as CDVAE's scripts measure it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from dpcdvae.evaluation.diversity import compared, mean_distances
from dpcdvae.evaluation.metric import metric
from dpcdvae.evaluation.metrics.validity import DRAWN_GATE, counted, draws, over_draws, without_fingerprint
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
    valid, lacking = _diversity(sample, rows[sample.once(counted)]), without_fingerprint(sample)
    drawn = valid
    if len(chosen := sample.once(draws)) > 1:
        drawn = over_draws([float(mean_distances(rows[some]).mean()) for some in chosen], len(chosen[0]))
    return [replace(valid, gate="valid", undecided=lacking), replace(drawn, gate=DRAWN_GATE, undecided=lacking)]


def _diversity(sample: Sample, rows: npt.NDArray[np.float64]) -> Number:
    chosen = compared(len(rows), sample.seed)
    n = len(chosen)
    if n < 2:
        return Number(None, 0)
    distances = mean_distances(rows[chosen])
    diversity = float(distances.mean())
    # A mean over pairs moves twice as much with a crystal as a mean over crystals (Hoeffding 1948).
    interval = bootstrap_mean(diversity + 2 * (distances - diversity), seed=sample.seed)
    note = f"{n} of {len(rows)} drawn" if n < len(rows) else ""
    return Number(diversity, n, interval, note=note)
