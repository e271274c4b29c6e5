"""Denoising score matching and annealed Langevin dynamics, CDVAE's diffusion (Xie et al. 2022; Song & Ermon 2019)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from dpcdvae.config.fields import read_options
from dpcdvae.config.options import ScoreMatchingOptions
from dpcdvae.interfaces import CoordinateDiffusion, Corrupted, ReverseRun, Solver
from dpcdvae.registry import Registry
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.lattice import cart_to_frac, minimum_image, wrap


class Langevin(Solver):
    """A step x + α score + √(2α) ε' with α = ε (σ/σ_min)² (Song & Ermon 2019, Algorithm 1).

    The result is wrapped: a walk that leaves its cell far behind would lose digits.
    """

    def __init__(self, run: ReverseRun, sigmas: Sequence[float], options: ScoreMatchingOptions) -> None:
        super().__init__(run)
        self.sigmas, self.options = sigmas, options

    def step(self, frac_coords: Tensor, level: int, next_level: int) -> Tensor:
        sigma, prediction = self.sigmas[level], self.run.predict(frac_coords, level)
        if next_level == 0 and not self.options.last_noise:
            move = sigma * prediction
        else:
            alpha = self.options.step_size * (sigma / self.options.sigma_min) ** 2
            move = alpha / sigma * prediction + math.sqrt(2 * alpha) * self.run.noise()
        return wrap(frac_coords + cart_to_frac(move, self.run.batch.per_atom(self.run.batch.lattice)))


SCORE_SOLVERS: Registry[type[Langevin]] = Registry("solver of score-matching", {"langevin": Langevin})


class ScoreMatching(CoordinateDiffusion):
    """The process x + σ ε in Å, one of L levels per crystal, geometric from σ_1 = σ_min to σ_L = σ_max.

    The score points from a noisy atom to the nearest image of where it was: d/σ². The network's vectors are
    σ times it, d/σ: -ε while the noise is small, and less where another image has come nearer.
    """

    sigma_of_level: Tensor
    solvers = SCORE_SOLVERS

    def __init__(self, timesteps: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        o = read_options(ScoreMatchingOptions, options, "score-matching")
        self.options, self.timesteps = o, timesteps
        self.max_steps, self.solver = o.max_steps(timesteps), o.solver
        sigmas = torch.linspace(math.log(o.sigma_min), math.log(o.sigma_max), timesteps, dtype=torch.float64).exp()
        self.sigmas = [0.0, *sigmas.tolist()]  # index level = 0..L, exact for the walk
        self.register_buffer(
            "sigma_of_level", torch.tensor(self.sigmas, dtype=torch.get_default_dtype()), persistent=False
        )

    def corrupt(self, batch: CrystalBatch, noise: Tensor, uniform: Tensor) -> Corrupted:
        """The target is d/σ and the weight ½: ½ |d/σ - p|² = ½ σ² |d/σ² - p/σ|², as in CDVAE."""
        level = (uniform * self.timesteps).long().clamp(max=self.timesteps - 1) + 1
        sigma = batch.per_atom(self.sigma_of_level[level])[:, None]
        lattice = batch.per_atom(batch.lattice)
        moved = cart_to_frac(sigma * noise, lattice)
        target = minimum_image(-moved, lattice) / sigma
        time = level.to(target.dtype)
        return Corrupted(batch.frac_coords + moved, time, target, torch.full_like(time, 0.5))

    def to_target(self, batch: CrystalBatch, vectors: Tensor) -> Tensor:
        """Cartesian, as the vectors are."""
        return vectors

    def prior(self, batch: CrystalBatch, noise: Tensor) -> Tensor:
        """Uniform in the cell: the normal noise by its distribution function."""
        return wrap(torch.special.ndtr(noise))

    def levels(self, steps: int) -> list[tuple[int, int]]:
        """Steps spread evenly over the levels L..1, both ends among them; then 0. A level may follow itself."""
        most = self.timesteps
        if steps >= most:
            visited = [most - most * k // steps for k in range(steps)]
        else:
            visited = [most - round((most - 1) * k / max(steps - 1, 1)) for k in range(steps)]
        return list(pairwise([*visited, 0]))

    def time(self, level: int) -> float:
        return float(level)

    def start(self, run: ReverseRun, solver: str) -> Langevin:
        return SCORE_SOLVERS[solver](run, self.sigmas, self.options)
