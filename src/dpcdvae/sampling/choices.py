"""Steps, solver and candidates of sampling, checked against a model's configuration before torch is loaded."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import Any

from dpcdvae.config import MAX_CANDIDATES, Config, config_from_dict
from dpcdvae.config.fields import read_options
from dpcdvae.config.options import DIFFUSION_OPTIONS, canonical_solver
from dpcdvae.errors import InputError, unknown_name
from dpcdvae.model.agreement import Agreement
from dpcdvae.model_store import StoredModel

BATCH_SIZE = 256  # crystals at a time


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
    """The configuration of a model that makes crystals.

    Raises:
        InputError: it makes none, or its configuration has an option or a value that there is not.
    """
    config = config_from_dict(model.description["config"], where=model.where)
    if not isinstance(config, Config):
        raise InputError(f"{model.name} predicts a property and makes no crystals: give a generative model")
    return config


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
