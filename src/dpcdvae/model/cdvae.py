"""The crystal diffusion variational autoencoder: one class for every combination of its components."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dpcdvae.config import Config, LossConfig
from dpcdvae.denoisers import DENOISERS
from dpcdvae.diffusion import COORDINATE_DIFFUSIONS, TYPE_DIFFUSIONS
from dpcdvae.encoders import build_encoder
from dpcdvae.interfaces import LatentPosterior, LatentPrior, Trainable
from dpcdvae.model.agreement_threshold import Agreement
from dpcdvae.model.stats import Statistics, StatisticsDecoder
from dpcdvae.nn.layers import ExactLinear, mlp
from dpcdvae.nn.target_scaler import TargetScaler
from dpcdvae.priors import PRIORS, chosen_prior
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.lattice import MIN_FACE_DISTANCE, full_precision, heights, volume

# Bounds of a decoded cell
MAX_LENGTH = 200.0  # Å
MIN_VOLUME_PER_ATOM = 1.0  # Å^3


class Noise(NamedTuple):
    """All random numbers of one training step.

    latent: (C, latent_dim) normal; coords: (N, 3) normal; level, type_level: (C,) uniform; types: (N,) uniform.
    denoised: (C,) which crystals the denoiser sees; None: all.
    """

    latent: Tensor
    coords: Tensor
    level: Tensor
    type_level: Tensor
    types: Tensor
    denoised: Tensor | None = None

    def of_denoised(self, atoms: Tensor) -> Noise:
        """That of the crystals that the denoiser sees; ``atoms`` (N,) are theirs."""
        seen = self.denoised
        return Noise(self.latent[seen], self.coords[atoms], self.level[seen], self.type_level[seen], self.types[atoms])


class PropertyHead(nn.Module):
    """A perceptron from z (C, latent_dim) to a scaled property (C,)."""

    def __init__(self, latent_dim: int, hidden_dim: int, hidden_layers: int) -> None:
        super().__init__()
        self.layers = mlp(latent_dim, hidden_dim, 1, hidden_layers)
        self.scaler = TargetScaler()

    @full_precision
    def forward(self, z: Tensor) -> Tensor:
        scaled: Tensor = self.layers(z)
        return scaled.squeeze(-1)


class CDVAE(Trainable):
    """The model of a configuration: an encoder, decoded statistics, and a denoiser of coordinates and types."""

    of_property = ("property_head.",)
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        latent_dim = config.model.latent_dim
        self.encoder = build_encoder(config.encoder, latent_dim, config.model.max_atoms)
        self.mu, self.log_var = ExactLinear(latent_dim, latent_dim), ExactLinear(latent_dim, latent_dim)
        self.stats = StatisticsDecoder(config.model)
        self.denoiser = DENOISERS[config.denoiser.name](latent_dim, config.denoiser.options)
        diffusion = config.diffusion
        with torch.device("cpu"):  # noise schedules are computed also where a model is built without memory (meta)
            self.diffusion = COORDINATE_DIFFUSIONS[diffusion.name](diffusion.timesteps, diffusion.options)
            self.types = TYPE_DIFFUSIONS[diffusion.type_noise](
                diffusion.timesteps, diffusion.type_sigma_min, diffusion.type_sigma_max
            )
        # Fitted when training has ended, not by the optimiser of the networks.
        self.prior = PRIORS[config.prior.name](latent_dim, config.prior.options).requires_grad_(False)
        self.agreement: Agreement | None = None
        self.property_head: PropertyHead | None = None
        if config.model.property:
            hidden = config.model.stats_hidden_dim, config.model.stats_hidden_layers
            self.property_head = PropertyHead(latent_dim, *hidden)

    def read_facts(self, facts: Mapping[str, Any], where: str) -> None:
        self.agreement = Agreement.of_checkpoint(facts, where)

    def problem(self) -> str | None:
        return self.prior.problem()

    def encoder_parameters(self) -> list[nn.Parameter]:
        """Of the encoder and of μ and log σ²: while they are kept, so are the latents."""
        return [p for part in (self.encoder, self.mu, self.log_var) for p in part.parameters()]

    def encode(self, batch: CrystalBatch) -> LatentPosterior:
        """Mean and log variance of z, (C, latent_dim) each, for bonded crystals."""
        hidden = self.encoder(batch)
        return LatentPosterior(self.mu(hidden), self.log_var(hidden))

    def latent_prior(self, name: str | None = None) -> LatentPrior:
        """The prior to draw z from: the model's own, or "normal"; raises InputError as :func:`chosen_prior`."""
        return chosen_prior(self.prior, self.config.prior, self.config.model.latent_dim, name)

    def denoise(self, noisy: CrystalBatch, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """The denoiser's vectors (N, 3) in the space of the diffusion's target, and type logits (N, NUM_ELEMENTS)."""
        vectors, type_logits = self.denoiser(noisy, z, time)
        return self.diffusion.to_target(noisy, vectors), type_logits

    def noise_like(self, batch: CrystalBatch, generator: torch.Generator | None = None) -> Noise:
        """Noise for one training step, drawn on the generator's device and moved to the batch's."""
        device = generator.device if generator is not None else torch.device("cpu")
        like = batch.frac_coords
        crystals, atoms = len(batch), len(like)

        def draw(function: Callable[..., Tensor], *shape: int) -> Tensor:
            return function(*shape, generator=generator, device=device, dtype=like.dtype).to(like.device)

        return Noise(
            draw(torch.randn, crystals, self.config.model.latent_dim),
            draw(torch.randn, atoms, 3),
            draw(torch.rand, crystals),
            draw(torch.rand, crystals),
            draw(torch.rand, atoms),
            self._denoised(crystals, generator),
        )

    def _denoised(self, crystals: int, generator: torch.Generator | None) -> Tensor | None:
        """Which of so many crystals the denoiser sees (C,), drawn; None for all."""
        count = max(1, round(self.config.loss.denoised_share * crystals))
        if count == crystals:
            return None
        device = generator.device if generator is not None else torch.device("cpu")
        order = torch.randperm(crystals, generator=generator, device=device)
        return (order < count).to(self.mu.weight.device)

    def measure(self, crystals: CrystalBatch, targets: Tensor | None) -> None:
        self.stats.scaler.fit(crystals.lattice, crystals.num_atoms)
        if self.property_head is not None and targets is not None:
            self.property_head.scaler.fit(targets, self.target)

    def set_first_outputs(self, crystals: CrystalBatch) -> None:
        self.stats.start_at_frequencies(crystals)

    def step_losses(
        self, batch: CrystalBatch, targets: Tensor | None, generator: torch.Generator, epoch: int
    ) -> dict[str, Tensor]:
        true_lattice = epoch < self.config.loss.teacher_forcing_epochs
        return self.losses(batch, self.noise_like(batch, generator), true_lattice=true_lattice, targets=targets)

    def total(self, losses: dict[str, Tensor], epoch: int) -> Tensor:
        return weighted_sum(losses, self.config.loss, epoch)

    def criterion(self, losses: dict[str, Tensor]) -> Tensor:
        """The denoiser's part of the loss, as in the public code."""
        weights = self.config.loss
        return weights.coords * losses["coords"] + weights.types * losses["types"]

    def losses(
        self, batch: CrystalBatch, noise: Noise, *, true_lattice: bool, targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Every term of the loss, unweighted, by the name its weight has in ``config.loss``.

        Each is averaged over the atoms of a crystal, then over crystals: that of the property over those whose value in
        ``targets`` (C,) is not NaN, those of the denoiser over the crystals that it sees (``noise.denoised``).
        """
        mu, log_var = self.encode(batch)
        z = mu + torch.exp(0.5 * log_var) * noise.latent
        stats = self.stats(z)
        losses = self.stats.losses(stats, batch)
        losses["kl"] = -0.5 * (1 + log_var - mu.square() - log_var.exp()).sum(-1).mean()

        if self.property_head is not None and targets is not None:
            error, known = self.property_head.scaler.errors(self.property_head(z), targets)
            losses["property"] = error.square().sum() / known

        if noise.denoised is None:
            return losses | self._denoising(batch, z, stats, noise, true_lattice=true_lattice)
        seen, atoms = noise.denoised, batch.per_atom(noise.denoised)
        some = Statistics(*(part[seen] for part in stats))
        return losses | self._denoising(
            batch.part(seen, atoms), z[seen], some, noise.of_denoised(atoms), true_lattice=true_lattice
        )

    def _denoising(
        self, batch: CrystalBatch, z: Tensor, stats: Statistics, noise: Noise, *, true_lattice: bool
    ) -> dict[str, Tensor]:
        """The losses of the denoiser, for all crystals of ``batch``."""
        lattice = batch.lattice if true_lattice else self._decoded_lattice(stats.lattice, batch)
        corrupted = self.diffusion.corrupt(batch.replace(lattice=lattice), noise.coords, noise.level)
        composition = stats.composition.detach().softmax(-1)
        types = self.types.corrupt(batch, composition, noise.type_level, noise.types)
        noisy = batch.replace(frac_coords=corrupted.frac_coords, lattice=lattice, atomic_numbers=types.atomic_numbers)

        prediction, type_logits = self.denoise(noisy, z, corrupted.time)
        squared = (prediction - corrupted.target).square().sum(-1)
        cross_entropy = nn.functional.cross_entropy(type_logits, batch.atomic_numbers - 1, reduction="none")
        return {
            "coords": (batch.mean_over_atoms(squared) * corrupted.weight).mean(),
            "types": (batch.mean_over_atoms(cross_entropy) / types.scale).mean(),
        }

    def usable_lattice(self, lattice: Tensor, num_atoms: Tensor) -> Tensor:
        """Whether each decoded cell (C, 3, 3) can hold ``num_atoms`` (C,) atoms: (C,) True or False."""
        flat = lattice.flatten(1)
        safe = torch.where(
            flat.isfinite().all(1)[:, None, None], lattice, torch.eye(3, dtype=lattice.dtype, device=lattice.device)
        )
        return (
            flat.isfinite().all(1)
            & (heights(safe).amin(1) > MIN_FACE_DISTANCE)
            & (safe.abs().amax((1, 2)) < MAX_LENGTH)
            & (volume(safe) > MIN_VOLUME_PER_ATOM * num_atoms)
        )

    def _decoded_lattice(self, scaled: Tensor, batch: CrystalBatch) -> Tensor:
        """The lattice as decoded with the true number of atoms; the true lattice where that is no usable cell."""
        lattice = self.stats.scaler.inverse(scaled.detach(), batch.num_atoms)
        usable = self.usable_lattice(lattice, batch.num_atoms)
        return torch.where(usable[:, None, None], lattice, batch.lattice)


def weighted_sum(losses: dict[str, Tensor], config: LossConfig, epoch: int) -> Tensor:
    """The total loss: each term times the weight of the same name."""
    weights = config.model_dump()
    if config.coords_late_epoch and epoch >= config.coords_late_epoch:
        weights["coords"] = config.coords_late
    return torch.stack([weights[name] * value for name, value in losses.items()]).sum()
