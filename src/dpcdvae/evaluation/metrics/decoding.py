"""What a generative model says of its own crystals, for the table of crystals. No metric: only its files hold it."""

from __future__ import annotations

from dpcdvae.evaluation.crystal_columns import column
from dpcdvae.evaluation.sample import Sample
from dpcdvae.structures.crystal import CANDIDATES, LATENT_DISTANCE


@column("latent_distance")
def _latent_distance(sample: Sample) -> list[float | None]:
    """How far the encoding of the crystal lies from the latent it was decoded from, in standard deviations."""
    return _property(sample, LATENT_DISTANCE)


@column("candidates", kind=int)
def _candidates(sample: Sample) -> list[float | None]:
    """Decodes that were made of its latent."""
    return _property(sample, CANDIDATES)


def _property(sample: Sample, name: str) -> list[float | None]:
    """Nothing at all where no crystal carries it."""
    values = [crystal.properties.get(name) for crystal in sample.crystals]
    return values if any(value is not None for value in values) else []
