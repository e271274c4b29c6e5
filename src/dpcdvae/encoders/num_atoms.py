"""An encoder of the number of atoms in the cell, N_a (Pakornchote et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dpcdvae.config.fields import read_options
from dpcdvae.config.options import NumAtomsOptions
from dpcdvae.interfaces import Encoder
from dpcdvae.tensors.batch import CrystalBatch


class NumAtomsEncoder(Encoder):
    """A learned vector (out_features,) for each number of atoms from 0 to ``max_atoms``.

    It depends on the choice of the cell by design: a supercell has another N_a.
    """

    def __init__(self, out_features: int, max_atoms: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        o = read_options(NumAtomsOptions, options, "num_atoms")
        self.out_features = o.features or out_features
        self.embedding = nn.Embedding(max_atoms + 1, self.out_features)

    def forward(self, batch: CrystalBatch) -> Tensor:
        # Training refuses crystals larger than max_atoms, but a trained model may be given one. It takes the vector of
        # the largest size, as a row out of range would end the whole batch.
        features: Tensor = self.embedding(batch.num_atoms.clamp(max=self.embedding.num_embeddings - 1))
        return features
