"""Whether atoms are where atoms can be, and cells as full as cells are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dpcdvae.evaluation.crystal_columns import column
from dpcdvae.evaluation.metric import metric
from dpcdvae.evaluation.sample import Sample
from dpcdvae.intervals import Number
from dpcdvae.structures.contacts import Contacts, closest_contacts
from dpcdvae.structures.crystal import Crystal

Floats = npt.NDArray[np.float64]

CLOSE = 0.7
"""Of the covalent radii's sum: nothing is closer in 99.7 % or more of Perov-5, Carbon-24 and MP-20."""

WINDOW = (0.005, 0.995)
"""Quantiles of the reference between which a density or volume is ordinary: 99 % of the reference is."""


def contacts(sample: Sample) -> Contacts:
    """Of all its crystals: for ``sample.once``."""
    return closest_contacts(sample.crystals)


@metric("shortest_distance_ratio", "shortest distance", "radii")
def _shortest_distance_ratio(sample: Sample) -> list[Number]:
    """Of each crystal the smallest distance over the sum of the two covalent radii."""
    note = "median of the smallest distance over the sum of the two covalent radii"
    return [Number.median(_known(sample.once(contacts).ratio), note=note)]


@metric("no_close_contact", f"no distance below {CLOSE:g} radii")
def _no_close_contact(sample: Sample) -> list[Number]:
    """Share of all generated; an element without a radius has no distance to show."""
    return [Number.rate(sample.once(contacts).ratio > CLOSE, sample.generated)]


@metric("density_window", "density in window")
def _density_window(sample: Sample) -> list[Number]:
    return [_window(sample, sample.once(densities), sample.reference.densities, "g/cm^3")]


@metric("volume_window", "volume in window")
def _volume_window(sample: Sample) -> list[Number]:
    if sample.reference.crystals is None:
        return []
    return [_window(sample, sample.once(volumes_per_atom), _volumes_per_atom(sample.reference.crystals), "Å^3/atom")]


def _window(sample: Sample, values: Floats, reference: Floats, unit: str) -> Number:
    """Share of all generated between the quantiles of the reference, ends included."""
    reference = _known(reference)
    if len(reference) == 0:
        return Number(None, 0)
    low, high = np.quantile(reference, WINDOW)
    # What is at an end of the window in every description of the crystal must stay in it through round-off.
    good = (values >= low * (1 - 1e-9)) & (values <= high * (1 + 1e-9))
    return Number.rate(good, sample.generated, note=f"{low:.4g} to {high:.4g} {unit}")


@column("density", "g/cm^3")
def densities(sample: Sample) -> Floats:
    """(crystals,) NaN for what is no crystal."""
    return np.array([c.density if c.problem() is None else np.nan for c in sample.crystals], np.float64)


@column("volume_per_atom", "Å^3")
def volumes_per_atom(sample: Sample) -> Floats:
    """(crystals,) NaN for what is no crystal."""
    return _volumes_per_atom(sample.crystals)


@column("shortest_distance", "Å")
def _shortest_distance(sample: Sample) -> Floats:
    return sample.once(contacts).distance


@column("shortest_distance_ratio", "of the radii's sum")
def _ratio(sample: Sample) -> Floats:
    return sample.once(contacts).ratio


def _volumes_per_atom(crystals: Sequence[Crystal]) -> Floats:
    return np.array([c.volume / c.num_atoms if c.problem() is None else np.nan for c in crystals], np.float64)


def _known(values: Floats) -> Floats:
    return values[np.isfinite(values)]
