"""The shape of the cell: three lengths and three angles.

Every other encoder is the same for each choice of a crystal's cell, so the latent cannot tell the lattice decoder which
cell was chosen: it has to be learnt by heart. Crystals are standardised (Niggli-reduced) before they are
encoded, so their cell belongs to the crystal as much as its bonds do, and the latent may hold it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcdvae.interfaces import Encoder
from dpcdvae.nn.layers import mlp
from dpcdvae.registry import build_options
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.lattice import full_precision, parameters_from_lattice

# Shift and scale to numbers of order one: Å for a length over N_a^(1/3), degrees for an angle.
TYPICAL_LENGTH, LENGTH_SPREAD = 2.5, 0.5
TYPICAL_ANGLE, ANGLE_SPREAD = 90.0, 20.0


@dataclass(frozen=True)
class LatticeOptions:
    """``hidden``: width of the multilayer perceptron; ``layers``: its hidden layers."""

    hidden: int = 128
    layers: int = 2


class LatticeEncoder(Encoder):
    """Crystals -> (C, out_features) from the cell parameters alone, lengths divided by N_a^(1/3).

    It depends on the choice of the cell: crystals have to be standardised, as data sets are (``standardise``).
    """

    def __init__(self, out_features: int, max_atoms: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        o = build_options(LatticeOptions, options, "lattice", ["layers"])
        self.out_features = out_features
        self.layers = mlp(6, o.hidden, out_features, o.layers)

    @full_precision
    def forward(self, batch: CrystalBatch) -> Tensor:
        parameters = parameters_from_lattice(batch.lattice)
        per_atom = parameters[:, :3] / batch.num_atoms.to(parameters.dtype).pow(1 / 3)[:, None]
        lengths = (per_atom - TYPICAL_LENGTH) / LENGTH_SPREAD
        angles = (parameters[:, 3:] - TYPICAL_ANGLE) / ANGLE_SPREAD
        return self.layers(torch.cat([lengths, angles], -1))
