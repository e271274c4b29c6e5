"""Whitening: vectors to vectors of mean 0 and unit covariance, and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Whitening(nn.Module):
    """A change of basis by the mean and the covariance of z ~ N(μ_k, σ_k²), k over many crystals.

    The covariance is that of the means, plus the mean of the variances, so it is never singular. ``signal`` (dim,) is
    for each whitened direction the square root of the share of its variance that comes from the means: 1 where the
    crystals differ, 0 where there is only the noise of their posteriors.
    """

    mean: Tensor
    basis: Tensor
    signal: Tensor
    is_fitted: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("basis", torch.eye(dim))
        self.register_buffer("signal", torch.ones(dim))
        self.register_buffer("is_fitted", torch.zeros((), dtype=torch.bool))

    @property
    def fitted(self) -> bool:
        return bool(self.is_fitted)

    @torch.no_grad()
    def fit(self, mu: Tensor, log_var: Tensor) -> None:
        """Measures mean and covariance; ``mu`` and ``log_var`` are (n, dim)."""
        mu, variance = mu.double(), log_var.double().exp()
        covariance = torch.cov(mu.T, correction=0).reshape(mu.shape[1], -1) + variance.mean(0).diag()
        values, vectors = torch.linalg.eigh(covariance)
        values = values.clamp(min=1e-12)
        noise = vectors.square().T @ variance.mean(0)
        self.mean.copy_(mu.mean(0))
        self.basis.copy_(vectors * values.sqrt())  # columns: directions times their spread
        self.signal.copy_((1 - noise / values).clamp(min=0).sqrt())
        self.is_fitted.fill_(True)

    def colour(self, white: Tensor) -> Tensor:
        """Vectors (..., dim) with the covariance of the latents, from vectors of unit covariance."""
        return self.mean + white @ self.basis.T

    def whiten(self, z: Tensor) -> Tensor:
        """Vectors (..., dim) of unit covariance, from latents: the inverse of :meth:`colour`."""
        white: Tensor = torch.linalg.solve(self.basis, (z - self.mean).reshape(-1, z.shape[-1]).T).T.reshape(z.shape)
        return white
