"""Steps, solver and candidates of sampling, checked against a model's configuration before torch is loaded."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dpcdvae.config import MAX_CANDIDATES, Config, FTCPConfig, PlacementConfig, config_from_dict
from dpcdvae.config.fields import read_options
from dpcdvae.config.options import DIFFUSION_OPTIONS, canonical_solver
from dpcdvae.errors import InputError, unknown_name
from dpcdvae.model.agreement_threshold import Agreement
from dpcdvae.model_store import StoredModel, find_crystal_vae

if TYPE_CHECKING:
    from dpcdvae.structures.table import CrystalTable

_BOUNDS = {"n": (0, 10**9), "seed": (0, 2**64 - 1), "first": (0, 2**62), "batch_size": (1, 10**9)}


def check_some(table: CrystalTable) -> None:
    """Raises InputError where there is no crystal to reconstruct."""
    if not len(table):
        raise InputError("nothing to reconstruct: the data set is empty")


def check_counts(**values: int) -> None:
    """Raises InputError for numbers of crystals, a seed or a batch size beyond what they can be."""
    for name, value in values.items():
        low, high = _BOUNDS[name]
        if not low <= value <= high:
            raise InputError(f"{name} must lie in {low}..{high}, not {value}")


@dataclass(frozen=True)
class Decoding:
    """How latents are decoded: in ``steps`` steps of ``solver``, keeping the best of up to ``candidates`` decodes."""

    steps: int
    solver: str
    candidates: int

    @classmethod
    def of(
        cls, config: Config, steps: int | None = None, solver: str | None = None, candidates: int | None = None
    ) -> Decoding:
        """The settings that are given, and the model's own for those that are None.

        Raises:
            InputError: more steps than the reverse process has, a solver that it does not have, no candidate.
        """
        diffusion = config.diffusion
        options = read_options(DIFFUSION_OPTIONS[diffusion.name], diffusion.options, diffusion.name)
        max_steps = options.max_steps(diffusion.timesteps)
        if steps is None:
            steps = min(diffusion.sampling_steps or max_steps, max_steps)
        if not 1 <= steps <= max_steps:
            raise InputError(f"--steps must lie in 1..{max_steps} for this model, not {steps}")
        solver = options.solver if solver is None else canonical_solver(solver)
        if solver not in options.solvers:
            raise unknown_name("--solver of this model", solver, options.solvers)
        if candidates is None:
            candidates = diffusion.sampling_candidates
        if not 1 <= candidates <= MAX_CANDIDATES:
            raise InputError(f"--candidates must lie in 1..{MAX_CANDIDATES}, not {candidates}")
        return cls(steps, solver, candidates)


def generative_config(model: StoredModel) -> Config:
    """The configuration of a crystal VAE.

    Raises:
        InputError: it is another kind of model, or its configuration has an option or a value that there is not.
    """
    config = config_from_dict(find_crystal_vae(model).description["config"], where=model.where)
    assert isinstance(config, Config)
    return config


def vae_settings(model: StoredModel, task: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """All options of ``task``, "generate" or "reconstruct", for a crystal VAE: the model's own where none is asked for.

    Raises:
        InputError: as :func:`sampling_settings`, or a prior that the model does not have.
    """
    how = sampling_settings(model, *(asked.get(name) for name in ("steps", "solver", "candidates")))
    drawn = task == "generate" and "like" not in asked
    prior = {"prior": generative_config(model).prior.chosen(asked.get("prior"))} if drawn else {}
    return {**asked, **how, **prior}


def latent_settings(model: StoredModel, task: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """All options of ``task`` for a model that decodes a latent at once: its own prior where none is asked for.

    Raises:
        InputError: a prior that the model does not have.
    """
    config = config_from_dict(model.description["config"], where=model.where)
    assert isinstance(config, FTCPConfig)
    return {**asked, **({"prior": config.prior.chosen(asked.get("prior"))} if task == "generate" else {})}


def placement_settings(model: StoredModel, task: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The lattice rule that a placement model generates with: the one asked for, or its own.

    Raises:
        InputError: a rule that there is not, or that does not go with the model.
    """
    config = config_from_dict(model.description["config"], where=model.where)
    assert isinstance(config, PlacementConfig)
    return {"lattice": config.lattice_rule(asked.get("lattice"))}


def sampling_settings(
    model: StoredModel, steps: int | None = None, solver: str | None = None, candidates: int | None = None
) -> dict[str, Any]:
    """``steps``, ``solver``, ``candidates`` that a model samples with (:meth:`Decoding.of`), before it is loaded.

    Says on standard error where candidates are asked of a model that has no threshold to stop at.
    """
    how = Decoding.of(generative_config(model), steps, solver, candidates)
    agreement = Agreement.of_checkpoint(model.description["facts"], model.where)
    if how.candidates > 1 and (agreement is None or agreement.threshold == 0):
        print(
            f"{model.name} has no agreement threshold: every crystal takes all {how.candidates} candidates",
            file=sys.stderr,
        )
    return asdict(how)
