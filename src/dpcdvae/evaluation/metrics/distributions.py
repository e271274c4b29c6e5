"""How far apart the distributions of a quantity are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from dpcdvae.evaluation.comparison_notes import joined
from dpcdvae.evaluation.distributions import POPULATION, wasserstein, wasserstein_interval
from dpcdvae.evaluation.metric import metric
from dpcdvae.evaluation.metrics.validity import DRAWN_GATE, counted, draws, over_draws, without_fingerprint
from dpcdvae.evaluation.sample import Sample
from dpcdvae.intervals import Number
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.summary import element_counts


@metric("density_wasserstein", "Wasserstein, density", "g/cm^3")
def _density_wasserstein(sample: Sample) -> list[Number]:
    return _distances(sample, np.array([_density(crystal) for crystal in sample.crystals]), sample.reference.densities)


def _density(crystal: Crystal) -> float:
    return crystal.density if crystal.problem() is None else np.nan


@metric("num_elements_wasserstein", "Wasserstein, count", "elements")
def _num_elements_wasserstein(sample: Sample) -> list[Number]:
    possible = np.array([crystal.problem() is None for crystal in sample.crystals], bool)
    counts = np.where(possible, element_counts(sample.crystals), np.nan)
    return _distances(sample, counts, sample.reference.element_counts)


def reference_energies(sample: Sample) -> npt.NDArray[np.float64]:
    """(reference,) as predicted, NaN where there is none; empty without a model or crystals."""
    model, reference = sample.energy_model, sample.reference.crystals
    if model is None or reference is None:
        return np.zeros(0)
    values, reasons = model.predict(reference)
    sample.give_up("energy of the reference", reference, reasons)
    return values


def predicted_energies(sample: Sample) -> npt.NDArray[np.float64]:
    """(measurable,) by the sample's property model, NaN where it cannot predict one; empty without a model."""
    if sample.energy_model is None:
        return np.zeros(0)
    values, reasons = sample.energy_model.predict(sample.measurable)
    sample.give_up("energy", sample.measurable, reasons)
    return values


@metric("energy_wasserstein", "Wasserstein, energy", "property")
def _energy_wasserstein(sample: Sample) -> list[Number]:
    """Both sides predicted by the same model, as in the published protocol."""
    model = sample.energy_model
    if model is None or sample.reference.crystals is None:
        return []
    ours = np.full(len(sample.crystals), np.nan)
    measurable = [k for k, crystal in enumerate(sample.crystals) if crystal.problem() is None]
    ours[measurable] = sample.once(predicted_energies)
    theirs = sample.once_for_all(reference_energies)
    numbers = _distances(sample, ours, theirs[np.isfinite(theirs)])
    return [replace(n, note=joined(f"{model.property} by {model.source}", n.note)) for n in numbers]


def _distances(sample: Sample, values: npt.NDArray[np.float64], reference: npt.NDArray[np.float64]) -> list[Number]:
    """Of a property of every crystal, NaN where it has none: of all, of the valid, and of those drawn as published."""
    lacking = without_fingerprint(sample)
    every, valid = (_distance(sample, part, reference) for part in (values, values[sample.once(counted)]))
    drawn = valid
    if len(chosen := sample.once(draws)) > 1 and len(reference):
        known = [part[np.isfinite(part)] for part in (values[indices] for indices in chosen)]
        drawn = over_draws([wasserstein(part, reference) for part in known if len(part)], min(map(len, known)))
    return [
        replace(every, gate="none"),
        replace(valid, gate="valid", undecided=lacking),
        replace(drawn, gate=DRAWN_GATE, undecided=lacking),
    ]


def _distance(sample: Sample, values: npt.NDArray[np.float64], reference: npt.NDArray[np.float64]) -> Number:
    values = values[np.isfinite(values)]
    if len(values) == 0 or len(reference) == 0:
        return Number(None, 0)
    interval = wasserstein_interval(values, reference, seed=sample.seed)
    return Number(wasserstein(values, reference), len(values), interval, note=POPULATION)
