"""An encoder of the composition: which fraction of the atoms each element is.

A graph encoder has to carry the elements through its messages to the mean over the atoms, and learns to keep a rare one
late. Where the types differ much (MP-20 has 89 elements), the latent learns the composition sooner if it is given it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dpcdvae.config.fields import read_options
from dpcdvae.config.options import CompositionOptions
from dpcdvae.interfaces import Encoder
from dpcdvae.nn.layers import mlp
from dpcdvae.structures.elements import NUM_ELEMENTS
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.lattice import full_precision


class CompositionEncoder(Encoder):
    """A perceptron of the fractions of the elements: features (C, out_features), the same for every description."""

    def __init__(self, out_features: int, max_atoms: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        o = read_options(CompositionOptions, options, "composition")
        self.out_features = out_features
        self.layers = mlp(NUM_ELEMENTS, o.hidden, out_features, o.layers)

    @full_precision
    def forward(self, batch: CrystalBatch) -> Tensor:
        elements = nn.functional.one_hot(batch.atomic_numbers - 1, NUM_ELEMENTS)
        fractions = batch.mean_over_atoms(elements.to(batch.frac_coords.dtype))
        features: Tensor = self.layers(fractions)
        return features
