"""From latent to crystal: one reverse loop for generation, reconstruction and everything after them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpcdvae.batch import CrystalBatch
from dpcdvae.config import Config, config_from_dict
from dpcdvae.crystal import Crystal
from dpcdvae.diffusion import COORDINATE_DIFFUSIONS
from dpcdvae.diffusion.atom_types import types_of_composition
from dpcdvae.errors import InputError, unknown_name
from dpcdvae.interfaces import CoordinateDiffusion, Pass
from dpcdvae.io import Failure
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.model.conditions import Condition
from dpcdvae.model_store import read_description, resolve_model
from dpcdvae.progress import Progress
from dpcdvae.random import CrystalRandom
from dpcdvae.table import CrystalTable

BATCH_SIZE = 256
Tell = Callable[[float], None]


@dataclass(frozen=True)
class GenerationResult:
    """What came out: crystals, and those that could not be built, with the reason."""

    crystals: list[Crystal]
    failures: list[Failure]


def generate(
    model: CDVAE,
    n: int,
    *,
    seed: int = 0,
    steps: int | None = None,
    solver: str | None = None,
    num_atoms: int | None = None,
    formula: str | None = None,
    first: int = 0,
    batch_size: int = BATCH_SIZE,
    tell: Tell | None = None,
) -> GenerationResult:
    """New crystals number ``first`` .. ``first + n - 1`` of this seed, from z ~ N(0, I).

    Args:
        steps: passes of the denoiser, by default the model's own number (``diffusion.sampling_steps``).
        solver: one of ``model.diffusion.solvers``, by default the model's own (``docs/sampling.md``).
        num_atoms: every crystal gets this many atoms; z is chosen to go with it.
        formula: every crystal gets these atoms, e.g. ``SrTiO3`` (or ``num_atoms`` / 5 times as many).
        batch_size: crystals decoded at a time. Crystal k gets the same noise whatever it is; but the early
            steps amplify rounding, so only batches of the same crystals give the same digits.
        tell: instead of a progress bar, told after each pass how many crystals' worth of the work is done.

    Raises:
        InputError: more steps than the schedule has, a solver it does not have, a formula or a number of atoms
            the model cannot hold, less than 1 in a batch.
    """
    check_batch_size(batch_size)
    condition = Condition.parse(num_atoms, formula, model.config.model.max_atoms)

    def batches() -> Iterator[Request]:
        for start in range(first, first + n, batch_size):
            numbers = torch.arange(start, min(start + batch_size, first + n), device=model.device)
            random = CrystalRandom(seed, numbers)
            z = condition.latents(model.stats, random, model.config.model.latent_dim)
            ids = [f"{seed}-{k}" for k in numbers.tolist()]
            yield Request(z, random, ids, *condition.of_batch(len(ids), model.device))

    return decode_all(model, batches, n, steps, "generating", tell, solver)


def reconstruct(
    model: CDVAE,
    table: CrystalTable,
    *,
    seed: int = 0,
    steps: int | None = None,
    solver: str | None = None,
    force_num_atoms: bool = False,
    force_types: bool = False,
    sample_latent: bool = False,
    first: int = 0,
    batch_size: int = BATCH_SIZE,
    tell: Tell | None = None,
) -> GenerationResult:
    """The crystals of ``table`` encoded and decoded again, under their own ids.

    Args:
        force_num_atoms: the true number of atoms instead of the decoded one.
        force_types: the true types, never changed (implies the true number of atoms).
        sample_latent: z drawn from the encoder's distribution (Eq. 8) instead of its mean.
        first: number of the first crystal, by which it gets its noise, where ``table`` is a part of another.
        steps, solver, batch_size, tell: see :func:`generate`.
    """
    check_batch_size(batch_size)
    check_reconstructible(table, model.config.model.max_atoms if force_types or force_num_atoms else None)

    def batches() -> Iterator[Request]:
        for start in range(0, len(table), batch_size):
            indices = np.arange(start, min(start + batch_size, len(table)))
            batch = CrystalBatch.from_table(table, indices, model.dtype).to(model.device)
            random = CrystalRandom(seed, torch.from_numpy(indices + first).to(model.device))
            mu, log_var = model.encode(batch)
            if sample_latent:
                mu = mu + torch.exp(0.5 * log_var) * random.normal("latent", mu.shape[1]).to(mu)
            ids = [str(name) for name in table.ids[indices]]
            fixed = batch.num_atoms if force_types or force_num_atoms else None
            yield Request(mu, random, ids, fixed, batch.atomic_numbers if force_types else None)

    return decode_all(model, batches, len(table), steps, "reconstructing", tell, solver)


def check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise InputError(f"batch_size must be 1 or more, not {batch_size}")


def check_reconstructible(table: CrystalTable, max_atoms: int | None) -> None:
    """Raises InputError for no crystals, one without bonds, or one of more than ``max_atoms``, if that is given."""
    if not len(table):
        raise InputError("nothing to reconstruct: the data set is empty")
    if (table.num_bonds == 0).any():
        raise InputError("the crystals carry no bonds: reconstruct a prepared data set (dpcdvae data add)")
    if max_atoms is not None and (most := int(table.num_atoms.max())) > max_atoms:
        raise InputError(f"a crystal has {most} atoms; this model holds at most {max_atoms}")


@dataclass(frozen=True)
class Request:
    """A batch to decode: z (C, latent_dim); num_atoms (C,) and types (N,) where they are fixed."""

    z: Tensor
    random: CrystalRandom
    ids: Sequence[str]
    num_atoms: Tensor | None = None
    types: Tensor | None = None


@torch.inference_mode()
def decode_all(
    model: CDVAE,
    batches: Callable[[], Iterator[Request]],
    total: int,
    steps: int | None,
    description: str,
    tell: Tell | None = None,
    solver: str | None = None,
) -> GenerationResult:
    """Crystals of every request, in order; ``batches`` is called with the model in evaluation mode.

    Args:
        total: crystals in all the requests, for the progress bar.
        tell: instead of that bar, told after each pass how many crystals' worth of the work is done.

    Raises:
        InputError: more steps than the reverse process has, or a solver it does not have.
    """
    steps, solver = checked_sampling(model.config, model.diffusion, steps, solver)
    crystals: list[Crystal] = []
    failures: list[Failure] = []
    passes = 0

    def after_pass(crystals: int) -> None:
        nonlocal passes
        passes += crystals
        if tell is None:
            bar.advance(crystals)
        else:
            tell(passes / steps)

    with evaluating(model), Progress(description, total=total * steps) as bar:
        for request in batches():
            batch, usable = decode(
                model, request.z, request.random, steps, request.num_atoms, request.types,
                on_step=partial(after_pass, len(request.ids)), solver=solver,
            )  # fmt: skip
            for crystal, fine in zip(batch.to_crystals(request.ids), usable.tolist(), strict=True):
                reason = crystal.problem() if fine else "the decoded lattice is no cell"
                if reason is None:
                    crystals.append(crystal)
                else:
                    failures.append(Failure(crystal.id, "sampling", reason))
    return GenerationResult(crystals, failures)


def sampling_settings(model: str | Path, steps: int | None, solver: str | None) -> dict[str, Any]:
    """``steps`` and ``solver`` that the model of a name or folder samples with, as :func:`checked_sampling`."""
    folder = resolve_model(model)
    config = config_from_dict(read_description(folder)["config"], where=str(folder))
    if not isinstance(config, Config):
        raise InputError(f"{model} predicts a property and makes no crystals: give a generative model")
    build = COORDINATE_DIFFUSIONS[config.diffusion.name]
    diffusion = build(config.diffusion.timesteps, config.diffusion.options)
    return dict(zip(("steps", "solver"), checked_sampling(config, diffusion, steps, solver), strict=True))


def checked_sampling(
    config: Config, diffusion: CoordinateDiffusion, steps: int | None, solver: str | None
) -> tuple[int, str]:
    """Passes of the denoiser and the way to make a step: as asked, or the model's own.

    Raises:
        InputError: more passes than the reverse process has, or a solver that it does not have.
    """
    most = diffusion.max_steps
    if steps is None:
        steps = min(config.diffusion.sampling_steps or most, most)
    if not 1 <= steps <= most:
        raise InputError(f"--steps must lie in 1..{most} for this model, not {steps}")
    if solver is None:
        solver = diffusion.solver
    if solver not in diffusion.solvers:
        raise unknown_name("--solver of this model", solver, diffusion.solvers)
    return steps, solver


@contextmanager
def evaluating(model: CDVAE) -> Iterator[None]:
    """The model in evaluation mode, and back in the mode it was in, also after Ctrl-C."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def decode(
    model: CDVAE,
    z: Tensor,
    random: CrystalRandom,
    steps: int,
    num_atoms: Tensor | None = None,
    types: Tensor | None = None,
    on_step: Callable[[], None] = lambda: None,
    solver: str | None = None,
) -> tuple[CrystalBatch, Tensor]:
    """The reverse process: z (C, latent_dim) -> crystals, and (C,) whether each has a real cell.

    A crystal without one goes through the loop in a unit cell of 5 Å, so that the others keep their places.
    One whose coordinates run away stays at the origin meanwhile, and ends with coordinates of NaN.
    """
    stats = model.stats(z)
    if num_atoms is None:
        num_atoms = stats.num_atoms[:, 1:].argmax(-1) + 1
    lattice = model.stats.scaler.inverse(stats.lattice, num_atoms)
    usable = model.usable_lattice(lattice, num_atoms)
    lattice = torch.where(usable[:, None, None], lattice, 5 * torch.eye(3).to(lattice))

    slots = int(num_atoms.max())
    real = torch.arange(slots, device=z.device) < num_atoms[:, None]  # (C, slots) -> the N atoms
    if types is None:
        draws = random.uniform("composition", 2 * slots), random.uniform("shuffle", 2 * slots)
        start = types_of_composition(stats.composition.softmax(-1), num_atoms, *draws)[:, :slots][real]
    else:
        start = types

    def noise(stream: str, step: int = 0) -> Tensor:
        return random.normal(stream, 3 * slots, step).unflatten(1, (slots, 3))[real].to(z.dtype)

    batch = CrystalBatch.unbonded(start, torch.zeros(len(start), 3).to(z), lattice, num_atoms)
    batch = batch.replace(frac_coords=model.diffusion.prior(batch, noise("prior")))
    finite = torch.ones_like(usable)
    before: Pass | None = None
    for number, (level, next_level) in enumerate(model.diffusion.levels(steps)):
        time = torch.full((len(z),), model.diffusion.time(level)).to(z)
        prediction, type_logits = model.denoise(batch, z, time)
        now = Pass(level, batch.frac_coords, prediction)
        coords = model.diffusion.step(batch, now, next_level, noise("step", number), solver=solver, before=before)
        before = now
        # A crystal that has run away is finished with, but must not take the neighbour search with it.
        finite = finite & batch.mean_over_atoms(coords).isfinite().all(-1)
        batch = batch.replace(frac_coords=coords.where(batch.per_atom(finite)[:, None], 0.0))
        if types is None:
            batch = batch.replace(atomic_numbers=type_logits.argmax(-1) + 1)
        on_step()
    coords = batch.frac_coords.where(batch.per_atom(finite)[:, None], torch.nan)
    return batch.replace(frac_coords=coords), usable
