"""Diffusion of fractional coordinates on the torus, by the score of the wrapped normal distribution.

The forward process and its target are those of DiffCSP (Jiao et al. 2023), variance exploding. An atom is noised in
its cell and not in all of space, so no image of it is preferred and the coordinates stay in [0, 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dpcdvae.config.fields import read_options
from dpcdvae.config.options import WrappedNormalOptions
from dpcdvae.diffusion.shared import even_strides, without_mean
from dpcdvae.interfaces import CoordinateDiffusion, Corrupted, ReverseRun, Solver
from dpcdvae.registry import Registry
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.lattice import cart_to_frac, wrap

# Images to either side that the sums run over: exact to rounding for σ <= 1, where the density is uniform to 1e-8.
IMAGES = 8
# For means over the density: points, and how many sigma to either side. Both exact to rounding (a smooth periodic or
# vanishing function on even points).
POINTS = 128
REACH = 12


class WrappedSolver(Solver):
    """A solver that knows the levels σ_0 = 0..σ_T and the scale of the network's prediction at each."""

    def __init__(self, run: ReverseRun, sigmas: Sequence[float], scales: Sequence[float]) -> None:
        super().__init__(run)
        self.sigmas, self.scales = sigmas, scales

    def to_mean(self, x_t: Tensor, t: int) -> Tensor:
        """The move x̂_0 - x_t = σ_t² score to the denoised mean (Tweedie)."""
        return self.sigmas[t] * self.scales[t] * self.run.predict(x_t, t)


WRAPPED_SOLVERS: Registry[type[WrappedSolver]] = Registry("solver of wrapped-normal")


@WRAPPED_SOLVERS.register("x0-jump")
class X0Jump(WrappedSolver):
    """x_s = x̂_0 + σ_s ε': jumps to the denoised mean and adds all noise of level s.

    With the true x_0 for x̂_0 this is the forward process at s. The smaller noise of the posterior would not be: it
    belongs to a mean that keeps a part of x_t (``ancestral``).
    """

    def step(self, x_t: Tensor, t: int, s: int) -> Tensor:
        return wrap(x_t + self.to_mean(x_t, t) + self.sigmas[s] * self.run.noise())


@WRAPPED_SOLVERS.register("ancestral")
class Ancestral(WrappedSolver):
    """x_s = x_t + (σ_t² - σ_s²) score + √(σ_s² (σ_t² - σ_s²)/σ_t²) ε' (Song et al. 2021, Eq. 47)."""

    def step(self, x_t: Tensor, t: int, s: int) -> Tensor:
        kept = (self.sigmas[s] / self.sigmas[t]) ** 2
        fresh = self.sigmas[s] * math.sqrt(1 - kept) * self.run.noise()
        return wrap(x_t + (1 - kept) * self.to_mean(x_t, t) + fresh)


@WRAPPED_SOLVERS.register("ddim")
class DDIM(WrappedSolver):
    """x_s = x_t + (σ_t - σ_s) σ_t score, no noise: Euler's step in σ along dx = -σ score dσ (Karras et al. 2022)."""

    def step(self, x_t: Tensor, t: int, s: int) -> Tensor:
        return wrap(x_t + (1 - self.sigmas[s] / self.sigmas[t]) * self.to_mean(x_t, t))


class WrappedNormal(CoordinateDiffusion):
    """The process x_t = π(x_0 + σ_t ε), one t = 1..T per crystal, σ_t geometric from σ_min to σ_max.

    **Target.** The score of the wrapped normal, ∂ log Σ_k N(d + k; 0, σ²) of each coordinate's displacement d, times
    σ and divided by its root mean square at the level. σ times the score is -ε while the noise is small, and at any
    noise the mean of -ε over all images that x_t can be: the same optimum as a network has that is taught ε, without
    the part of ε that no one can know. It fades as the cell fills: its root mean square is 1.00 at σ = 0.1, 0.87 at
    0.2, 0.15 at 0.4 and 0.03 at 0.5. The network is asked for a number of unit variance, because its output
    layer has no other way to become a hundred times smaller for some t than for others.

    **Loss.** So the weight is 1, every level counts alike, and predicting zero costs 3 per atom at each of them, or
    3 (1 - 1/N_a) with ``mean_free``: 2.4 for five atoms, the number of :class:`~dpcdvae.diffusion.ddpm.DDPM`.

    **The crystal's mean.** ``mean_free`` takes it from the target and not from ε: wrapping and taking the mean do not
    commute, and the score is a function of each coordinate alone only while ε is independent for each. The expected
    target given x_t is then the score among crystals that are the same but for a translation
    (``tests/test_wrapped_normal.py``).

    **Frame.** The noise is isotropic in fractional coordinates. So every cell is filled evenly by the same σ_max, and
    the prior holds for all; but atoms move further along long vectors and, in a skewed cell, in directions that
    depend on which vectors describe the lattice. So the distribution is that of the cell given, not of the lattice;
    standardised cells are reduced, so that a crystal has one of them. DDPM is alike in this; CDVAE's noise in Å is not.
    """

    sigma_of_level: Tensor
    size_of_level: Tensor
    solvers = WRAPPED_SOLVERS

    def __init__(self, timesteps: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        o = read_options(WrappedNormalOptions, options, "wrapped-normal")
        self.options, self.timesteps = o, timesteps
        self.max_steps, self.solver = o.max_steps(timesteps), o.solver
        ends = math.log(o.sigma_max), math.log(o.sigma_min)
        sigmas = torch.linspace(*ends, timesteps, dtype=torch.float64).exp().flip(0)
        nothing = torch.zeros(1, dtype=torch.float64)
        self.register_buffer("sigma_of_level", torch.cat([nothing, sigmas]), persistent=False)  # float64, t = 0..T
        self.register_buffer("size_of_level", torch.cat([nothing, score_size(sigmas)]), persistent=False)
        self.sigmas: list[float] = self.sigma_of_level.tolist()
        self.sizes: list[float] = self.size_of_level.tolist()

    def corrupt(self, batch: CrystalBatch, noise: Tensor, uniform: Tensor) -> Corrupted:
        t = (uniform * self.timesteps).long().clamp(max=self.timesteps - 1) + 1
        sigma, size = (batch.per_atom(level[t])[:, None] for level in (self.sigma_of_level, self.size_of_level))
        moved = sigma * noise.double()
        target = self._mean_free(batch, scaled_score(moved, sigma) / size).to(noise.dtype)
        time = t.to(noise.dtype)
        return Corrupted(wrap(batch.frac_coords + moved.to(noise.dtype)), time, target, torch.ones_like(time))

    def to_target(self, batch: CrystalBatch, vectors: Tensor) -> Tensor:
        """Fractional."""
        return self._mean_free(batch, cart_to_frac(vectors, batch.per_atom(batch.lattice)))

    def _mean_free(self, batch: CrystalBatch, vectors: Tensor) -> Tensor:
        return without_mean(batch, vectors) if self.options.mean_free else vectors

    def prior(self, batch: CrystalBatch, noise: Tensor) -> Tensor:
        """Uniform in the cell: the normal noise by its distribution function.

        The forward process ends there to 2 exp(-2π² σ_max²), 1.4 % of the density at σ_max = 0.5.
        """
        return wrap(torch.special.ndtr(noise))

    def levels(self, steps: int) -> list[tuple[int, int]]:
        """T..0 in ``steps`` strides as even as integers allow: even in log σ."""
        return even_strides(self.timesteps, steps)

    def time(self, level: int) -> float:
        return float(level)

    def start(self, run: ReverseRun, solver: str) -> WrappedSolver:
        noise = run.noise
        return WRAPPED_SOLVERS[solver](
            replace(run, noise=lambda: self._mean_free(run.batch, noise())), self.sigmas, self.sizes
        )


def scaled_score(displacement: Tensor, sigma: Tensor) -> Tensor:
    """σ d/dd log Σ_k N(d + k; 0, σ²), elementwise: minus the mean of (d + k)/σ over the images k.

    Args:
        displacement: d, in cells, of any image; sigma: broadcast against it, at most 1. Best in float64:
            at large σ it is a small difference.
    """
    images = _images(displacement, sigma)
    return -((-images.square() / 2).softmax(-1) * images).sum(-1)


def score_size(sigma: Tensor) -> Tensor:
    """(T,) root mean square of :func:`scaled_score` over the wrapped normal of each σ: from 1 to 0, falling with σ."""
    reach = (REACH * sigma).clamp(max=0.5)[:, None]
    points = (2 * torch.arange(POINTS, dtype=sigma.dtype) + 1) / POINTS - 1
    displacement, spread = reach * points, sigma[:, None]
    density = (-_images(displacement, spread).square() / 2).exp().sum(-1)
    return ((density * scaled_score(displacement, spread).square()).sum(-1) / density.sum(-1)).sqrt()


def _images(displacement: Tensor, sigma: Tensor) -> Tensor:
    """(..., 2 IMAGES + 1) of the images d + k, in σ."""
    cells = torch.arange(-IMAGES, IMAGES + 1, dtype=displacement.dtype, device=displacement.device)
    nearest = displacement - displacement.round()
    return (nearest[..., None] + cells) / sigma[..., None]
