"""Denoising diffusion of fractional coordinates (Pakornchote et al. 2024, Eqs. 1-5).

The steps back are in :mod:`dpcdvae.diffusion.ddpm_solvers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dpcdvae.config.fields import read_options
from dpcdvae.config.options import DDPMOptions
from dpcdvae.diffusion.ddpm_solvers import DDPM_SOLVERS, DDPMSolver
from dpcdvae.diffusion.schedules import SCHEDULES
from dpcdvae.diffusion.shared import even_strides, without_mean
from dpcdvae.errors import InputError
from dpcdvae.interfaces import CoordinateDiffusion, Corrupted, ReverseRun
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.lattice import cart_to_frac, wrap


class DDPM(CoordinateDiffusion):
    """The process r_t = √ᾱ_t r_0 + √(1-ᾱ_t) ε, t = 1..T, one t per crystal; the target is ε (Eqs. 2, 10)."""

    signal_level: Tensor
    noise_level: Tensor
    solvers = DDPM_SOLVERS

    def __init__(self, timesteps: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        o = read_options(DDPMOptions, options, "ddpm")
        self.options, self.timesteps = o, timesteps
        self.max_steps, self.solver = o.max_steps(timesteps), o.solver
        betas = SCHEDULES[o.schedule](timesteps, o.beta_start, o.beta_end)
        alphas_cumprod = torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)])
        if not bool((betas > 0).all() and (alphas_cumprod.diff() < 0).all() and (alphas_cumprod > 0).all()):
            raise InputError(
                f"options beta_start = {o.beta_start} and beta_end = {o.beta_end} of ddpm give no {o.schedule} "
                f"schedule of {timesteps} steps: the signal must fall at every step and stay above 0; choose others "
                "(the paper's are 1e-10 and 0.01)"
            )
        self.alphas_cumprod = alphas_cumprod.tolist()  # index t = 0..T, exact for the solvers
        self.register_buffer("signal_level", alphas_cumprod.sqrt().to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("noise_level", (1 - alphas_cumprod).sqrt().to(torch.get_default_dtype()), persistent=False)

    def corrupt(self, batch: CrystalBatch, noise: Tensor, uniform: Tensor) -> Corrupted:
        clean = recentre(batch) if self.options.recentre else batch.frac_coords
        noise = self._mean_free(batch, noise)
        t = (uniform * self.timesteps).long().clamp(max=self.timesteps - 1) + 1
        signal, spread = (batch.per_atom(level[t])[:, None] for level in (self.signal_level, self.noise_level))
        time = t.to(clean.dtype)
        if self.options.time_input == "fraction":
            time = time / self.timesteps
        return Corrupted(signal * clean + spread * noise, time, noise, torch.ones_like(time))

    def to_target(self, batch: CrystalBatch, vectors: Tensor) -> Tensor:
        """Fractional; with ``turn_frame`` false the Cartesian numbers are taken as they are, as in the public code."""
        if self.options.turn_frame:
            vectors = cart_to_frac(vectors, batch.per_atom(batch.lattice))
        return self._mean_free(batch, vectors)

    def _mean_free(self, batch: CrystalBatch, vectors: Tensor) -> Tensor:
        return without_mean(batch, vectors) if self.options.mean_free else vectors

    def prior(self, batch: CrystalBatch, noise: Tensor) -> Tensor:
        return self._mean_free(batch, noise)

    def levels(self, steps: int) -> list[tuple[int, int]]:
        """T..0 in ``steps`` strides as even as integers allow; steps = T visits every t."""
        return even_strides(self.timesteps, steps)

    def time(self, level: int) -> float:
        return level / self.timesteps if self.options.time_input == "fraction" else float(level)

    def start(self, run: ReverseRun, solver: str) -> DDPMSolver:
        noise = run.noise
        return DDPM_SOLVERS[solver](
            replace(run, noise=lambda: self._mean_free(run.batch, noise())), self.alphas_cumprod
        )


def recentre(batch: CrystalBatch) -> Tensor:
    """Coordinates around their circular mean, in [-1/2, 1/2).

    The mean on the circle does not jump when an atom crosses a face, as the mean of wrapped coordinates
    does (by 1/N_a). Where it is undefined (atoms spread evenly, as 0 and 1/2), any origin is as good.
    """
    angle = 2 * torch.pi * batch.frac_coords
    mean = torch.atan2(batch.mean_over_atoms(angle.sin()), batch.mean_over_atoms(angle.cos())) / (2 * torch.pi)
    shifted = batch.frac_coords - batch.per_atom(mean)
    return wrap(shifted + 0.5) - 0.5
