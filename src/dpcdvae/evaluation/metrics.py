"""Every number of a report, by name: to add one, write a function of a :class:`Sample` and register it here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dpcdvae.evaluation.coverage import Nearest
from dpcdvae.evaluation.distributions import wasserstein
from dpcdvae.evaluation.intervals import bootstrap_mean, bootstrap_wasserstein
from dpcdvae.evaluation.sample import Number, Sample
from dpcdvae.evaluation.uniqueness import find_duplicates
from dpcdvae.evaluation.validity import compositionally_valid
from dpcdvae.registry import Registry
from dpcdvae.statistics import element_counts

UNIQUENESS_SAMPLE = 1000
"""Uniqueness falls with the number of crystals and costs its square: a fixed number keeps reports comparable."""


@dataclass(frozen=True)
class Metric:
    """An entry of the table: its name for people, the unit ("" for a rate), and how it is taken from a sample."""

    title: str
    unit: str
    measure: Callable[[Sample], list[Number]]


METRICS: Registry[Metric] = Registry("metric")


def metric(name: str, title: str, unit: str = "") -> Callable[[Callable[[Sample], list[Number]]], None]:
    """Decorator that files a function as the metric ``name``; a metric that does not apply gives no numbers."""

    def add(measure: Callable[[Sample], list[Number]]) -> None:
        METRICS.register(name)(Metric(title, unit, measure))

    return add


@metric("structural_validity", "structural validity")
def _structural_validity(sample: Sample) -> list[Number]:
    return [sample.rate(sample.structure_valid, sample.generated)]


@metric("compositional_validity", "compositional validity")
def _compositional_validity(sample: Sample) -> list[Number]:
    return [sample.rate(sample.composition_valid, sample.generated, note="SMACT table smact14")]


@metric("compositional_validity_icsd24", "compositional validity")
def _compositional_validity_icsd24(sample: Sample) -> list[Number]:
    """Beside the number of the published table, what a newer table says."""
    good = compositionally_valid(sample.crystals, "icsd24")
    return [sample.rate(good, sample.generated, note="SMACT table icsd24")]


@metric("validity", "validity, both")
def _validity(sample: Sample) -> list[Number]:
    return [sample.rate(sample.valid, sample.generated, note="SMACT table smact14")]


@metric("match_rate", "match rate")
def _match_rate(sample: Sample) -> list[Number]:
    """Over all ground truths, those without a prediction included."""
    if not sample.paired:
        return []
    missing = f", {sample.pairs.missing} without prediction" if sample.pairs.missing else ""
    note = f"paired by {sample.pairs.by}{missing}"
    return [
        sample.rate(np.isfinite(sample.rms) & gate, len(sample.truths), gate=name, note=note)
        for name, gate in sample.gates.items()
    ]


@metric("match_rms", "mean rms distance", "(V/N)^(1/3)")
def _match_rms(sample: Sample) -> list[Number]:
    """Over the matched pairs."""
    if not sample.paired:
        return []
    numbers = []
    for name, gate in sample.gates.items():
        rms = sample.rms[np.isfinite(sample.rms) & gate]
        value, interval = (float(rms.mean()), bootstrap_mean(rms, seed=sample.seed)) if len(rms) else (None, None)
        numbers.append(Number(value, len(rms), interval, name))
    return numbers


@metric("density_wasserstein", "Wasserstein, density", "g/cm^3")
def _density_wasserstein(sample: Sample) -> list[Number]:
    values = np.array([crystal.density for crystal in sample.measurable])
    return _distances(sample, values, sample.reference.densities)


@metric("num_elements_wasserstein", "Wasserstein, elements", "elements")
def _num_elements_wasserstein(sample: Sample) -> list[Number]:
    return _distances(sample, element_counts(sample.measurable), sample.reference.element_counts)


@metric("energy_wasserstein", "Wasserstein, energy", "unit of the property")
def _energy_wasserstein(sample: Sample) -> list[Number]:
    """Both sides predicted by the same model, as in the published protocol."""
    model, reference = sample.energy_model, sample.reference.crystals
    if model is None or reference is None:
        return []
    ours, reasons = model.predict(sample.measurable)
    sample.give_up("energy", {sample.measurable[k].id: reason for k, reason in reasons.items()})
    theirs, reasons = model.predict(reference)
    sample.give_up("energy of the reference", {reference[k].id: reason for k, reason in reasons.items()})
    numbers = _distances(sample, ours, theirs[np.isfinite(theirs)])
    return [replace(number, note=f"{model.property} by {model.source}, {number.note}") for number in numbers]


def _distances(sample: Sample, values: npt.NDArray[np.float64], reference: npt.NDArray[np.float64]) -> list[Number]:
    """Of the property ``values`` of every measurable crystal, NaN left out; and of the valid ones, as published."""
    known = np.isfinite(values)
    gates = {"none": known, "valid": known & sample.measurable_valid}
    return [replace(_distance(sample, values[good], reference), gate=gate) for gate, good in gates.items()]


def _distance(sample: Sample, values: npt.NDArray[np.float64], reference: npt.NDArray[np.float64]) -> Number:
    note = f"reference n = {len(reference)}"
    if len(values) == 0 or len(reference) == 0:
        return Number(None, 0, note=note)
    distance = wasserstein(values, reference)
    interval = bootstrap_wasserstein(values, reference, distance, seed=sample.seed)
    return Number(distance, len(values), interval, note=note)


@metric("uniqueness", "uniqueness")
def _uniqueness(sample: Sample) -> list[Number]:
    """Among the crystals that there are: one that could not be built is neither new nor a duplicate."""
    crystals = sample.measurable[:UNIQUENESS_SAMPLE]
    found = find_duplicates(crystals, workers=sample.workers, time_limit=sample.time_limit)
    sample.give_up("uniqueness", {crystals[k].id: reason for k, reason in found.cut.items()})
    note = f"first {len(crystals)}" if len(crystals) < len(sample.measurable) else ""
    return [sample.rate(~found.duplicate, len(crystals), note=note)]


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


@metric("structure_distance_recall", "structure distance, recall", "fingerprint (AMSD-R)")
def _structure_distance_recall(sample: Sample) -> list[Number]:
    return [] if sample.coverage is None else [_mean_distance(sample, sample.coverage.recall.structure)]


@metric("structure_distance_precision", "structure distance, precision", "fingerprint (AMSD-P)")
def _structure_distance_precision(sample: Sample) -> list[Number]:
    return [] if sample.coverage is None else [_mean_distance(sample, sample.coverage.precision.structure)]


@metric("composition_distance_recall", "composition distance, recall", "fingerprint (AMCD-R)")
def _composition_distance_recall(sample: Sample) -> list[Number]:
    return [] if sample.coverage is None else [_mean_distance(sample, sample.coverage.recall.composition)]


@metric("composition_distance_precision", "composition distance, precision", "fingerprint (AMCD-P)")
def _composition_distance_precision(sample: Sample) -> list[Number]:
    return [] if sample.coverage is None else [_mean_distance(sample, sample.coverage.precision.composition)]


def _mean_distance(sample: Sample, distances: npt.NDArray[np.float64]) -> Number:
    """To the nearest crystal of the other set."""
    values = distances[np.isfinite(distances)]
    if len(values) == 0:
        return Number(None, 0)
    return Number(float(values.mean()), len(values), bootstrap_mean(values, seed=sample.seed))
