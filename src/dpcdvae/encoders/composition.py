"""An encoder of the composition: which fraction of the atoms each element is.

A graph encoder has to carry the elements through its messages to the mean over the atoms, and learns their exact ratio
late. Where many elements occur (89 in MP-20), the latent learns it sooner if it is given it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dpcdvae.config.fields import read_options
from dpcdvae.config.options import CompositionOptions
from dpcdvae.interfaces import Encoder
from dpcdvae.structures.elements import NUM_ELEMENTS
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.lattice import full_precision

RARE = 0.01
"""The fraction of the atoms above which the scale is logarithmic."""


class CompositionEncoder(Encoder):
    """A linear map of log(1 + fraction / RARE) of each element: features (C, out_features), for every description.

    The decoder of the composition gives logits, whose differences are logarithms of ratios: so a linear map is enough,
    where fractions need a hidden layer (docs/studies.md).
    """

    def __init__(self, out_features: int, max_atoms: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        o = read_options(CompositionOptions, options, "composition")
        self.out_features = o.features or out_features
        self.layer = nn.Linear(NUM_ELEMENTS, self.out_features)

    @full_precision
    def forward(self, batch: CrystalBatch) -> Tensor:
        fractions = batch.element_fractions(batch.frac_coords.dtype)
        features: Tensor = self.layer(torch.log1p(fractions / RARE))
        return features
