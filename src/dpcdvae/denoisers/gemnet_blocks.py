"""The blocks of GemNet-T. Atom features h are (N, A), messages m are (N, K, hidden): K slots for the edges of an atom.

The triplets b -> a <- c of GemNet-T share the atom a, so the triplets of an atom are a dense block (K, K).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dpcdvae.config.options import GemNetOptions
from dpcdvae.nn.fused import activated_edges
from dpcdvae.nn.layers import Dense, Residual, ScaleFactor, half_sum_, residual_mlp
from dpcdvae.tensors.graph import PeriodicGraph
from dpcdvae.tensors.lattice import full_precision


class EdgeEmbedding(nn.Module):
    """An activated dense layer of [h_c | h_a | edge features], with the atoms' parts multiplied before the gather."""

    def __init__(self, atom_width: int, edge_features: int, hidden: int) -> None:
        super().__init__()
        self.dense = Dense(2 * atom_width + edge_features, hidden)
        self.split = [atom_width, atom_width, edge_features]

    def forward(self, h: Tensor, edges: Tensor, graph: PeriodicGraph) -> Tensor:
        source, target, edge = self.dense.linear.weight.split(self.split, 1)
        linear = nn.functional.linear
        return activated_edges(edges, edge, linear(h, source), linear(h, target), graph.source)


class TripletInteraction(nn.Module):
    """The update of m_ca by every other edge m_ba of atom a, weighted by distance and angle, and divided by √2."""

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
        # Two sums follow, (a + b)/√2 each: of both directions of an edge here, and with the skip in Interaction. The
        # factor 1/√2 of each is in the gains, which multiply weights and not activations.
        return graph.swap(self.up_opposite(x, gain=1 / 2)).add_(self.up(x, gain=1 / 2))


@full_precision
def angular_weights(circular_basis: Tensor, harmonics: Tensor) -> Tensor:
    """Weights (N, K * emb_cbf, K) of each edge b of an atom in the sum for its edge c; the same in all blocks.

    Args:
        circular_basis: (N, K, emb_cbf, L) of the distances of c; harmonics: (N, K, L, K) of the angles between c and b.
    """
    weights = circular_basis.to(harmonics.dtype).flatten(0, 1) @ harmonics.flatten(0, 1)
    return weights.to(circular_basis.dtype).view(len(harmonics), -1, harmonics.shape[-1])


class AtomUpdate(nn.Module):
    """The update of an atom: its messages, weighted by distance and summed, through residual layers."""

    def __init__(self, o: GemNetOptions, atom_width: int) -> None:
        super().__init__()
        self.radial = Dense(o.emb_rbf, o.hidden)
        self.scale = ScaleFactor()
        self.layers = residual_mlp(o.hidden, atom_width, o.layers_atom)

    def forward(self, m: Tensor, atom_basis: Tensor, graph: PeriodicGraph) -> Tensor:
        summed = (m * self.radial(atom_basis)).sum(1)
        update: Tensor = self.layers(self.scale(summed, m, graph.mask.any(1), graph.mask))
        return update


class Interaction(nn.Module):
    """An interaction block: messages are updated by triplets, then atoms by messages, then messages by atoms."""

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
        self,
        h: Tensor,
        m: Tensor,
        graph: PeriodicGraph,
        triplet_basis: Tensor,
        angular_basis: Tensor,
        atom_basis: Tensor,
    ) -> tuple[Tensor, Tensor]:
        x = self.triplets(m, graph, triplet_basis, angular_basis).add_(self.skip(m, gain=1 / math.sqrt(2)))
        m = self.after_skip(half_sum_(m, self.before_skip(x)))
        h = half_sum_(h, self.atom_update(m, atom_basis, graph))
        m = half_sum_(m, self.after_concat(self.concat(h, m, graph)))
        return h, m


class VectorOutput(nn.Module):
    """An output block: one scalar for each edge (N, K, 1), the length of its vector in the sum for the atom."""

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
        # This is out(x * radial(basis)), but the sum over x is made first, as the basis has fewer numbers.
        weight = self.radial.linear.weight * (self.out.linear.weight.mT * self.scale.scale)
        return (nn.functional.linear(x, weight.mT) * out_basis).sum(-1, keepdim=True, dtype=graph.vectors.dtype)
