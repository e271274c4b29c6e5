"""The Gaussian prior: one normal distribution with the mean and the covariance of the training set's latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dpcdvae.config.fields import read_options
from dpcdvae.config.options import NoOptions
from dpcdvae.interfaces import LatentPosterior, LatentPrior
from dpcdvae.nn.whitening import Whitening


class GaussianPrior(LatentPrior):
    """z ~ N(mean, covariance) of the latents of the training set."""

    def __init__(self, latent_dim: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        read_options(NoOptions, options, "gaussian")
        self.whitening = Whitening(latent_dim)

    @property
    def fitted(self) -> bool:
        return self.whitening.fitted

    def fit(self, train: LatentPosterior, val: LatentPosterior, seed: int) -> None:
        self.whitening.fit(*train)

    def forward(self, noise: Tensor) -> Tensor:
        return self.whitening.colour(noise)
