"""The reverse process: one loop from latent to crystal for generation, reconstruction and everything after them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcdvae.interfaces import ReverseRun, Trainable
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.sampling.constraints import UNCONSTRAINED, DecodingConstraints
from dpcdvae.sampling.type_counts import types_with_counts
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.noise import CrystalRandom


@dataclass(frozen=True)
class Request:
    """A batch to decode: z (C, latent_dim); num_atoms (C,) and types (N,) where they are fixed, and what is allowed."""

    z: Tensor
    random: CrystalRandom
    ids: Sequence[str]
    num_atoms: Tensor | None = None
    types: Tensor | None = None
    constraints: DecodingConstraints = UNCONSTRAINED

    def select(self, indices: Sequence[int], candidate: int) -> Request:
        """The crystals at ``indices``, with the random numbers of one of their candidates."""
        chosen = torch.tensor(indices, device=self.z.device)
        num_atoms = types = None
        if self.num_atoms is not None:
            num_atoms = self.num_atoms[chosen]
            if self.types is not None:
                parts = self.types.split(self.num_atoms.tolist())
                types = torch.cat([parts[k] for k in indices])
        random = self.random.select(chosen).candidate(candidate)
        return Request(self.z[chosen], random, [self.ids[k] for k in indices], num_atoms, types, self.constraints)


@contextmanager
def evaluating(model: Trainable) -> Iterator[None]:
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
    on_step: Callable[[int], Any] = lambda passes: None,
    solver: str | None = None,
    constraints: DecodingConstraints = UNCONSTRAINED,
    watch: Callable[[CrystalBatch], Any] = lambda crystals: None,
) -> tuple[CrystalBatch, Tensor]:
    """The reverse process from latents z (C, latent_dim) to crystals.

    A crystal whose decoded lattice is no usable cell goes through the loop in a cubic cell of 5 Å, so that the others
    keep their places. A crystal whose coordinates diverge is shown to the network at the origin from then on.

    Args:
        steps: of the solver.
        num_atoms, types: (C,) and (N,), where they are given and not decoded.
        on_step: called after each step with the number of its network evaluations.
        solver: its name, by default the model's own.
        constraints: numbers of atoms and types to choose from where they are decoded.
        watch: called with the crystals as they are at the start, and after each step.

    Returns:
        The crystals, with coordinates of NaN where they diverged; (C,) whether the decoded cell could be used.
    """
    stats = model.stats(z)
    if num_atoms is None:
        num_atoms = constraints.sized(stats.num_atoms)[:, 1:].argmax(-1) + 1
    lattice = model.stats.scaler.inverse(stats.lattice, num_atoms)
    usable = model.usable_lattice(lattice, num_atoms)
    lattice = torch.where(usable[:, None, None], lattice, 5 * torch.eye(3).to(lattice))
    composition = constraints.masked(stats.composition).softmax(-1)
    numbers = model.types.prior(composition, num_atoms, random) if types is None else types
    run = _Run(
        model,
        z,
        random,
        constraints,
        composition,
        CrystalBatch.unbonded(numbers, torch.zeros(len(numbers), 3).to(z), lattice, num_atoms),
    )

    rule = model.diffusion.start(ReverseRun(run.batch, run.predict, run.noise), solver or model.diffusion.solver)
    coords = model.diffusion.prior(run.batch, run.normal("prior"))
    watch(run.batch.replace(frac_coords=coords))
    for level, next_level in model.diffusion.levels(steps):
        before = run.passes
        coords = rule.step(coords, level, next_level)
        if types is None:
            run.update_types()
        on_step(run.passes - before)
        watch(run.batch.replace(frac_coords=coords))
    return run.batch.replace(frac_coords=coords.where(run.finite(coords), torch.nan)), usable


class _Run:
    """One reverse process: the crystals with their present types, and the network and the noise that a solver calls."""

    def __init__(
        self,
        model: CDVAE,
        z: Tensor,
        random: CrystalRandom,
        constraints: DecodingConstraints,
        composition: Tensor,
        batch: CrystalBatch,
    ) -> None:
        self.model, self.z, self.random, self.constraints, self.batch = model, z, random, constraints, batch
        self.expected = composition * batch.num_atoms[:, None]
        self.slots = int(batch.num_atoms.max())
        self.real = torch.arange(self.slots, device=z.device) < batch.num_atoms[:, None]  # (C, slots) -> the N atoms
        self.converging = torch.ones(len(z), dtype=torch.bool, device=z.device)
        self.passes = self.draws = 0
        self.logits: Tensor

    def normal(self, stream: str, number: int = 0) -> Tensor:
        values: Tensor = self.random.normal(stream, 3 * self.slots, number).unflatten(1, (self.slots, 3))
        return values[self.real].to(self.z.dtype)

    def noise(self) -> Tensor:
        self.draws += 1
        return self.normal("step", self.draws - 1)

    def finite(self, coords: Tensor) -> Tensor:
        """(N, 1) whether the coordinates of an atom's crystal have been finite in every step, and are."""
        self.converging = self.converging & self.batch.mean_over_atoms(coords).isfinite().all(-1)
        return self.batch.per_atom(self.converging)[:, None]

    def predict(self, frac_coords: Tensor, level: int) -> Tensor:
        self.passes += 1
        time = torch.full((len(self.z),), self.model.diffusion.time(level)).to(self.z)
        # Coordinates that are not finite would spoil the neighbour search for the whole batch.
        shown = self.batch.replace(frac_coords=frac_coords.where(self.finite(frac_coords), 0.0))
        prediction, self.logits = self.model.denoise(shown, self.z, time)
        return prediction

    def update_types(self) -> None:
        logits, num_atoms = self.constraints.masked(self.logits), self.batch.num_atoms
        if weight := self.model.config.diffusion.type_count_weight:
            types = types_with_counts(logits, self.expected, num_atoms, weight)
        else:
            types = self.model.types.update(logits)
        types = self.constraints.together(types, logits, num_atoms)
        self.batch = self.batch.replace(atomic_numbers=types)
