"""Denoising score matching and annealed Langevin dynamics, CDVAE's diffusion (Xie et al. 2022; Song & Ermon 2019)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from dpcdvae.errors import InputError
from dpcdvae.interfaces import CoordinateDiffusion, Corrupted, Pass
from dpcdvae.registry import build_options
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.lattice import cart_to_frac, minimum_image, wrap


@dataclass(frozen=True)
class ScoreMatchingOptions:
    """Of the noise (σ in Å) and of the walk; the defaults are CDVAE's.

    ``step_size`` is ε in Å², α = ε (σ/σ_min)² (Song & Ermon 2019, Algorithm 1). ``last_noise`` false: the last
    step adds none and goes where the score points, to x + σ² score (Jolicoeur-Martineau et al. 2021).
    """

    sigma_min: float = 0.01
    sigma_max: float = 10.0
    steps_per_level: int = 100
    step_size: float = 1e-4
    last_noise: bool = True


class ScoreMatching(CoordinateDiffusion):
    """x + σ ε in Å, one of L levels per crystal, geometric from σ_1 = σ_min to σ_L = σ_max.

    The score points from a noisy atom to the nearest image of where it was: d/σ². The network's vectors are
    σ times it, d/σ: -ε while the noise is small, and less where another image has come nearer.
    """

    sigma_of_level: Tensor
    solvers = ("langevin",)
    solver = "langevin"

    def __init__(self, timesteps: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        o = build_options(ScoreMatchingOptions, options, "score-matching")
        if o.sigma_min >= o.sigma_max:
            raise InputError(
                f"option sigma_min = {o.sigma_min:g} of score-matching must be below sigma_max = {o.sigma_max:g} (Å)"
            )
        if o.step_size >= 2 * o.sigma_min**2:
            raise InputError(
                f"option step_size = {o.step_size:g} of score-matching must be below 2 sigma_min² = "
                f"{2 * o.sigma_min**2:g} (Å²): longer steps lead away from an atom's place, not to it"
            )
        self.options, self.timesteps, self.max_steps = o, timesteps, timesteps * o.steps_per_level
        self.frame = "cartesian"
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

    def prior(self, batch: CrystalBatch, noise: Tensor) -> Tensor:
        """Uniform in the cell: the normal noise by its distribution function."""
        return wrap(torch.special.ndtr(noise))

    def levels(self, steps: int) -> list[tuple[int, int]]:
        """Passes spread evenly over L..1, both ends among them; then 0. A level may follow itself."""
        most = self.timesteps
        if steps >= most:
            visited = [most - most * k // steps for k in range(steps)]
        else:
            visited = [most - round((most - 1) * k / max(steps - 1, 1)) for k in range(steps)]
        return list(pairwise([*visited, 0]))

    def time(self, level: int) -> float:
        return float(level)

    def step(
        self,
        batch: CrystalBatch,
        now: Pass,
        next_level: int,
        noise: Tensor,
        *,
        solver: str | None = None,
        before: Pass | None = None,
    ) -> Tensor:
        """x + α score + √(2α) ε', wrapped: a walk that leaves its cell far behind would lose digits."""
        sigma = self.sigmas[now.level]
        if next_level == 0 and not self.options.last_noise:
            move = sigma * now.prediction
        else:
            alpha = self.options.step_size * (sigma / self.options.sigma_min) ** 2
            move = alpha / sigma * now.prediction + math.sqrt(2 * alpha) * noise
        return wrap(now.frac_coords + cart_to_frac(move, batch.per_atom(batch.lattice)))
