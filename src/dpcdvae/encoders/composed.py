"""The concatenation of several encoders (Pakornchote et al. 2024: DP-CDVAE+N_a, +GINE, +N_a+GINE)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dpcdvae.interfaces import Encoder
from dpcdvae.nn.layers import mlp
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.lattice import full_precision


class Concatenation(Encoder):
    """An encoder that mixes the features of its parts by a perceptron: side by side, in the order given."""

    def __init__(
        self, parts: Mapping[str, Encoder], out_features: int, mixer_layers: int = 1, mixer_width: int = 0
    ) -> None:
        """
        Args:
            parts: encoders by name, which the names of their weights begin with.
            mixer_layers: Linear-ReLU layers before the last Linear.
            mixer_width: of these layers; 0: the width of the concatenation.
        """
        super().__init__()
        self.out_features = out_features
        self.parts = nn.ModuleDict(parts)
        width = sum(part.out_features for part in parts.values())
        self.mixer = mlp(width, mixer_width or width, out_features, mixer_layers)

    def forward(self, batch: CrystalBatch) -> Tensor:
        return self._mixed([part(batch) for part in self.parts.values()])

    @full_precision
    def _mixed(self, features: list[Tensor]) -> Tensor:
        """The mixed features, in full precision: the lattice decoder needs more than three digits of a cell."""
        joined = torch.cat(features, -1)
        mixed: Tensor = self.mixer(joined.to(next(self.mixer.parameters()).dtype))
        return mixed
