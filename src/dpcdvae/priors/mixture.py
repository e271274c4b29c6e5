"""The mixture prior: several normal distributions, fitted to the latents of the training set.

Expectation-maximisation (Dempster, Laird and Rubin 1977) of the expected likelihood of z ~ N(μ_k, σ_k²), k over the
training crystals, rather than of points. The covariance of a component is drawn towards the mean of all
(``SHRINK`` crystals' worth), as one of few crystals knows little of it in so many dimensions. scikit-learn's mixture
knows neither, and would be a dependency of training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dpcdvae.config.fields import read_options
from dpcdvae.config.options import MixtureOptions
from dpcdvae.interfaces import LatentPosterior, LatentPrior
from dpcdvae.priors.components import choose
from dpcdvae.progress import Progress

SHRINK = 10.0
NEGLIGIBLE = 1e-9  # share of a crystal in a component
FLOOR = 1e-6  # of a variance, as a share of the mean variance of the latents


class MixturePrior(LatentPrior):
    """z ~ Σ_c w_c N(mean_c, covariance_c)."""

    weights: Tensor
    means: Tensor
    factors: Tensor
    is_fitted: Tensor

    def __init__(self, latent_dim: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.options = o = read_options(MixtureOptions, options, "mixture")
        self.register_buffer("weights", torch.full((o.components,), 1 / o.components))
        self.register_buffer("means", torch.zeros(o.components, latent_dim))
        self.register_buffer("factors", torch.eye(latent_dim).repeat(o.components, 1, 1))  # Cholesky, lower
        self.register_buffer("is_fitted", torch.zeros((), dtype=torch.bool))

    @property
    def fitted(self) -> bool:
        return bool(self.is_fitted)

    def forward(self, noise: Tensor) -> Tensor:
        component, fresh = choose(noise.reshape(-1, noise.shape[-1]), self.weights)
        z = torch.empty_like(fresh)
        for c in component.unique().tolist():
            mine = component == c
            z[mine] = self.means[c] + fresh[mine] @ self.factors[c].T
        return z.reshape(noise.shape)

    @torch.no_grad()
    def fit(self, train: LatentPosterior, val: LatentPosterior, seed: int) -> None:
        """Stops before the expected log likelihood of ``val`` falls; depends on the latents and ``seed`` alone."""
        mu, variance = train.mu.double(), train.log_var.double().exp()
        mixture = _Mixture.start(mu, variance, min(self.options.components, len(mu)), seed)
        best = -math.inf
        with Progress("fitting the prior", total=self.options.steps) as bar:
            for _ in range(self.options.steps):
                mixture = mixture.improved(mu, variance)
                found = float(mixture.log_density(val.mu.double(), val.log_var.double().exp()).logsumexp(1).mean())
                bar.advance()
                if not found > best:
                    break
                best = found
                self._keep(mixture)
        self.is_fitted.fill_(True)

    def _keep(self, mixture: _Mixture) -> None:
        """Components that a small training set has no use for get the weight 0."""
        used = len(mixture.weights)
        self.weights.zero_()
        self.weights[:used] = mixture.weights.to(self.weights)
        self.means[:used] = mixture.means.to(self.means)
        self.factors[:used] = mixture.factors.to(self.factors)


class _Mixture:
    """weights (K,), means (K, dim), Cholesky factors of the covariances (K, dim, dim)."""

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        self.weights, self.means = weights, means
        self.factors = torch.linalg.cholesky(covariances)

    @classmethod
    def start(cls, mu: Tensor, variance: Tensor, components: int, seed: int) -> _Mixture:
        """From the groups around points that are chosen far apart (k-means++, Arthur and Vassilvitskii 2007)."""
        generator = torch.Generator().manual_seed(seed)
        chosen = [int(torch.randint(len(mu), (), generator=generator))]
        nearest = (mu - mu[chosen[0]]).square().sum(1)
        for _ in range(1, components):
            likely = nearest.cpu().clamp(min=1e-300)
            chosen.append(int(torch.multinomial(likely, 1, generator=generator)))
            nearest = torch.minimum(nearest, (mu - mu[chosen[-1]]).square().sum(1))
        group = torch.cdist(mu, mu[chosen]).argmin(1)
        return cls.of(mu, variance, torch.nn.functional.one_hot(group, components).double())

    @classmethod
    def of(cls, mu: Tensor, variance: Tensor, shares: Tensor) -> _Mixture:
        """The mixture to which crystal n belongs with ``shares`` (n, K)."""
        counts = shares.sum(0).clamp(min=1e-9)
        means = (shares.T @ mu) / counts[:, None]
        scatter = torch.stack([_scatter(mu, variance, *one) for one in zip(means, shares.unbind(1), strict=True)])
        common = scatter.sum(0) / counts.sum()
        floor = FLOOR * common.diagonal().mean().clamp(min=1e-12) * torch.eye(mu.shape[1]).to(mu)
        covariances = (scatter + SHRINK * common) / (counts + SHRINK)[:, None, None] + floor
        return cls(counts / counts.sum(), means, covariances)

    def log_density(self, mu: Tensor, variance: Tensor) -> Tensor:
        """(n, K) log of each component's weight and density, averaged over z ~ N(mu, variance), (n, dim) each."""
        identity = torch.eye(mu.shape[1]).to(mu)
        parts = []
        for weight, mean, factor in zip(self.weights, self.means, self.factors, strict=True):
            inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
            away = ((mu - mean) @ inverse.T).square().sum(1) + variance @ inverse.square().sum(0)
            logs = weight.log() - factor.diagonal().log().sum() - 0.5 * mu.shape[1] * math.log(2 * math.pi)
            parts.append(logs - 0.5 * away)
        return torch.stack(parts, 1)

    def improved(self, mu: Tensor, variance: Tensor) -> _Mixture:
        """One step of expectation and maximisation."""
        return self.of(mu, variance, self.log_density(mu, variance).softmax(1))


def _scatter(mu: Tensor, variance: Tensor, mean: Tensor, share: Tensor) -> Tensor:
    """(dim, dim) Σ over the crystals of share · second moments around ``mean``; most have next to no share."""
    some = share > NEGLIGIBLE
    away = mu[some] - mean
    return (away.T * share[some]) @ away + (share[some] @ variance[some]).diag()
