"""Reverse rules of denoising diffusion: from level t to any earlier level s. To add one: a function with a decorator.

``r_t`` (N, 3) are fractional coordinates of whichever image the loop carries along; the network has seen the crystal,
which every image of an atom describes alike. A rule that divides by √ᾱ_t must say which image it does this to: the
training data lie in the cell around the origin.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from dpcdvae.registry import Registry
from dpcdvae.tensors.lattice import wrap


class Previous(NamedTuple):
    """What the network was shown and has said in the step before: (N, 3), (N, 3), ᾱ of its level."""

    frac_coords: Tensor
    noise_pred: Tensor
    alpha_bar: float


# (r_t, noise_pred, noise, alpha_bar_t, alpha_bar_s, previous) -> r_s for s < t; ᾱ are floats, ᾱ_0 = 1
ReverseRule = Callable[[Tensor, Tensor, Tensor, float, float, Previous | None], Tensor]
REVERSE_RULES: Registry[ReverseRule] = Registry("solver")


@REVERSE_RULES.register("eq7")
def eq7(
    r_t: Tensor, noise_pred: Tensor, noise: Tensor, alpha_bar_t: float, alpha_bar_s: float,
    previous: Previous | None = None,
) -> Tensor:  # fmt: skip
    """r_s = (π(r_t) - √(1-ᾱ_t) ε_θ)/√ᾱ_t + σ ε': a jump to the predicted r_0, and a little noise (Eq. 7)."""
    return predicted_clean(wrap(r_t), noise_pred, alpha_bar_t) + posterior_sigma(alpha_bar_t, alpha_bar_s) * noise


@REVERSE_RULES.register("eq6")
def eq6(
    r_t: Tensor, noise_pred: Tensor, noise: Tensor, alpha_bar_t: float, alpha_bar_s: float,
    previous: Previous | None = None,
) -> Tensor:  # fmt: skip
    """r_s = (r_t - β/√(1-ᾱ_t) ε_θ)/√α + σ ε', with α = ᾱ_t/ᾱ_s = 1 - β, that is α_t for s = t-1 (Eq. 6).

    Nothing is wrapped: it goes on with the image that the prior has begun with.
    """
    alpha = alpha_bar_t / alpha_bar_s
    mean = (r_t - (1 - alpha) / (1 - alpha_bar_t) ** 0.5 * noise_pred) / alpha**0.5
    return mean + posterior_sigma(alpha_bar_t, alpha_bar_s) * noise


@REVERSE_RULES.register("ddim")
def ddim(
    r_t: Tensor, noise_pred: Tensor, noise: Tensor, alpha_bar_t: float, alpha_bar_s: float,
    previous: Previous | None = None,
) -> Tensor:  # fmt: skip
    """r_s = √ᾱ_s r_0 + √(1-ᾱ_s) ε_θ, with the predicted r_0 (Song, Meng & Ermon 2021, Eq. 12, η = 0).

    r_0 is that of the image of r_t in the cell around the origin.
    """
    r_0 = predicted_clean(nearest_image(r_t), noise_pred, alpha_bar_t)
    return alpha_bar_s**0.5 * r_0 + (1 - alpha_bar_s) ** 0.5 * noise_pred


@REVERSE_RULES.register("dpm++2m")
def dpm_solver_2m(
    r_t: Tensor, noise_pred: Tensor, noise: Tensor, alpha_bar_t: float, alpha_bar_s: float,
    previous: Previous | None = None,
) -> Tensor:  # fmt: skip
    """DPM-Solver++(2M): DDIM from r_0 extrapolated over the last two passes (Lu et al. 2022, Algorithm 2).

    D = r_0 + h_t/(2 h_u) (r_0 - r_0 of the pass before, at u), h the steps in λ = ½ ln(ᾱ/(1-ᾱ)); the two are compared
    through the nearest image. The first step knows no u and the last has no finite h: both are DDIM's.
    """
    r_t = nearest_image(r_t)
    clean = predicted_clean(r_t, noise_pred, alpha_bar_t)
    if previous is not None and alpha_bar_s < 1:
        before = predicted_clean(nearest_image(previous.frac_coords), previous.noise_pred, previous.alpha_bar)
        lambda_u, lambda_t, lambda_s = (half_log_snr(bar) for bar in (previous.alpha_bar, alpha_bar_t, alpha_bar_s))
        clean = clean + (lambda_s - lambda_t) / (2 * (lambda_t - lambda_u)) * nearest_image(clean - before)
    remaining = (r_t - alpha_bar_t**0.5 * clean) / (1 - alpha_bar_t) ** 0.5
    return alpha_bar_s**0.5 * clean + (1 - alpha_bar_s) ** 0.5 * remaining


def predicted_clean(r_t: Tensor, noise_pred: Tensor, alpha_bar_t: float) -> Tensor:
    """r_0 of which r_t = √ᾱ_t r_0 + √(1-ᾱ_t) ε_θ (Eq. 2)."""
    return (r_t - (1 - alpha_bar_t) ** 0.5 * noise_pred) / alpha_bar_t**0.5


def posterior_sigma(alpha_bar_t: float, alpha_bar_s: float) -> float:
    """σ with σ² = (1-ᾱ_s)/(1-ᾱ_t) (1 - ᾱ_t/ᾱ_s) (Eq. 5); 0 for s = 0."""
    return ((1 - alpha_bar_s) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_s)) ** 0.5


def half_log_snr(alpha_bar: float) -> float:
    """λ = ln(√ᾱ/√(1-ᾱ)), for 0 < ᾱ < 1."""
    return 0.5 * math.log(alpha_bar / (1 - alpha_bar))


def nearest_image(r: Tensor) -> Tensor:
    """The image in the cell around the origin, [-1/2, 1/2)."""
    return wrap(r + 0.5) - 0.5
