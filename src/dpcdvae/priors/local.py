"""The local prior: the latent of a training crystal, moved by a little noise (FTCP's "local perturbation")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dpcdvae.config.fields import read_options
from dpcdvae.config.options import LocalOptions
from dpcdvae.interfaces import LatentPosterior, LatentPrior
from dpcdvae.priors.components import choose


class LocalPrior(LatentPrior):
    """z = μ of one of the training crystals that are kept, plus spread · N(0, I): its crystals lie near theirs."""

    points: Tensor
    kept: Tensor

    def __init__(self, latent_dim: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.options = read_options(LocalOptions, options, "local")
        self.register_buffer("points", torch.zeros(self.options.points, latent_dim))
        self.register_buffer("kept", torch.zeros((), dtype=torch.int64))  # of the points, in smaller training sets

    @property
    def fitted(self) -> bool:
        return bool(self.kept)

    def problem(self) -> str | None:
        kept = int(self.kept)
        return None if 0 <= kept <= len(self.points) else f"prior.kept is {kept}, of {len(self.points)} points"

    @torch.no_grad()
    def fit(self, train: LatentPosterior, val: LatentPosterior, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(train.mu), generator=generator)[: len(self.points)]
        self.points.zero_()
        self.points[: len(chosen)] = train.mu[chosen.to(train.mu.device)].to(self.points)
        self.kept.fill_(len(chosen))

    def forward(self, noise: Tensor) -> Tensor:
        flat = noise.reshape(-1, noise.shape[-1])
        component, fresh = choose(flat, torch.ones(int(self.kept), device=noise.device))
        return (self.points[component] + self.options.spread * fresh).reshape(noise.shape)
