"""Radial, angular and Fourier basis functions, in closed form.

Sources: DimeNet (Gasteiger et al. 2020, Eqs. 6-8), GemNet (Gasteiger et al. 2021), Legendre and
spherical Bessel recurrences (NIST DLMF 14.10, 10.51).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn


def polynomial_envelope(x: Tensor, exponent: int) -> Tensor:
    """The cutoff u(x): 1 at x = 0; 0 beyond x = 1, where its first two derivatives vanish too (DimeNet Eq. 8)."""
    p = exponent
    a, b, c = -(p + 1) * (p + 2) / 2, p * (p + 2), -p * (p + 1) / 2
    return torch.where(x < 1, 1 + x**p * (a + x * (b + x * c)), torch.zeros_like(x))


class GaussianRadialBasis(nn.Module):
    """``num_radial`` Gaussians evenly spaced on [0, cutoff], times the envelope: (...) Å -> (..., num_radial)."""

    centres: Tensor

    def __init__(self, num_radial: int, cutoff: float, envelope_exponent: int) -> None:
        super().__init__()
        self.cutoff, self.exponent = cutoff, envelope_exponent
        self.register_buffer("centres", torch.linspace(0, 1, num_radial), persistent=False)
        self.inverse_width = float(num_radial - 1)

    def forward(self, distances: Tensor) -> Tensor:
        x = distances / self.cutoff
        exponents = ((x[..., None] - self.centres) * self.inverse_width).square_().mul_(-0.5)
        # e^-40 is below the rounding of 1 in float64 too. Products of smaller numbers with gradients are denormal in
        # float32, and arithmetic with denormal numbers takes more than ten times as long.
        gaussians = exponents.clamp_(min=-40.0).exp_()
        return gaussians * polynomial_envelope(x, self.exponent)[..., None]


class BesselRadialBasis(nn.Module):
    """Functions sin(n π d/c) u(d/c)/(d/c), n = 1..num_radial, frequencies learned: (...) Å -> (..., num_radial)."""

    def __init__(self, num_radial: int, cutoff: float, envelope_exponent: int) -> None:
        super().__init__()
        self.cutoff, self.exponent = cutoff, envelope_exponent
        self.frequencies = nn.Parameter(math.pi * torch.arange(1, num_radial + 1, dtype=torch.get_default_dtype()))

    def forward(self, distances: Tensor) -> Tensor:
        x = (distances / self.cutoff)[..., None]
        return torch.sin(self.frequencies * x) * polynomial_envelope(x, self.exponent) / x


class SphericalBesselBasis(nn.Module):
    """Functions j_l(z_ln d/c) u(d/c)/(d/c), normalised: (...) Å -> (..., num_spherical, num_radial) (DimeNet Eq. 6).

    Evaluated in float64, as the upward recurrence cancels for small arguments; returned in the input's type.
    """

    def __init__(self, num_spherical: int, num_radial: int, cutoff: float, envelope_exponent: int) -> None:
        super().__init__()
        self.cutoff, self.exponent = cutoff, envelope_exponent
        zeros = spherical_bessel_zeros(num_spherical, num_radial)
        # ∫ j_l(z x)^2 x^2 dx over [0, 1] = j_{l+1}(z)^2 / 2
        at_zeros = np.stack([_spherical_bessel(zeros[order], order + 1) for order in range(num_spherical)])
        self.zeros, self.norm = torch.from_numpy(zeros), torch.from_numpy(math.sqrt(2) / np.abs(at_zeros))

    def forward(self, distances: Tensor) -> Tensor:
        x = distances.double()[..., None, None] / self.cutoff
        argument = self.zeros.to(x.device) * x
        previous, current = torch.cos(argument) / argument, torch.sin(argument) / argument  # j_{-1}, j_0
        rows = [current[..., 0, :]]
        for order in range(1, self.zeros.shape[0]):
            previous, current = current, (2 * order - 1) / argument * current - previous
            rows.append(current[..., order, :])
        basis = torch.stack(rows, -2) * self.norm.to(x.device) * polynomial_envelope(x, self.exponent) / x
        return basis.to(distances.dtype)


def _spherical_bessel(x: np.ndarray, order: int) -> np.ndarray:
    previous: np.ndarray = np.cos(x) / x
    current: np.ndarray = np.sin(x) / x
    for n in range(1, order + 1):
        previous, current = current, (2 * n - 1) / x * current - previous
    return current


def spherical_bessel_zeros(num_orders: int, count: int) -> np.ndarray:
    """The first positive zeros (num_orders, count) of j_0, j_1, ...; those of j_l lie between those of j_{l-1}."""
    zeros = math.pi * np.arange(1, count + num_orders, dtype=np.float64)
    rows = [zeros[:count]]
    for order in range(1, num_orders):
        low, high = zeros[:-1].copy(), zeros[1:].copy()
        sign = np.sign(_spherical_bessel(low, order))
        for _ in range(80):  # bisection, to the last bit of float64
            middle = (low + high) / 2
            left = np.sign(_spherical_bessel(middle, order)) == sign
            low, high = np.where(left, middle, low), np.where(left, high, middle)
        zeros = (low + high) / 2
        rows.append(zeros[:count])
    return np.stack(rows)


def legendre_harmonics(cosines: Tensor, num_spherical: int) -> Tensor:
    """The harmonics Y_l0 = sqrt((2l+1)/4π) P_l(cos θ), l < num_spherical: (N, K, K) -> (N, K, num_spherical, K).

    The order of the axes makes the sum over the last edge of a triplet one batched matrix product.
    """
    values = [torch.ones_like(cosines), cosines]
    for order in range(2, num_spherical):
        values.append(((2 * order - 1) * cosines * values[-1] - (order - 1) * values[-2]) / order)
    norms = [math.sqrt((2 * order + 1) / (4 * math.pi)) for order in range(num_spherical)]
    return torch.stack([value * norm for value, norm in zip(values, norms, strict=False)], 2)


def fourier_features(frac_coords: Tensor, first: int, last: int) -> Tensor:
    """Fourier features sin, cos(2π 2^n x), n = first..last: (N, 3) -> (N, 6 (last - first + 1)); published: 3..8."""
    frequencies = 2 * math.pi * 2.0 ** torch.arange(first, last + 1, device=frac_coords.device, dtype=frac_coords.dtype)
    # Wrapped first: the features have period 1, and large arguments would cost float32 its digits.
    angles = ((frac_coords - frac_coords.floor())[..., None] * frequencies).flatten(1)
    return torch.cat([angles.sin(), angles.cos()], -1)


def sinusoidal_embedding(steps: Tensor, dim: int) -> Tensor:
    """The position embedding of transformers, for integer time steps: (C,) -> (C, dim)."""
    half = dim // 2
    exponents = torch.arange(half, device=steps.device, dtype=steps.dtype) / max(half - 1, 1)
    angles = steps[:, None] * torch.exp(-math.log(10_000.0) * exponents)
    return torch.cat([angles.sin(), angles.cos()], -1)
