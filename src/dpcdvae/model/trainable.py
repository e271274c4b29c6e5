"""The contract between trainer and model, and the scaling of the property that a model learns."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from dpcdvae.config import AnyConfig
from dpcdvae.errors import InputError
from dpcdvae.model_store import StoredModel
from dpcdvae.tensors.batch import CrystalBatch


class Trainable(nn.Module, ABC):
    """A model that can be trained: what it measures first, its losses, and by which number the best is chosen.

    ``target`` is the property column it needs, "" for none; ``targets`` below are its values (C,), NaN where unknown.
    """

    config: AnyConfig
    source: StoredModel | None = None  # where its weights were loaded from

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype: ...

    @property
    def target(self) -> str:
        return self.config.model.property

    def record_training_set(self, crystals: CrystalBatch, targets: Tensor | None) -> None:
        """Stores what the training set holds (its elements), also in a model that starts from another's weights."""

    @abstractmethod
    def measure(self, crystals: CrystalBatch, targets: Tensor | None) -> None:
        """Sets the scalers from the whole training set, before the first step."""

    @abstractmethod
    def step_losses(
        self, batch: CrystalBatch, targets: Tensor | None, generator: torch.Generator, epoch: int
    ) -> dict[str, Tensor]:
        """Every term of the loss, unweighted, by name; all noise comes from ``generator``."""

    def count(self, batch: CrystalBatch, targets: Tensor | None) -> int | Tensor:
        """Crystals that the losses are averaged over."""
        return len(batch)

    @abstractmethod
    def total(self, losses: dict[str, Tensor], epoch: int) -> Tensor:
        """The weighted sum that is minimised."""

    @abstractmethod
    def criterion(self, losses: dict[str, Tensor]) -> Tensor:
        """The number by which the best checkpoint is chosen; less is better."""


class TargetScaler(nn.Module):
    """A property in its unit <-> numbers of mean 0 and standard deviation 1 over the training set."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    @torch.no_grad()
    def fit(self, targets: Tensor, name: str) -> None:
        """Raises InputError where there is nothing to learn: a constant, or no two values."""
        known = targets[targets.isfinite()].double()
        if len(known) < 2 or float(known.std(correction=0)) <= 1e-12 * float(known.abs().max()):
            what = f"is {float(known[0]):g} for every crystal" if len(known) else "has no value"
            raise InputError(f"property '{name}' {what} of the training set: there is nothing to learn")
        self.mean.copy_(known.mean())
        self.std.copy_(known.std(correction=0))

    def forward(self, targets: Tensor) -> Tensor:
        return (targets - self.mean) / self.std

    def errors(self, predicted: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled predictions less scaled targets, 0 where a target is unknown; and how many are known, at least 1."""
        known = targets.isfinite()
        # Replaced before the subtraction: a NaN that is masked after it would still poison the gradient.
        wanted = torch.where(known, self(targets), predicted.detach())
        return predicted - wanted, known.sum().clamp(min=1)

    def inverse(self, scaled: Tensor) -> Tensor:
        return scaled * self.std + self.mean
