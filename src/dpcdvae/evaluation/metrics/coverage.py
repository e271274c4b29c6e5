"""How much of the reference is near the generated crystals, and the other way round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from dpcdvae.datasets import DATASETS
from dpcdvae.evaluation.comparison_notes import THESE_CRYSTALS, joined
from dpcdvae.evaluation.coverage import DEFAULT_CUTOFFS, Coverage, Cutoffs, Nearest, coverage
from dpcdvae.evaluation.crystal_columns import column
from dpcdvae.evaluation.metric import metric
from dpcdvae.evaluation.sample import Sample
from dpcdvae.evaluation.sample_fingerprints import fingerprints, reference_fingerprints
from dpcdvae.intervals import Number


def cutoffs(sample: Sample) -> tuple[Cutoffs, str]:
    """The cut-offs of structure and composition, and whose they are."""
    if sample.cutoffs is not None:
        return sample.cutoffs, "as given"
    name = sample.reference.dataset
    known = DATASETS[name].coverage_cutoffs if name in DATASETS else None
    return (DEFAULT_CUTOFFS, "of mp_20, as the reference has none") if known is None else (known, f"of {name}")


def found_coverage(sample: Sample) -> Coverage | None:
    """None where the reference has no crystals: for ``sample.once``."""
    if sample.reference.crystals is None:
        return None
    return coverage(sample.once(fingerprints), sample.once_for_all(reference_fingerprints))


@metric("coverage_recall", "coverage, recall (COV-R)")
def _coverage_recall(sample: Sample) -> list[Number]:
    """Share of the reference near a generated crystal."""
    found = sample.once(found_coverage)
    return [] if found is None else [_covered(sample, found.recall, sample.reference.count, THESE_CRYSTALS)]


@metric("coverage_precision", "coverage, precision (COV-P)")
def _coverage_precision(sample: Sample) -> list[Number]:
    """Share of all generated crystals near one of the reference."""
    found = sample.once(found_coverage)
    return [] if found is None else [_covered(sample, found.precision, sample.generated)]


def _covered(sample: Sample, found: Nearest, total: int, mark: str = "") -> Number:
    limits, whose = cutoffs(sample)
    note = joined(f"cut-offs {limits[0]:g}, {limits[1]:g} {whose}", mark)
    return Number.rate(found.covered(limits), total, note=note, undecided=_lacking(found))


def _lacking(found: Nearest) -> int:
    """Crystals without fingerprint."""
    return int(np.isnan(found.structure).sum())


@metric("structure_distance_recall", "AMSD, recall", "fingerprint")
def _structure_distance_recall(sample: Sample) -> list[Number]:
    found = sample.once(found_coverage)
    return [] if found is None else [_mean_distance(sample, found.recall, "structure", THESE_CRYSTALS)]


@metric("structure_distance_precision", "AMSD, precision", "fingerprint")
def _structure_distance_precision(sample: Sample) -> list[Number]:
    found = sample.once(found_coverage)
    return [] if found is None else [_mean_distance(sample, found.precision, "structure")]


@metric("composition_distance_recall", "AMCD, recall", "fingerprint")
def _composition_distance_recall(sample: Sample) -> list[Number]:
    found = sample.once(found_coverage)
    return [] if found is None else [_mean_distance(sample, found.recall, "composition", THESE_CRYSTALS)]


@metric("composition_distance_precision", "AMCD, precision", "fingerprint")
def _composition_distance_precision(sample: Sample) -> list[Number]:
    found = sample.once(found_coverage)
    return [] if found is None else [_mean_distance(sample, found.precision, "composition")]


def _mean_distance(sample: Sample, found: Nearest, of: str, mark: str = "") -> Number:
    """To the nearest crystal of the other set."""
    distances: npt.NDArray[np.float64] = getattr(found, of)
    number = Number.mean(distances[np.isfinite(distances)], seed=sample.seed, note=mark)
    return replace(number, undecided=_lacking(found))


@column("nearest_structure", "fingerprint distance")
def _nearest_structure(sample: Sample) -> Sequence[float] | npt.NDArray[np.float64]:
    """To the nearest structure of the reference."""
    found = sample.once(found_coverage)
    return [] if found is None else found.precision.structure


@column("nearest_composition", "fingerprint distance")
def _nearest_composition(sample: Sample) -> Sequence[float] | npt.NDArray[np.float64]:
    found = sample.once(found_coverage)
    return [] if found is None else found.precision.composition


@column("covered", kind=bool)
def _is_covered(sample: Sample) -> Sequence[bool] | npt.NDArray[np.bool_]:
    """Whether both are within the cut-offs."""
    found = sample.once(found_coverage)
    return [] if found is None else found.precision.covered(cutoffs(sample)[0])
