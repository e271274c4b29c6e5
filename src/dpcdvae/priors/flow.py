"""The flow prior: a small network that moves standard normal noise to the latents of the training set (flow matching).

Lipman et al., Flow Matching for Generative Modeling (2023): a network v(w, t) learns the velocity w_1 - w_0 of straight
lines w_t = (1 - t) w_0 + t w_1 from noise w_0 to data w_1, here whitened latents z ~ N(μ, σ²) of training crystals. New
latents are noise moved along v from t = 0 to 1. Each is a function of its own noise alone.

If the whitened latents were normal, the velocity would be (2t - 1)/(t² + (1 - t)²) w. The network learns the difference
from this, so an untrained flow is the Gaussian prior. Most directions of a latent hold only the noise of the posteriors
(on Carbon-24 all but ten of 128): the network sees and moves each direction in proportion to the share of its variance
that comes from differences between crystals.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dpcdvae.config.fields import read_options
from dpcdvae.config.options import FlowOptions
from dpcdvae.interfaces import LatentPosterior, LatentPrior
from dpcdvae.nn.averaging import update_average
from dpcdvae.nn.basis import sinusoidal_embedding
from dpcdvae.nn.whitening import Whitening
from dpcdvae.progress import Progress

TIME_FEATURES, TIME_SCALE = 64, 1000.0  # t in [0, 1] as a position of the sinusoidal embedding
DECAY = 0.999  # of the averaged weights
MAX_GRADIENT = 1.0  # norm: without a limit the first steps of a wide network may diverge
CHECK_EVERY = 100  # steps between two validations
VALIDATION_DRAWS = 4


class Velocity(nn.Module):
    """The velocity (n, dim) at w (n, dim) and times t (n,): that of normal data, plus the network's output.

    ``signal`` (dim,) weighs the directions in the input and the output of the network.
    """

    def __init__(self, dim: int, width: int, layers: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(TIME_FEATURES, width), nn.SiLU())
        self.first, self.last = nn.Linear(dim, width), nn.Linear(width, dim)
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, w: Tensor, t: Tensor, signal: Tensor) -> Tensor:
        time = self.time(sinusoidal_embedding(TIME_SCALE * t, TIME_FEATURES))
        x = self.first(signal * w)
        for block in self.blocks:
            x = block(x, time)
        normal = (2 * t - 1) / (t.square() + (1 - t).square())
        velocity: Tensor = normal[:, None] * w + signal * self.last(nn.functional.silu(x))
        return velocity


class Block(nn.Module):
    """A residual block x + f(x, time)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        self.time = nn.Linear(width, width)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        out: Tensor = x + self.outer(nn.functional.silu(self.inner(self.norm(x)) + self.time(time)))
        return out


class FlowPrior(LatentPrior):
    """z = the end of the flow that starts from standard normal noise."""

    def __init__(self, latent_dim: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.options = o = read_options(FlowOptions, options, "flow")
        self.whitening = Whitening(latent_dim)
        self.velocity = Velocity(latent_dim, o.width, o.layers)

    @property
    def fitted(self) -> bool:
        return self.whitening.fitted

    def forward(self, noise: Tensor) -> Tensor:
        w = noise.reshape(-1, noise.shape[-1])
        h = 1 / self.options.passes
        for k in range(self.options.passes):
            start = w.new_full((len(w),), k * h)
            middle = w + 0.5 * h * self.velocity(w, start, self.whitening.signal)
            w = w + h * self.velocity(middle, start + 0.5 * h, self.whitening.signal)
        return self.whitening.colour(w).reshape(noise.shape)

    def fit(self, train: LatentPosterior, val: LatentPosterior, seed: int) -> None:
        """Trains the flow, and keeps the averaged weights of the lowest loss on ``val``.

        It starts from new weights, and depends on the latents and ``seed`` alone.
        """
        o = self.options
        self.whitening.fit(*train)
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = Velocity(self.whitening.mean.shape[0], o.width, o.layers)
        network = copy.deepcopy(self.velocity).requires_grad_(True)
        network.load_state_dict(fresh.state_dict())
        averaged = copy.deepcopy(network).requires_grad_(False)
        optimizer = torch.optim.Adam(network.parameters(), lr=o.lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: 0.5 * (1 + math.cos(math.pi * s / o.steps)))
        best = math.inf
        with torch.enable_grad(), Progress("fitting the prior", total=o.steps) as bar:
            for step in range(1, o.steps + 1):
                chosen = torch.randint(len(train[0]), (o.batch,), generator=generator)
                loss = self._loss(network, LatentPosterior(train.mu[chosen], train.log_var[chosen]), generator)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT)
                optimizer.step()
                schedule.step()
                update_average([*averaged.parameters()], [*network.parameters()], DECAY, step)
                if step % CHECK_EVERY == 0 or step == o.steps:
                    found = self._validation_loss(averaged, val, seed)
                    if found < best:
                        best = found
                        self.velocity.load_state_dict(averaged.state_dict())
                bar.advance()

    def _loss(self, network: Velocity, latents: LatentPosterior, generator: torch.Generator) -> Tensor:
        """The mean square error of the velocity, with one draw of z, noise and t for each latent."""

        def draw(function: Callable[..., Tensor], *shape: int) -> Tensor:
            return function(*shape, generator=generator, dtype=latents.mu.dtype).to(latents.mu.device)

        n, dim = latents.mu.shape
        z = latents.mu + torch.exp(0.5 * latents.log_var) * draw(torch.randn, n, dim)
        data, noise, t = self.whitening.whiten(z), draw(torch.randn, n, dim), draw(torch.rand, n)
        between = torch.lerp(noise, data, t[:, None])
        error: Tensor = (network(between, t, self.whitening.signal) - (data - noise)).square().mean()
        return error

    @torch.no_grad()
    def _validation_loss(self, network: Velocity, val: LatentPosterior, seed: int) -> float:
        """The loss on ``val``, with the same draws every time."""
        generator = torch.Generator().manual_seed(seed + 1)
        return float(sum(self._loss(network, val, generator) for _ in range(VALIDATION_DRAWS))) / VALIDATION_DRAWS
