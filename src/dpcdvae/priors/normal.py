"""z ~ N(0, I), the prior of the paper, which the KL term of the loss draws the encoder towards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dpcdvae.interfaces import LatentPrior
from dpcdvae.registry import NoOptions, build_options


class NormalPrior(LatentPrior):
    def __init__(self, latent_dim: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        build_options(NoOptions, options, "normal")

    def forward(self, noise: Tensor) -> Tensor:
        return noise
