"""Where latents are drawn from in a study: priors fitted here where the checkpoint has none, and training crystals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from dpcdvae.files import atomic_output
from dpcdvae.interfaces import LatentPosterior, LatentPrior
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.priors import NORMAL, PRIORS
from dpcdvae.tensors.noise import CrystalRandom
from dpcdvae.training.fit_prior_and_threshold import fit_prior
from quality.batches import kept

POSTERIOR = "posterior"
Source = Callable[[CrystalRandom], Tensor]
MOST = 2_000_000  # distances held at a time


def prior_source(prior: LatentPrior, model: CDVAE) -> Source:
    """The z that ``generate`` draws from a prior."""

    @torch.no_grad()
    def draw(random: CrystalRandom) -> Tensor:
        return prior(random.normal("latent", model.config.model.latent_dim).to(model.stats.scaler.shift))

    return draw


def posterior_source(encoded: LatentPosterior) -> Source:
    """z ~ N(mu, sigma²) of one of these crystals, each with its own."""

    def draw(random: CrystalRandom) -> Tensor:
        crystal = (random.uniform("crystal", 1)[:, 0] * len(encoded.mu)).long()
        mu, log_var = encoded.mu[crystal], encoded.log_var[crystal]
        return mu + torch.exp(0.5 * log_var) * random.normal("latent", mu.shape[1]).to(mu)

    return draw


def fitted_prior(
    model: CDVAE, name: str, train: LatentPosterior, val: LatentPosterior, keep: Path
) -> tuple[LatentPrior, dict[str, Any]]:
    """A prior of a name, and where it comes from: the checkpoint's own, or fitted here with its default options.

    One that was fitted is kept in two files named ``keep`` with the minutes that it took.
    """
    if name == NORMAL:
        return model.latent_prior(NORMAL), {"from": "nothing to fit"}
    if name == model.config.prior.name and model.prior.fitted:
        return model.prior, {"from": "the checkpoint"}
    file = keep.with_name(f"{keep.name}.safetensors")

    def fit() -> dict[str, Any]:
        fitted = fit_prior(name, {}, train, val, model.config.train.seed)
        with atomic_output(file) as temporary:
            safetensors.torch.save_file(fitted.state_dict(), temporary)
        return {}

    spent = kept(keep.with_name(f"{keep.name}.json"), fit)
    prior = PRIORS[name](model.config.model.latent_dim, {}).to(model.device, model.dtype)
    prior.load_state_dict(safetensors.torch.load_file(file))
    return prior, {"from": "fitted here, default options", "cpu_minutes": round(spent["cpu_seconds"] / 60, 2)}


def nearest(z: Tensor, means: Tensor) -> Tensor:
    """(n,) Euclidean distance of each z (n, dim) to the nearest of the means (m, dim)."""
    mode = "donot_use_mm_for_euclid_dist"  # which loses small distances between long vectors
    rows = max(1, MOST // len(means))
    return torch.cat([torch.cdist(part, means, compute_mode=mode).amin(1) for part in z.split(rows)])
