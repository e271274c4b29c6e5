"""FTCP: matrices that stand for crystals, encoded to a latent z and decoded again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from dpcdvae.config import FTCPConfig
from dpcdvae.ftcp.decoding import crystals_of
from dpcdvae.ftcp.losses import by_blocks, divergence, published, scaled_matrices
from dpcdvae.ftcp.network import Decoder, Encoder, PropertyBranch
from dpcdvae.ftcp.padded_sites import parts
from dpcdvae.ftcp.representation import Representation
from dpcdvae.ftcp.scaling import RowScaler
from dpcdvae.interfaces import LatentPosterior, LatentPrior, Trainable
from dpcdvae.io import Failure
from dpcdvae.nn.target_scaler import TargetScaler
from dpcdvae.priors import PRIORS, chosen_prior
from dpcdvae.structures.crystal import Crystal
from dpcdvae.tensors.batch import CrystalBatch

AT_A_TIME = 512  # crystals whose matrices are measured together


class UnitRange(TargetScaler):
    """A property in its unit <-> numbers from 0 to 1 over the training set.

    ``mean`` and ``std`` of the scaler hold the least value and the range.
    """

    @torch.no_grad()
    def fit(self, targets: Tensor, name: str) -> None:
        super().fit(targets, name)
        known = targets[targets.isfinite()]
        self.mean.copy_(known.min())
        self.std.copy_(known.max() - known.min())


class FTCP(Trainable):
    """The model of a configuration of the kind "ftcp"."""

    about: ClassVar[str] = (
        "FTCP re-implemented from the paper and a description of its public code. Data split, choice of the best epoch "
        "by the validation set and refusal of matrices that stand for no crystal are ours. What it makes of a crystal "
        "depends on the choice of the cell and, unless representation.order is canonical, on the order of the atoms "
        "and the origin."
    )
    of_property = ("property_branch.", "property_scaler.")
    config: FTCPConfig

    def __init__(self, config: FTCPConfig) -> None:
        super().__init__()
        self.config = config
        model = config.model
        self.representation = Representation(config)
        size = self.representation.height, self.representation.width
        self.scaler = RowScaler(self.representation.height)
        self.encoder = Encoder(*size, model.channels, model.hidden, model.latent_dim)
        self.decoder = Decoder(*size, model.channels, model.latent_dim)
        # Fitted when training has ended, not by the optimiser of the networks.
        self.prior = PRIORS[config.prior.name](model.latent_dim, config.prior.options).requires_grad_(False)
        self.property_branch = PropertyBranch(model.latent_dim) if model.property else None
        self.property_scaler = UnitRange()

    @property
    def by_blocks(self) -> bool:
        return self.config.loss.terms == "blocks"

    def problem(self) -> str | None:
        return self.prior.problem()

    def encoder_parameters(self) -> list[nn.Parameter]:
        return list(self.encoder.parameters())

    def encode(self, batch: CrystalBatch) -> LatentPosterior:
        """Raises InputError where a crystal does not fit the representation."""
        posterior: LatentPosterior = self.encoder(self.scaler(self.representation(batch)))
        return posterior

    def decode(self, z: Tensor) -> Tensor:
        """z (C, latent_dim) to matrices (C, height, width) in their units."""
        return self.scaler.inverse(scaled_matrices(self.representation, self.decoder(z), blocks=self.by_blocks))

    def crystals(self, z: Tensor, ids: Sequence[str]) -> list[Crystal | Failure]:
        """The crystals of z (C, latent_dim), or why there is none."""
        hydrogen = self.config.representation.empty_sites == "hydrogen"
        matrices = self.decode(z)
        return crystals_of(self.representation, matrices, ids, most_likely=self.by_blocks, hydrogen=hydrogen)

    def latent_prior(self, name: str | None = None) -> LatentPrior:
        """The prior to draw z from: the model's own, or "normal"; raises InputError as :func:`chosen_prior`."""
        return chosen_prior(self.prior, self.config.prior, self.config.model.latent_dim, name)

    def measure(self, crystals: CrystalBatch, targets: Tensor | None) -> None:
        self.scaler.fit(self.representation(some) for some in parts(crystals, AT_A_TIME))
        if self.property_branch is not None and targets is not None:
            self.property_scaler.fit(targets, self.target)

    def step_losses(
        self, batch: CrystalBatch, targets: Tensor | None, generator: torch.Generator, epoch: int
    ) -> dict[str, Tensor]:
        scaled = self.scaler(self.representation(batch))
        posterior: LatentPosterior = self.encoder(scaled)
        mu, log_var = posterior
        noise = torch.randn(mu.shape, generator=generator, device=generator.device, dtype=mu.dtype).to(mu.device)
        logits = self.decoder(mu + torch.exp(0.5 * log_var) * noise)
        losses = by_blocks(self.representation, logits, scaled) if self.by_blocks else published(logits, scaled)
        losses["kl"] = divergence(posterior, nats=self.config.loss.kl_scale == "nats")
        if self.property_branch is not None and targets is not None:
            error, known = self.property_scaler.errors(self.property_branch(mu), targets)
            losses["property"] = error.square().sum() / known
        return losses

    def total(self, losses: dict[str, Tensor], epoch: int) -> Tensor:
        """The loss of one crystal; the public code minimises its sum over the batch."""
        weights = self.config.loss
        total = self.criterion(losses) + weights.kl * losses["kl"]
        return total + weights.property * losses["property"] if "property" in losses else total

    def criterion(self, losses: dict[str, Tensor]) -> Tensor:
        """How far decoded matrices are from the true ones."""
        weights = {"lattice": self.config.loss.lattice, "coordinates": self.config.loss.coordinates}
        terms = [weights.get(name, 1.0) * value for name, value in losses.items() if name not in ("kl", "property")]
        return torch.stack(terms).sum()
