"""Crystals of a table encoded, batch by batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dpcdvae.ftcp.model import FTCP
from dpcdvae.interfaces import LatentPosterior
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.sampling.decoding import evaluating
from dpcdvae.sampling.shards import BATCH_SIZE
from dpcdvae.structures.table import CrystalTable
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.noise import CrystalRandom


def drawn(posterior: LatentPosterior, random: CrystalRandom, spread: float = 1.0) -> Tensor:
    """z = μ + ``spread`` σ ε with ε ~ N(0, I) (Eq. 8), a row for each crystal of ``random``."""
    mu, log_var = posterior
    return mu + spread * torch.exp(0.5 * log_var) * random.normal("latent", mu.shape[1]).to(mu)


@torch.no_grad()
def encoded(model: CDVAE | FTCP, table: CrystalTable, *, batch_size: int = BATCH_SIZE) -> LatentPosterior:
    """The posterior of every crystal of a table with bonds, on the model's device."""
    empty = torch.zeros((0, model.config.model.latent_dim), dtype=model.dtype, device=model.device)
    parts = [(empty, empty)]
    with evaluating(model):
        for start in range(0, len(table), batch_size):
            indices = np.arange(start, min(start + batch_size, len(table)))
            parts.append(model.encode(CrystalBatch.from_table(table, indices, model.dtype).to(model.device)))
    return LatentPosterior(*(torch.cat(values) for values in zip(*parts, strict=True)))
