"""The model of a property: an encoder with one output (CDVAE's ``CrystGNN_Supervise``)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dpcdvae.config import RegressorConfig
from dpcdvae.encoders import build_encoder
from dpcdvae.interfaces import Trainable
from dpcdvae.nn.target_scaler import TargetScaler
from dpcdvae.structures.elements import NUM_ELEMENTS, SYMBOLS
from dpcdvae.tensors.batch import CrystalBatch


class PropertyRegressor(Trainable):
    """An encoder that predicts the property ``config.model.property`` of bonded crystals, in the unit of its column."""

    of_property = ("scaler.", "known_elements")  # the output layers start from those of the other property
    config: RegressorConfig
    known_elements: Tensor

    def __init__(self, config: RegressorConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config.encoder, 1, config.model.max_atoms)
        self.scaler = TargetScaler()
        self.register_buffer("known_elements", torch.zeros(NUM_ELEMENTS + 1, dtype=torch.bool))

    def forward(self, batch: CrystalBatch) -> Tensor:
        """The property of each crystal (C,), in its unit."""
        return self.scaler.inverse(self.encoder(batch).squeeze(-1))

    def measure(self, crystals: CrystalBatch, targets: Tensor | None) -> None:
        assert targets is not None
        self.scaler.fit(targets, self.target)

    def record_training_set(self, crystals: CrystalBatch, targets: Tensor | None) -> None:
        assert targets is not None
        learnt_from = crystals.per_atom(targets.isfinite())
        self.known_elements[crystals.atomic_numbers[learnt_from].unique()] = True

    def step_losses(
        self, batch: CrystalBatch, targets: Tensor | None, generator: torch.Generator, epoch: int
    ) -> dict[str, Tensor]:
        """``mse`` of the scaled property, ``mae`` in its unit."""
        assert targets is not None
        error, known = self.scaler.errors(self.encoder(batch).squeeze(-1), targets)
        return {"mse": error.square().sum() / known, "mae": error.detach().abs().sum() / known * self.scaler.std}

    def count(self, batch: CrystalBatch, targets: Tensor | None) -> int | Tensor:
        return len(batch) if targets is None else targets.isfinite().sum()

    def total(self, losses: dict[str, Tensor], epoch: int) -> Tensor:
        return losses["mse"]

    def criterion(self, losses: dict[str, Tensor]) -> Tensor:
        return losses["mae"]

    def unknown_elements(self, numbers: Sequence[int]) -> list[str]:
        """Symbols of the elements among ``numbers`` that no crystal of the training set held."""
        known = self.known_elements.cpu().numpy()
        return [SYMBOLS[z] for z in sorted(set(numbers)) if not (z < len(known) and known[z])]
