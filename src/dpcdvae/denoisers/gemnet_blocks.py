"""The blocks of GemNet-T in the (atoms, slots) layout. N atoms, K slots, h (N, A) and m (N, K, hidden).

The triplets b -> a <- c of GemNet-T share the atom a, so each block of triplets is dense: (K, K) per atom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpcdvae.nn.fused import activated_edges
from dpcdvae.nn.layers import Dense, Residual, ScaleFactor, half_sum_, residual_mlp
from dpcdvae.tensors.graph import PeriodicGraph
from dpcdvae.tensors.lattice import full_precision


@dataclass(frozen=True)
class GemNetOptions:
    """Defaults: the published denoiser. ``atom_width`` 0 carries all concatenated features through the network."""

    hidden: int = 128
    atom_width: int = 0
    blocks: int = 3
    num_radial: int = 128
    num_spherical: int = 7
    emb_trip: int = 64
    emb_rbf: int = 16
    emb_cbf: int = 16
    bil_trip: int = 64
    layers_before_skip: int = 1
    layers_after_skip: int = 2
    layers_concat: int = 1
    layers_atom: int = 3
    cutoff: float = 7.0
    max_neighbours: int = 20
    complete_search: bool = True  # False: the public code's neighbours, among 27 cells and cut in the order found
    envelope_exponent: int = 5
    feature_layers: int = 1  # hidden layers between the concatenated features and the network; CDVAE has none
    time_embedding: int = 128
    fourier: tuple[int, ...] = (3, 8)


class EdgeEmbedding(nn.Module):
    """Activated dense layer of [h_c | h_a | edge features]: the atoms' parts are multiplied before the gather."""

    def __init__(self, atom_width: int, edge_features: int, hidden: int) -> None:
        super().__init__()
        self.dense = Dense(2 * atom_width + edge_features, hidden)
        self.split = [atom_width, atom_width, edge_features]

    def forward(self, h: Tensor, edges: Tensor, graph: PeriodicGraph) -> Tensor:
        source, target, edge = self.dense.linear.weight.split(self.split, 1)
        linear = nn.functional.linear
        return activated_edges(edges, edge, linear(h, source), linear(h, target), graph.source)


class TripletInteraction(nn.Module):
    """m_ca receives from every other edge m_ba at a, weighted by distance and angle; the result is divided by √2."""

    def __init__(self, o: GemNetOptions) -> None:
        super().__init__()
        self.incoming = Dense(o.hidden, o.hidden, activation=True)
        self.radial = Dense(o.emb_rbf, o.hidden)
        self.radial_scale = ScaleFactor()
        self.down = Dense(o.hidden, o.emb_trip, activation=True)
        self.bilinear = Dense(o.emb_cbf * o.emb_trip, o.bil_trip)
        self.sum_scale = ScaleFactor()
        self.up = Dense(o.bil_trip, o.hidden, activation=True)
        self.up_opposite = Dense(o.bil_trip, o.hidden, activation=True)

    def forward(self, m: Tensor, graph: PeriodicGraph, triplet_basis: Tensor, angular_basis: Tensor) -> Tensor:
        incoming = self.incoming(m)
        if self.radial_scale.fitting:
            self.radial_scale(incoming * self.radial(triplet_basis), incoming, graph.mask)
        incoming = self.down(incoming * self.radial(triplet_basis, self.radial_scale.scale))
        mixed = torch.bmm(angular_basis, incoming).view(*m.shape[:2], -1)
        if self.sum_scale.fitting:
            self.sum_scale(self.bilinear(mixed), incoming, graph.mask)
        x = self.bilinear(mixed, self.sum_scale.scale)
        # What half_sum_ makes of both, and of this with the skip, is in the gains.
        return graph.swap(self.up_opposite(x, gain=1 / 2)).add_(self.up(x, gain=1 / 2))


@full_precision
def angular_weights(circular_basis: Tensor, harmonics: Tensor) -> Tensor:
    """(N, K * emb_cbf, K) weight of each edge b of an atom in the sum for its edge c, the same in all blocks.

    Args:
        circular_basis: (N, K, emb_cbf, L) of the distances of c; harmonics: (N, K, L, K) of the angles between c and b.
    """
    weights = circular_basis.to(harmonics.dtype).flatten(0, 1) @ harmonics.flatten(0, 1)
    return weights.to(circular_basis.dtype).view(len(harmonics), -1, harmonics.shape[-1])


class AtomUpdate(nn.Module):
    """The messages that arrive at an atom, weighted by distance and summed, through residual layers."""

    def __init__(self, o: GemNetOptions, atom_width: int) -> None:
        super().__init__()
        self.radial = Dense(o.emb_rbf, o.hidden)
        self.scale = ScaleFactor()
        self.layers = residual_mlp(o.hidden, atom_width, o.layers_atom)

    def forward(self, m: Tensor, atom_basis: Tensor, graph: PeriodicGraph) -> Tensor:
        summed = (m * self.radial(atom_basis)).sum(1)
        return self.layers(self.scale(summed, m, graph.mask.any(1), graph.mask))


class Interaction(nn.Module):
    def __init__(self, o: GemNetOptions, atom_width: int) -> None:
        super().__init__()
        self.skip = Dense(o.hidden, o.hidden, activation=True)
        self.triplets = TripletInteraction(o)
        self.before_skip = nn.Sequential(*(Residual(o.hidden) for _ in range(o.layers_before_skip)))
        self.after_skip = nn.Sequential(*(Residual(o.hidden) for _ in range(o.layers_after_skip)))
        self.atom_update = AtomUpdate(o, atom_width)
        self.concat = EdgeEmbedding(atom_width, o.hidden, o.hidden)
        self.after_concat = nn.Sequential(*(Residual(o.hidden) for _ in range(o.layers_concat)))

    def forward(
        self, h: Tensor, m: Tensor, graph: PeriodicGraph, triplet_basis: Tensor, angular_basis: Tensor,
        atom_basis: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        x = self.triplets(m, graph, triplet_basis, angular_basis).add_(self.skip(m, gain=1 / math.sqrt(2)))
        m = self.after_skip(half_sum_(m, self.before_skip(x)))
        h = half_sum_(h, self.atom_update(m, atom_basis, graph))
        m = half_sum_(m, self.after_concat(self.concat(h, m, graph)))
        return h, m


class VectorOutput(nn.Module):
    """One scalar per edge (N, K, 1): how far the atom moves along it."""

    def __init__(self, o: GemNetOptions) -> None:
        super().__init__()
        self.layers = residual_mlp(o.hidden, o.hidden, o.layers_atom)
        self.radial = Dense(o.emb_rbf, o.hidden)
        self.scale = ScaleFactor()
        self.out = Dense(o.hidden, 1)

    def forward(self, m: Tensor, out_basis: Tensor, graph: PeriodicGraph) -> Tensor:
        x = self.layers(m)
        if self.scale.fitting:
            self.scale(x * self.radial(out_basis), m, graph.mask)
        # out(x * radial(basis)) with the sum over x made first, which leaves as few numbers as the basis has.
        weight = self.radial.linear.weight * (self.out.linear.weight.mT * self.scale.scale)
        return (nn.functional.linear(x, weight.mT) * out_basis).sum(-1, keepdim=True, dtype=graph.vectors.dtype)
