"""Generation and reconstruction with FTCP: one pass of the decoder for each crystal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpcdvae.config import FTCPConfig
from dpcdvae.ftcp.model import FTCP
from dpcdvae.ftcp.representation import unrepresented
from dpcdvae.io import Failure
from dpcdvae.progress import Progress
from dpcdvae.sampling.decoding import evaluating
from dpcdvae.sampling.decoding_settings import check_some
from dpcdvae.sampling.encoding import drawn
from dpcdvae.sampling.finished_batches import GenerationResult
from dpcdvae.sampling.numbered_batches import OnProgress, numbered_batches
from dpcdvae.sampling.shards import BATCH_SIZE
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.table import CrystalTable
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.noise import CrystalRandom


def generate(
    model: FTCP,
    n: int,
    *,
    seed: int = 0,
    prior: str | None = None,
    first: int = 0,
    batch_size: int = BATCH_SIZE,
    on_progress: OnProgress | None = None,
) -> GenerationResult:
    """New crystals number ``first`` .. ``first + n - 1`` of this seed, from z of the model's prior.

    Args:
        prior: "normal" for z ~ N(0, I); by default the model's own.
        batch_size, on_progress: see :func:`dpcdvae.sampling.generation.generate`.

    Raises:
        InputError: a prior that it does not have, less than 1 in a batch.
    """
    latents, latent_dim = model.latent_prior(prior), model.config.model.latent_dim

    def batches() -> Iterator[tuple[Tensor, list[str]]]:
        for _, random, ids in numbered_batches(seed, first, n, batch_size, model.device):
            yield latents(random.normal("latent", latent_dim).to(model.dtype)), ids

    return _decoded(model, batches, n, "generating", on_progress)


def reconstruct(
    model: FTCP,
    table: CrystalTable,
    *,
    seed: int = 0,
    sample_latent: bool = False,
    first: int = 0,
    batch_size: int = BATCH_SIZE,
    on_progress: OnProgress | None = None,
) -> GenerationResult:
    """The crystals of ``table`` encoded and decoded again, under their own ids.

    Args:
        sample_latent: z drawn from the encoder's distribution, as in the public code, instead of its mean.
        first: number of the first crystal, by which it gets its noise, where ``table`` is a part of another.
        batch_size, on_progress: see :func:`dpcdvae.sampling.generation.generate`.

    Raises:
        InputError: no crystals, or one that the representation cannot hold.
    """
    check_some(table)

    def batches() -> Iterator[tuple[Tensor, list[str]]]:
        for start in range(0, len(table), batch_size):
            indices = np.arange(start, min(start + batch_size, len(table)))
            posterior = model.encode(CrystalBatch.from_table(table, indices, model.dtype).to(model.device))
            random = CrystalRandom(seed, torch.from_numpy(indices + first).to(model.device))
            yield (
                drawn(posterior, random) if sample_latent else posterior.mu,
                [str(name) for name in table.ids[indices]],
            )

    return _decoded(model, batches, len(table), "reconstructing", on_progress)


def misfits(config: FTCPConfig, table: CrystalTable, options: Mapping[str, Any]) -> dict[int, str]:
    """What of the crystals (by row) the representation has no room for, the largest first."""
    return unrepresented(config, torch.from_numpy(table.num_atoms), torch.from_numpy(table.atomic_numbers))


@torch.inference_mode()
def _decoded(
    model: FTCP,
    batches: Callable[[], Iterator[tuple[Tensor, Sequence[str]]]],
    total: int,
    description: str,
    on_progress: OnProgress | None,
) -> GenerationResult:
    """Crystals of all z (C, latent_dim) with their ids; ``batches`` is called with the model in evaluation mode."""
    results: list[Crystal | Failure] = []
    with evaluating(model), Progress(description, total=total) as bar:
        for z, ids in batches():
            results += model.crystals(z, ids)
            if on_progress is None:
                bar.advance(len(ids))
            else:
                on_progress(len(results))
    return GenerationResult.of(results, total)
