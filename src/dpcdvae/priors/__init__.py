"""Latent priors by name. To add one: a module with a class, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dpcdvae.config import NORMAL
from dpcdvae.interfaces import LatentPrior
from dpcdvae.priors.flow import FlowPrior
from dpcdvae.priors.gaussian import GaussianPrior
from dpcdvae.priors.normal import NormalPrior
from dpcdvae.registry import Registry

# name -> (latent_dim, options table) -> prior
PRIORS: Registry[Callable[[int, Mapping[str, Any]], LatentPrior]] = Registry(
    "prior",
    {
        NORMAL: NormalPrior,
        "gaussian": GaussianPrior,
        "flow": FlowPrior,
    },
)
