"""GINE (Hu et al. 2020) on the bonds of a crystal, with their lengths as edge attributes (Pakornchote et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dpcdvae.config.fields import read_options
from dpcdvae.config.options import GINEOptions
from dpcdvae.interfaces import Encoder
from dpcdvae.nn.layers import ExactLinear, mlp
from dpcdvae.structures.elements import NUM_ELEMENTS
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.graph import PeriodicGraph, bond_graph


class GINEEncoder(Encoder):
    """GINE: each feature (C, out_features) of a crystal is the largest value that any of its atoms gives.

    It sees which elements are bonded and their distances, but no angles.
    """

    def __init__(self, out_features: int, max_atoms: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.out_features = out_features
        self.options = o = read_options(GINEOptions, options, "gine")
        self.atom_embedding = nn.Embedding(NUM_ELEMENTS + 1, o.hidden)
        self.edge_embedding = mlp(1, o.hidden, o.hidden)
        self.convolutions = nn.ModuleList(GINEConvolution(o.hidden) for _ in range(o.convolutions))
        self.readout = nn.Sequential(nn.Linear(o.hidden, o.hidden), nn.ReLU())
        self.final = ExactLinear(o.hidden, out_features)
        nn.init.zeros_(self.final.weight)  # sums over bonds are large, the first log variance must not be

    def forward(self, batch: CrystalBatch) -> Tensor:
        graph = bond_graph(
            batch.bonds, batch.bond_images, batch.num_bonds, batch.num_atoms, batch.frac_coords, batch.lattice
        )
        edges = self.edge_embedding(graph.distances[..., None])
        atoms = self.atom_embedding(batch.atomic_numbers)
        for k, convolution in enumerate(self.convolutions, start=1):
            update = convolution(atoms, edges, graph)
            atoms = atoms + (update.relu() if k < len(self.convolutions) else update)
        features: Tensor = self.final(self.readout(max_over_atoms(atoms, batch)))
        return features


class GINEConvolution(nn.Module):
    """The convolution x_i' = MLP(x_i + Σ_j ReLU(x_j + e_ij)) over the bonds of atom i (Hu et al. 2020, with ε = 0)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = mlp(width, width, width)

    def forward(self, atoms: Tensor, edges: Tensor, graph: PeriodicGraph) -> Tensor:
        """New atom features (N, F), from ``atoms`` (N, F) and ``edges`` (N, K, F)."""
        messages = (graph.of_source(atoms) + edges).relu() * graph.mask[..., None]
        updated: Tensor = self.mlp(atoms + messages.sum(1))
        return updated


def max_over_atoms(values: Tensor, batch: CrystalBatch) -> Tensor:
    """The largest values (C, F) of the atoms (N, F) of each crystal; atoms that share a maximum share its gradient."""
    crystal = batch.crystal_index[:, None].expand_as(values)
    lowest = values.new_full((len(batch), values.shape[1]), -torch.inf)
    return lowest.scatter_reduce(0, crystal, values, "amax")
