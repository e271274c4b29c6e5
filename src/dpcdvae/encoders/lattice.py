"""An encoder of the cell: three lengths and three angles.

Graph encoders give the same features for every choice of a crystal's cell, so their latent does not show the lattice
decoder which cell was chosen. Crystals are standardised (Niggli-reduced) before they are encoded, so the cell is a
property of the crystal, and the latent may hold it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dpcdvae.config.fields import read_options
from dpcdvae.config.options import LatticeOptions
from dpcdvae.interfaces import Encoder
from dpcdvae.nn.layers import mlp
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.lattice import full_precision, parameters_from_lattice

# Shift and scale to numbers of order one: Å for a length over N_a^(1/3), degrees for an angle.
TYPICAL_LENGTH, LENGTH_SPREAD = 2.5, 0.5
TYPICAL_ANGLE, ANGLE_SPREAD = 90.0, 20.0


class LatticeEncoder(Encoder):
    """A perceptron of the cell parameters, with lengths divided by N_a^(1/3): features (C, out_features).

    They depend on the choice of the cell: crystals have to be standardised, as data sets are (``standardise``).
    """

    def __init__(self, out_features: int, max_atoms: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        o = read_options(LatticeOptions, options, "lattice")
        self.out_features = out_features
        self.layers = mlp(6, o.hidden, out_features, o.layers)

    @full_precision
    def forward(self, batch: CrystalBatch) -> Tensor:
        parameters = parameters_from_lattice(batch.lattice)
        per_atom = parameters[:, :3] / batch.num_atoms.to(parameters.dtype).pow(1 / 3)[:, None]
        lengths = (per_atom - TYPICAL_LENGTH) / LENGTH_SPREAD
        angles = (parameters[:, 3:] - TYPICAL_ANGLE) / ANGLE_SPREAD
        features: Tensor = self.layers(torch.cat([lengths, angles], -1))
        return features
