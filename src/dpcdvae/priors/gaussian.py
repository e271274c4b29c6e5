"""One normal distribution with the mean and the whole covariance of the latents of the training set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dpcdvae.interfaces import LatentPosterior, LatentPrior
from dpcdvae.nn.whitening import Whitening
from dpcdvae.registry import NoOptions, build_options


class GaussianPrior(LatentPrior):
    def __init__(self, latent_dim: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        build_options(NoOptions, options, "gaussian")
        self.whitening = Whitening(latent_dim)

    @property
    def fitted(self) -> bool:
        return self.whitening.fitted

    def fit(self, train: LatentPosterior, val: LatentPosterior, seed: int) -> None:
        self.whitening.fit(*train)

    def forward(self, noise: Tensor) -> Tensor:
        return self.whitening.colour(noise)
