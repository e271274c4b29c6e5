"""Solvers of denoising diffusion: steps from level t to any earlier level s, ᾱ_0 = 1.

``r_t`` (N, 3) are fractional coordinates of any periodic image; the denoiser predicts the same for all of them. A
solver that divides by √ᾱ_t has to choose the image: the training data lie in the cell around the origin. To add a
solver: a class with a decorator, and its name in :class:`dpcdvae.config.options.DDPMOptions`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from dpcdvae.interfaces import ReverseRun, Solver
from dpcdvae.registry import Registry
from dpcdvae.tensors.lattice import wrap


class DDPMSolver(Solver):
    """A solver that knows the schedule ``bars`` = ᾱ_0..ᾱ_T. ``run.predict`` gives the noise ε_θ."""

    def __init__(self, run: ReverseRun, bars: Sequence[float]) -> None:
        super().__init__(run)
        self.bars = bars

    def clean(self, r_t: Tensor, image: Tensor, t: int) -> Tensor:
        """The r_0 that the denoiser predicts from r_t, for the given image of r_t."""
        return predicted_clean(image, self.run.predict(r_t, t), self.bars[t])

    def fresh_noise(self, t: int, s: int) -> Tensor:
        """σ ε' with the standard deviation of the posterior."""
        return posterior_sigma(self.bars[t], self.bars[s]) * self.run.noise()

    def towards(self, clean: Tensor, r_t: Tensor, t: int, s: int) -> Tensor:
        """√ᾱ_s r_0 + √(1-ᾱ_s) ε without new noise: ε is what r_t holds beside r_0."""
        noise = (r_t - self.bars[t] ** 0.5 * clean) / (1 - self.bars[t]) ** 0.5
        return renoised(clean, noise, self.bars[s])


DDPM_SOLVERS: Registry[type[DDPMSolver]] = Registry("solver of ddpm")


@DDPM_SOLVERS.register("x0-jump")
class X0Jump(DDPMSolver):
    """r_s = (π(r_t) - √(1-ᾱ_t) ε_θ)/√ᾱ_t + σ ε': jumps to the predicted r_0 and adds a little noise (Eq. 7)."""

    def step(self, r_t: Tensor, t: int, s: int) -> Tensor:
        return self.clean(r_t, wrap(r_t), t) + self.fresh_noise(t, s)


@DDPM_SOLVERS.register("ancestral")
class Ancestral(DDPMSolver):
    """r_s = (r_t - β/√(1-ᾱ_t) ε_θ)/√α + σ ε', with α = ᾱ_t/ᾱ_s = 1 - β, which is α_t for s = t-1 (Eq. 6).

    Nothing is wrapped: it goes on with the image that the prior began with.
    """

    def step(self, r_t: Tensor, t: int, s: int) -> Tensor:
        alpha = self.bars[t] / self.bars[s]
        mean: Tensor = (r_t - (1 - alpha) / (1 - self.bars[t]) ** 0.5 * self.run.predict(r_t, t)) / alpha**0.5
        return mean + self.fresh_noise(t, s)


@DDPM_SOLVERS.register("ddim")
class DDIM(DDPMSolver):
    """r_s = √ᾱ_s r_0 + √(1-ᾱ_s) ε_θ, with the predicted r_0 (Song, Meng & Ermon 2021, Eq. 12, η = 0).

    r_0 is that of the image of r_t in the cell around the origin.
    """

    def step(self, r_t: Tensor, t: int, s: int) -> Tensor:
        noise_pred = self.run.predict(r_t, t)
        r_0 = predicted_clean(nearest_image(r_t), noise_pred, self.bars[t])
        return renoised(r_0, noise_pred, self.bars[s])


@DDPM_SOLVERS.register("dpm++2m")
class DPMSolver2M(DDPMSolver):
    """DPM-Solver++(2M): DDIM from an r_0 extrapolated over the last two steps (Lu et al. 2022, Algorithm 2).

    D = r_0 + h_t/(2 h_u) (r_0 - r_0 predicted at u, the level before), with the steps h in λ = ½ ln(ᾱ/(1-ᾱ)). Both
    predictions are compared through the nearest image. The first step has no u, the last no finite h: both are DDIM's.
    """

    def __init__(self, run: ReverseRun, bars: Sequence[float]) -> None:
        super().__init__(run, bars)
        self.before: tuple[int, Tensor] | None = None  # level and r_0 of the step before

    def step(self, r_t: Tensor, t: int, s: int) -> Tensor:
        image = nearest_image(r_t)
        clean = extrapolated = self.clean(r_t, image, t)
        if self.before is not None and s > 0:
            u, clean_u = self.before
            lambda_u, lambda_t, lambda_s = (half_log_snr(self.bars[level]) for level in (u, t, s))
            extrapolated = clean + (lambda_s - lambda_t) / (2 * (lambda_t - lambda_u)) * nearest_image(clean - clean_u)
        self.before = t, clean
        return self.towards(extrapolated, image, t, s)


@DDPM_SOLVERS.register("heun")
class Heun(DDPMSolver):
    """Heun's rule: a DDIM step, the r_0 predicted at its end, and the step again with the mean of both r_0.

    The singlestep DPM-Solver++(2S) with r = 1 (Lu et al. 2022, Algorithm 1): of second order, two network evaluations
    in each step but the last, in which h is infinite and one DDIM step is made.
    """

    def step(self, r_t: Tensor, t: int, s: int) -> Tensor:
        image = nearest_image(r_t)
        clean = self.clean(r_t, image, t)
        if s > 0:
            r_s = self.towards(clean, image, t, s)
            ahead = self.clean(r_s, nearest_image(r_s), s)
            clean = clean + nearest_image(ahead - clean) / 2
        return self.towards(clean, image, t, s)


def predicted_clean(r_t: Tensor, noise_pred: Tensor, alpha_bar_t: float) -> Tensor:
    """The r_0 of which r_t = √ᾱ_t r_0 + √(1-ᾱ_t) ε_θ (Eq. 2)."""
    clean: Tensor = (r_t - (1 - alpha_bar_t) ** 0.5 * noise_pred) / alpha_bar_t**0.5
    return clean


def renoised(clean: Tensor, noise: Tensor, alpha_bar_s: float) -> Tensor:
    """The r_s = √ᾱ_s r_0 + √(1-ᾱ_s) ε (Eq. 2)."""
    r_s: Tensor = alpha_bar_s**0.5 * clean + (1 - alpha_bar_s) ** 0.5 * noise
    return r_s


def posterior_sigma(alpha_bar_t: float, alpha_bar_s: float) -> float:
    """σ with σ² = (1-ᾱ_s)/(1-ᾱ_t) (1 - ᾱ_t/ᾱ_s) (Eq. 5); 0 for s = 0."""
    sigma: float = ((1 - alpha_bar_s) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_s)) ** 0.5
    return sigma


def half_log_snr(alpha_bar: float) -> float:
    """λ = ln(√ᾱ/√(1-ᾱ)), for 0 < ᾱ < 1."""
    return 0.5 * math.log(alpha_bar / (1 - alpha_bar))


def nearest_image(r: Tensor) -> Tensor:
    """The image in the cell around the origin, [-1/2, 1/2)."""
    return wrap(r + 0.5) - 0.5
