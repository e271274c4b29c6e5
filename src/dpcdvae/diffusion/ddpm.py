"""Denoising diffusion of fractional coordinates (Pakornchote et al. 2024, Eqs. 1-7).

How it is run backwards is in :mod:`dpcdvae.diffusion.reverse_rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcdvae.diffusion.reverse_rules import REVERSE_RULES, Previous
from dpcdvae.diffusion.schedules import SCHEDULES
from dpcdvae.diffusion.shared import even_strides, without_mean
from dpcdvae.errors import InputError, unknown_name
from dpcdvae.interfaces import CoordinateDiffusion, Corrupted, Pass
from dpcdvae.registry import build_options
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.lattice import wrap

TIME_INPUTS = ("step", "fraction")


@dataclass(frozen=True)
class DDPMOptions:
    """Defaults: the paper's. Its public code has ``turn_frame`` False and ``time_input`` "fraction"."""

    schedule: str = "sigmoid"
    beta_start: float = 1e-10
    beta_end: float = 0.01
    reverse_rule: str = "eq7"
    mean_free: bool = True  # remove each crystal's mean from the noise
    recentre: bool = True  # put the centre of the clean coordinates at the origin
    turn_frame: bool = True  # False: the Cartesian output is compared with fractional noise as it is
    time_input: str = "step"  # "fraction": t/T


class DDPM(CoordinateDiffusion):
    """r_t = √ᾱ_t r_0 + √(1-ᾱ_t) ε, t = 1..T, one t per crystal; the target is ε (Eqs. 2, 10)."""

    signal_level: Tensor
    noise_level: Tensor

    def __init__(self, timesteps: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        o = build_options(DDPMOptions, options, "ddpm")
        if o.time_input not in TIME_INPUTS:
            raise unknown_name("time_input of ddpm", o.time_input, TIME_INPUTS)
        self.options, self.timesteps, self.max_steps = o, timesteps, timesteps
        self.frame = "fractional" if o.turn_frame else "cartesian"
        betas = SCHEDULES[o.schedule](timesteps, o.beta_start, o.beta_end)
        alphas_cumprod = torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)])
        if not bool((betas > 0).all() and (alphas_cumprod.diff() < 0).all() and (alphas_cumprod > 0).all()):
            raise InputError(
                f"options beta_start = {o.beta_start} and beta_end = {o.beta_end} of ddpm: no "
                f"{o.schedule} schedule of {timesteps} steps, whose signal must fall at every step and "
                "never to nothing: choose others (the paper's are 1e-10 and 0.01)"
            )
        self.alphas_cumprod = alphas_cumprod.tolist()  # index t = 0..T, exact for the reverse rules
        self.register_buffer("signal_level", alphas_cumprod.sqrt().to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("noise_level", (1 - alphas_cumprod).sqrt().to(torch.get_default_dtype()), persistent=False)
        REVERSE_RULES[o.reverse_rule]
        self.solver, self.solvers = o.reverse_rule, tuple(REVERSE_RULES)

    def corrupt(self, batch: CrystalBatch, noise: Tensor, uniform: Tensor) -> Corrupted:
        clean = recentre(batch) if self.options.recentre else batch.frac_coords
        noise = self.project(batch, noise)
        t = (uniform * self.timesteps).long().clamp(max=self.timesteps - 1) + 1
        signal, spread = (batch.per_atom(level[t])[:, None] for level in (self.signal_level, self.noise_level))
        time = t.to(clean.dtype)
        if self.options.time_input == "fraction":
            time = time / self.timesteps
        return Corrupted(signal * clean + spread * noise, time, noise, torch.ones_like(time))

    def project(self, batch: CrystalBatch, vectors: Tensor) -> Tensor:
        return without_mean(batch, vectors) if self.options.mean_free else vectors

    def prior(self, batch: CrystalBatch, noise: Tensor) -> Tensor:
        return self.project(batch, noise)

    def levels(self, steps: int) -> list[tuple[int, int]]:
        """T..0 in ``steps`` strides as even as integers allow; steps = T visits every t."""
        return even_strides(self.timesteps, steps)

    def time(self, level: int) -> float:
        return level / self.timesteps if self.options.time_input == "fraction" else float(level)

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
        bars = self.alphas_cumprod
        previous = None if before is None else Previous(before.frac_coords, before.prediction, bars[before.level])
        return REVERSE_RULES[solver or self.solver](
            now.frac_coords, now.prediction, self.project(batch, noise), bars[now.level], bars[next_level], previous
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
