"""Latent priors by name. To add one: a module with a class, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dpcdvae.errors import unknown_name
from dpcdvae.interfaces import LatentPrior
from dpcdvae.priors.flow import FlowPrior
from dpcdvae.priors.gaussian import GaussianPrior
from dpcdvae.priors.normal import NormalPrior
from dpcdvae.registry import Registry

NORMAL = "normal"

# name -> (latent_dim, options table) -> prior
PRIORS: Registry[Callable[[int, Mapping[str, Any]], LatentPrior]] = Registry(
    "prior",
    {
        NORMAL: NormalPrior,
        "gaussian": GaussianPrior,
        "flow": FlowPrior,
    },
)


def chosen_prior(own: str, asked: str | None) -> str:
    """What a model with the prior ``own`` draws from: as asked, or that one; raises InputError for any other."""
    if asked not in (None, NORMAL, own):
        raise unknown_name("--prior of this model", asked, dict.fromkeys([own, NORMAL]))
    return asked or own
