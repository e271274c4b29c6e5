"""The standard normal prior, the paper's: the KL term of the loss draws the encoder towards it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dpcdvae.config.fields import read_options
from dpcdvae.config.options import NoOptions
from dpcdvae.interfaces import LatentPrior


class NormalPrior(LatentPrior):
    """z ~ N(0, I)."""

    def __init__(self, latent_dim: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        read_options(NoOptions, options, "normal")

    def forward(self, noise: Tensor) -> Tensor:
        return noise
