"""What may be asked of a model in a file: read from its configuration alone, so that a slip is answered at once."""

from __future__ import annotations

from dpcdvae.config import Config, config_from_dict
from dpcdvae.config.options import SOLVERS, canonical_solver
from dpcdvae.errors import InputError, unknown_name
from dpcdvae.model_store import StoredModel


def generative_config(model: StoredModel) -> Config:
    """The configuration of a model that makes crystals.

    Raises:
        InputError: it makes none, or its configuration has an option or a value that there is not.
    """
    config = config_from_dict(model.description["config"], where=model.where)
    if not isinstance(config, Config):
        raise InputError(f"{model.name} predicts a property and makes no crystals: give a generative model")
    return config


def check_choices(model: StoredModel, *, solver: str | None = None, prior: str | None = None) -> Config:
    """The configuration of a model; raises InputError for a solver or a prior that it does not have."""
    config = generative_config(model)
    config.prior.chosen(prior)
    solvers = SOLVERS[config.diffusion.name]
    if solver is not None and canonical_solver(solver) not in solvers:
        raise unknown_name("--solver of this model", solver, solvers)
    return config
