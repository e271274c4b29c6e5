"""Noise schedules: β_t for t = 1..T, float64. To add one: a function, its name in ``config/options.py``."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dpcdvae.registry import Registry

# (timesteps, beta_start, beta_end) -> (T,)
SCHEDULES: Registry[Callable[[int, float, float], Tensor]] = Registry("schedule")


def _line(start: float, end: float, timesteps: int) -> Tensor:
    return torch.linspace(start, end, timesteps, dtype=torch.float64)


@SCHEDULES.register("sigmoid")
def sigmoid(timesteps: int, beta_start: float, beta_end: float) -> Tensor:
    """β_t = σ(x_t) (β_end - β_start) + β_start, x linear from -10 to 6 (the paper's; GeoDiff's form)."""
    return torch.sigmoid(_line(-10, 6, timesteps)) * (beta_end - beta_start) + beta_start


@SCHEDULES.register("linear")
def linear(timesteps: int, beta_start: float, beta_end: float) -> Tensor:
    """The schedule with β_t linear (Ho et al. 2020)."""
    return _line(beta_start, beta_end, timesteps)


@SCHEDULES.register("quadratic")
def quadratic(timesteps: int, beta_start: float, beta_end: float) -> Tensor:
    """The schedule with √β_t linear."""
    return _line(math.sqrt(beta_start), math.sqrt(beta_end), timesteps).square()


@SCHEDULES.register("cosine")
def cosine(timesteps: int, beta_start: float, beta_end: float) -> Tensor:
    """ᾱ_t ∝ cos²((t/T + s)/(1 + s) π/2), s = 0.008, β_t at most 0.999 (Nichol & Dhariwal 2021).

    The curve has no free ends: ``beta_start`` and ``beta_end`` do not enter.
    """
    t = _line(0, 1, timesteps + 1)
    alphas_cumprod = torch.cos((t + 0.008) / 1.008 * math.pi / 2).square()
    return (1 - alphas_cumprod[1:] / alphas_cumprod[:-1]).clamp(max=0.999)
