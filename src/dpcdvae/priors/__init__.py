"""Latent priors by name. To add one: a module with a class, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dpcdvae.config import NORMAL
from dpcdvae.config.sections import PriorConfig
from dpcdvae.errors import InputError
from dpcdvae.interfaces import LatentPrior
from dpcdvae.priors.flow import FlowPrior
from dpcdvae.priors.gaussian import GaussianPrior
from dpcdvae.priors.local import LocalPrior
from dpcdvae.priors.mixture import MixturePrior
from dpcdvae.priors.normal import NormalPrior
from dpcdvae.registry import Registry

# name -> (latent_dim, options table) -> prior
PRIORS: Registry[Callable[[int, Mapping[str, Any]], LatentPrior]] = Registry(
    "prior",
    {
        NORMAL: NormalPrior,
        "gaussian": GaussianPrior,
        "flow": FlowPrior,
        "mixture": MixturePrior,
        "local": LocalPrior,
    },
)


def chosen_prior(own: LatentPrior, config: PriorConfig, latent_dim: int, name: str | None = None) -> LatentPrior:
    """The prior that a model draws z from: its own (described by ``config``), or "normal".

    Raises:
        InputError: a prior that the model does not have, or that is not fitted yet.
    """
    if config.chosen(name) == NORMAL:
        return PRIORS[NORMAL](latent_dim, {})
    if not own.fitted:
        raise InputError(
            f"the prior '{config.name}' of this checkpoint is not fitted: it is when a run ends, in its best "
            "checkpoint; resume the run, give its folder, or give --prior normal"
        )
    return own
