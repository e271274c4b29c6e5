"""The number of atoms in the cell, N_a (Pakornchote et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dpcdvae.interfaces import Encoder
from dpcdvae.registry import build_options
from dpcdvae.tensors.batch import CrystalBatch


@dataclass(frozen=True)
class NumAtomsOptions:
    """``features``: width of the embedding; 0: as wide as the encoder is asked to be."""

    features: int = 0


class NumAtomsEncoder(Encoder):
    """Crystals -> (C, out_features): a vector learnt for each number of atoms, 0 to ``max_atoms``.

    Unlike every other encoder it depends on the choice of the cell, by design: a supercell is another N_a.
    """

    def __init__(self, out_features: int, max_atoms: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        o = build_options(NumAtomsOptions, options, "num_atoms", ["features"])
        self.out_features = o.features or out_features
        self.embedding = nn.Embedding(max_atoms + 1, self.out_features)

    def forward(self, batch: CrystalBatch) -> Tensor:
        # Training refuses crystals larger than max_atoms, but a trained model may be shown one: the largest size
        # it knows is the nearest thing it has to say, where a row out of range would end the whole batch.
        return self.embedding(batch.num_atoms.clamp(max=self.embedding.num_embeddings - 1))
