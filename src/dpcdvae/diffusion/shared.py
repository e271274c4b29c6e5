"""Functions that several diffusions share."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from dpcdvae.tensors.batch import CrystalBatch


def even_strides(timesteps: int, steps: int) -> list[tuple[int, int]]:
    """Pairs (level, next level) from ``timesteps`` to 0 in strides as even as integers allow."""
    edges = [round(timesteps * k / steps) for k in range(steps, -1, -1)]
    return list(pairwise(edges))


def without_mean(batch: CrystalBatch, vectors: Tensor) -> Tensor:
    """Vectors (N, 3) less each crystal's mean: a crystal moved as a whole is the same crystal."""
    return vectors - batch.per_atom(batch.mean_over_atoms(vectors))
