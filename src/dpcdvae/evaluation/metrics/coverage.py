"""How much of the reference is near the generated crystals, and the other way round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dpcdvae.evaluation.columns import column
from dpcdvae.evaluation.coverage import Nearest
from dpcdvae.evaluation.metric import metric
from dpcdvae.evaluation.sample import Number, Sample
from dpcdvae.intervals import bootstrap_mean


@metric("coverage_recall", "coverage, recall (COV-R)")
def _coverage_recall(sample: Sample) -> list[Number]:
    """Share of the reference near a generated crystal."""
    if sample.coverage is None:
        return []
    return [_covered(sample, sample.coverage.recall, sample.reference.count)]


@metric("coverage_precision", "coverage, precision (COV-P)")
def _coverage_precision(sample: Sample) -> list[Number]:
    """Share of all generated crystals near one of the reference."""
    if sample.coverage is None:
        return []
    return [_covered(sample, sample.coverage.precision, sample.generated)]


def _covered(sample: Sample, found: Nearest, total: int) -> Number:
    cutoffs, whose = sample.coverage_cutoffs
    lacking = int(np.isnan(found.structure).sum())
    without = f", {lacking} without fingerprint" if lacking else ""
    return sample.rate(found.covered(cutoffs), total, note=f"cut-offs {cutoffs[0]:g}, {cutoffs[1]:g} {whose}{without}")


@metric("structure_distance_recall", "AMSD, recall", "fingerprint")
def _structure_distance_recall(sample: Sample) -> list[Number]:
    return [] if sample.coverage is None else [_mean_distance(sample, sample.coverage.recall.structure)]


@metric("structure_distance_precision", "AMSD, precision", "fingerprint")
def _structure_distance_precision(sample: Sample) -> list[Number]:
    return [] if sample.coverage is None else [_mean_distance(sample, sample.coverage.precision.structure)]


@metric("composition_distance_recall", "AMCD, recall", "fingerprint")
def _composition_distance_recall(sample: Sample) -> list[Number]:
    return [] if sample.coverage is None else [_mean_distance(sample, sample.coverage.recall.composition)]


@metric("composition_distance_precision", "AMCD, precision", "fingerprint")
def _composition_distance_precision(sample: Sample) -> list[Number]:
    return [] if sample.coverage is None else [_mean_distance(sample, sample.coverage.precision.composition)]


def _mean_distance(sample: Sample, distances: npt.NDArray[np.float64]) -> Number:
    """To the nearest crystal of the other set."""
    values = distances[np.isfinite(distances)]
    if len(values) == 0:
        return Number(None, 0)
    return Number(float(values.mean()), len(values), bootstrap_mean(values, seed=sample.seed))


@column("nearest_structure", "fingerprint distance")
def _nearest_structure(sample: Sample) -> Sequence[float] | npt.NDArray[np.float64]:
    """To the nearest structure of the reference."""
    return [] if sample.coverage is None else sample.coverage.precision.structure


@column("nearest_composition", "fingerprint distance")
def _nearest_composition(sample: Sample) -> Sequence[float] | npt.NDArray[np.float64]:
    return [] if sample.coverage is None else sample.coverage.precision.composition


@column("covered", kind=bool)
def _is_covered(sample: Sample) -> Sequence[bool] | npt.NDArray[np.bool_]:
    """Whether both are within the cut-offs."""
    return [] if sample.coverage is None else sample.coverage.precision.covered(sample.coverage_cutoffs[0])
