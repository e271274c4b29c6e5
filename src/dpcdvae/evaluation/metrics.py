"""Every number of a report, by name: to add one, write a function of a :class:`Sample` and register it here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dpcdvae.crystal import Crystal
from dpcdvae.datasets import DATASETS
from dpcdvae.errors import InputError
from dpcdvae.evaluation.coverage import DEFAULT_CUTOFFS, Coverage, Cutoffs, Nearest, coverage
from dpcdvae.evaluation.distributions import wasserstein
from dpcdvae.evaluation.energy import EnergyModel
from dpcdvae.evaluation.fingerprint_cache import default_cache
from dpcdvae.evaluation.fingerprints import Fingerprints, fingerprint_crystals
from dpcdvae.evaluation.intervals import Interval, bootstrap_mean, bootstrap_wasserstein, wilson
from dpcdvae.evaluation.matching import Pairs, match_pairs, pair
from dpcdvae.evaluation.reference import Reference
from dpcdvae.evaluation.uniqueness import find_duplicates
from dpcdvae.evaluation.validity import compositionally_valid, structurally_valid
from dpcdvae.io import Failure
from dpcdvae.registry import Registry
from dpcdvae.statistics import element_counts

UNIQUENESS_SAMPLE = 1000
"""Uniqueness falls with the number of crystals and costs its square: a fixed number keeps reports comparable."""


@dataclass(frozen=True)
class Number:
    """One value of a metric, with what is needed to trust it.

    Attributes:
        value: None where there is nothing to take it from (no crystal, no match).
        n: crystals (or pairs) behind it.
        interval: 95 %, where one makes sense.
        gate: which crystals count, for metrics that exist under several conditions.
        note: what a reader must know to compare it.
    """

    value: float | None
    n: int
    interval: Interval | None = None
    gate: str = ""
    note: str = ""


@dataclass
class Sample:
    """The crystals under judgement, with what several metrics need, computed once and on demand.

    Attributes:
        crystals: those that could be read; they may hold NaN or have no volume.
        failures: those that could not; every rate counts them as not fulfilling it.
        given_up: filled by the metrics: which comparison was cut off, and why.
        energy_model: where energies are asked for; the reference needs crystals then.
        cutoffs: of the coverage, where they are not to be those of the data set.
        cache: folder of fingerprints.
    """

    crystals: Sequence[Crystal]
    failures: Sequence[Failure]
    reference: Reference
    paired: bool
    workers: int
    seed: int
    time_limit: float
    given_up: list[dict[str, str]] = field(default_factory=list)
    cutoffs: Cutoffs | None = None
    energy_model: EnergyModel | None = None
    cache: Path = field(default_factory=default_cache)

    @property
    def generated(self) -> int:
        return len(self.crystals) + len(self.failures)

    @cached_property
    def measurable(self) -> list[Crystal]:
        """Crystals with finite coordinates and a volume: only those have a density."""
        return [crystal for crystal in self.crystals if crystal.problem() is None]

    @cached_property
    def structure_valid(self) -> npt.NDArray[np.bool_]:
        return structurally_valid(self.crystals)

    @cached_property
    def composition_valid(self) -> npt.NDArray[np.bool_]:
        return compositionally_valid(self.crystals)

    @cached_property
    def valid(self) -> npt.NDArray[np.bool_]:
        return self.structure_valid & self.composition_valid

    @cached_property
    def truths(self) -> Sequence[Crystal]:
        if self.reference.crystals is None:
            raise InputError(
                f"paired evaluation needs the crystals of the reference, and {self.reference.source} "
                "has statistics only: give a data set or a file"
            )
        return self.reference.crystals

    @cached_property
    def pairs(self) -> Pairs:
        return pair(self.crystals, self.truths, [failure.id for failure in self.failures])

    @cached_property
    def truth_valid(self) -> npt.NDArray[np.bool_]:
        """Validity of the ground truth of each pair."""
        truths = [self.truths[k] for k in self.pairs.truths]
        return structurally_valid(truths) & compositionally_valid(truths)

    @cached_property
    def rms(self) -> npt.NDArray[np.float64]:
        """(pairs,) normalised rms distance, NaN where prediction and ground truth do not match."""
        predictions = [self.crystals[k] for k in self.pairs.predictions]
        truths = [self.truths[k] for k in self.pairs.truths]
        matches = match_pairs(predictions, truths, workers=self.workers, time_limit=self.time_limit)
        self.give_up("matching", {predictions[k].id: reason for k, reason in matches.cut.items()})
        return matches.rms

    @cached_property
    def gates(self) -> dict[str, npt.NDArray[np.bool_]]:
        """(pairs,) which pairs may count: all (recent papers), prediction valid (CDVAE), both valid (DiffCSP)."""
        prediction = self.valid[self.pairs.predictions]
        return {
            "none": np.ones(len(prediction), bool),
            "prediction valid": prediction,
            "both valid": prediction & self.truth_valid,
        }

    @cached_property
    def coverage_cutoffs(self) -> tuple[Cutoffs, str]:
        """The cut-offs, and whose they are."""
        if self.cutoffs is not None:
            return self.cutoffs, "as given"
        name = self.reference.dataset
        known = DATASETS[name].coverage_cutoffs if name in DATASETS else None
        return (DEFAULT_CUTOFFS, "of mp_20, as the reference has none") if known is None else (known, f"of {name}")

    @cached_property
    def coverage(self) -> Coverage | None:
        """None where the reference has no crystals."""
        if self.reference.crystals is None:
            return None
        ours = self._fingerprints("fingerprint", self.crystals)
        return coverage(ours, self._fingerprints("fingerprint of the reference", self.reference.crystals))

    def _fingerprints(self, what: str, crystals: Sequence[Crystal]) -> Fingerprints:
        found = fingerprint_crystals(crystals, workers=self.workers, time_limit=self.time_limit, cache=self.cache)
        self.give_up(what, {crystals[k].id: reason for k, reason in found.reasons.items()})
        return found

    def give_up(self, what: str, reasons: dict[str, str]) -> None:
        self.given_up += [{"what": what, "id": id, "reason": reason} for id, reason in reasons.items()]

    def rate(self, good: npt.NDArray[np.bool_], total: int, *, gate: str = "", note: str = "") -> Number:
        successes = int(good.sum())
        value, interval = (successes / total, wilson(successes, total)) if total else (None, None)
        return Number(value, total, interval, gate, note)


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
    return [_distance(sample, values, sample.reference.densities)]


@metric("num_elements_wasserstein", "Wasserstein, elements", "elements")
def _num_elements_wasserstein(sample: Sample) -> list[Number]:
    return [_distance(sample, element_counts(sample.measurable), sample.reference.element_counts)]


@metric("energy_wasserstein", "Wasserstein, energy", "eV, as the column")
def _energy_wasserstein(sample: Sample) -> list[Number]:
    """Both sides predicted by the same model, as in the published protocol."""
    model, reference = sample.energy_model, sample.reference.crystals
    if model is None or reference is None:
        return []
    ours, reasons = model.predict(sample.measurable)
    sample.give_up("energy", {sample.measurable[k].id: reason for k, reason in reasons.items()})
    theirs, reasons = model.predict(reference)
    sample.give_up("energy of the reference", {reference[k].id: reason for k, reason in reasons.items()})
    number = _distance(sample, ours[np.isfinite(ours)], theirs[np.isfinite(theirs)])
    return [replace(number, note=f"{model.property} by {model.source}, {number.note}")]


def _distance(sample: Sample, values: npt.NDArray[np.float64], reference: npt.NDArray[np.float64]) -> Number:
    note = f"reference n = {len(reference)}"
    if len(values) == 0:
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
