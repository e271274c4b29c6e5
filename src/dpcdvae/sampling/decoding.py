"""The reverse process: one loop from latent to crystal for generation, reconstruction and everything after them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcdvae.config import MOST_CANDIDATES, Config
from dpcdvae.diffusion.atom_types import types_of_composition
from dpcdvae.errors import InputError, unknown_name
from dpcdvae.interfaces import CoordinateDiffusion, Pass
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.noise import CrystalRandom


@dataclass(frozen=True)
class Decoding:
    """How latents become crystals: ``steps`` passes by ``solver``, and the best of up to ``candidates`` decodes."""

    steps: int
    solver: str
    candidates: int

    @classmethod
    def of(
        cls,
        config: Config,
        diffusion: CoordinateDiffusion,
        steps: int | None = None,
        solver: str | None = None,
        candidates: int | None = None,
    ) -> Decoding:
        """As asked, or the model's own.

        Raises:
            InputError: more passes than the reverse process has, a solver that it does not have, no candidate.
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
        if candidates is None:
            candidates = config.diffusion.sampling_candidates
        if not 1 <= candidates <= MOST_CANDIDATES:
            raise InputError(f"--candidates must lie in 1..{MOST_CANDIDATES}, not {candidates}")
        return cls(steps, solver, candidates)


@dataclass(frozen=True)
class Request:
    """A batch to decode: z (C, latent_dim); num_atoms (C,) and types (N,) where they are fixed."""

    z: Tensor
    random: CrystalRandom
    ids: Sequence[str]
    num_atoms: Tensor | None = None
    types: Tensor | None = None

    def select(self, indices: Sequence[int], candidate: int) -> Request:
        """The crystals at ``indices`` with the noise of one of their candidates."""
        chosen = torch.tensor(indices, device=self.z.device)
        num_atoms = types = None
        if self.num_atoms is not None:
            num_atoms = self.num_atoms[chosen]
            if self.types is not None:
                parts = self.types.split(self.num_atoms.tolist())
                types = torch.cat([parts[k] for k in indices])
        random = self.random.select(chosen).candidate(candidate)
        return Request(self.z[chosen], random, [self.ids[k] for k in indices], num_atoms, types)


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
    on_step: Callable[[], Any] = lambda: None,
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
