"""Interpolation: crystals on the straight line between the latents of two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from dpcdvae.arguments import checked
from dpcdvae.errors import InputError
from dpcdvae.io import CrystalsLike, as_crystals
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.sampling.decoding import Request
from dpcdvae.sampling.decoding_settings import Decoding, check_counts
from dpcdvae.sampling.finished_batches import GenerationResult
from dpcdvae.sampling.generation import decode_all
from dpcdvae.sampling.search import encoded_start, predict_from_latents
from dpcdvae.sampling.shards import BATCH_SIZE
from dpcdvae.structures.crystal import PREDICTED
from dpcdvae.structures.table import CrystalTable
from dpcdvae.tensors.noise import CrystalRandom


def latents_between(first: Tensor, last: Tensor, n: int) -> Tensor:
    """(n, latent_dim) equally spaced points of the line from ``first`` (latent_dim,) to ``last``, both included."""
    if n < 2:
        raise InputError(f"-n must be at least 2, the two ends, not {n}")
    return torch.lerp(first, last, torch.linspace(0, 1, n, dtype=first.dtype, device=first.device)[:, None])


@checked
def interpolate(
    model: CDVAE,
    ends: CrystalTable | CrystalsLike,
    n: int,
    *,
    seed: int = 0,
    steps: int | None = None,
    solver: str | None = None,
    candidates: int | None = None,
    batch_size: int = BATCH_SIZE,
) -> GenerationResult:
    """n crystals from the first to the second of the two ``ends``, whose bonds are found if they are no table.

    All get the same noise, that of crystal 0 of this seed, so that only z changes: the ends are what ``reconstruct``
    makes of either crystal alone. Crystals have ids ``{first id}-{last id}@{k}``, the property ``fraction`` of the
    way, and ``predicted_<name>`` where the model has a property head.

    Example:
        >>> path = dpcdvae.interpolate(model, ["a.cif", "b.cif"], 8)

    Args:
        steps: as of :func:`~dpcdvae.sampling.generation.generate`, like ``solver`` and ``candidates``.

    Raises:
        InputError: not two crystals, crystals without bonds, n < 2, steps or a solver that the model does
            not have.
    """
    check_counts(n=n, seed=seed, batch_size=batch_size)
    ends = ends if isinstance(ends, CrystalTable) else as_crystals(ends)
    if len(ends) != 2:
        raise InputError(f"interpolation goes between two crystals, not {len(ends)}")
    how = Decoding.of(model.config, steps, solver, candidates)
    start = encoded_start(model, ends, batch_size=1)
    z = latents_between(start.z[0], start.z[1], n)
    ids = [f"{start.ids[0]}-{start.ids[1]}@{k}" for k in range(n)]

    def requests() -> Iterator[Request]:
        for k in range(0, n, batch_size):
            part = z[k : k + batch_size]
            numbers = torch.zeros(len(part), dtype=torch.int64, device=model.device)
            yield Request(part, CrystalRandom(seed, numbers), ids[k : k + batch_size])

    result = decode_all(model, requests, n, how, "interpolating")
    known = {id: {"fraction": k / (n - 1)} for k, id in enumerate(ids)}
    if model.property_head is not None:
        for id, value in zip(ids, predict_from_latents(model, z).tolist(), strict=True):
            known[id][f"{PREDICTED}{model.target}"] = value
    crystals = [replace(crystal, properties={**crystal.properties, **known[crystal.id]}) for crystal in result.crystals]
    return replace(result, crystals=crystals)
