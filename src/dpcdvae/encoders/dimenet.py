"""DimeNet++ (Gasteiger et al. 2020) on the bonds of a crystal.

Each directed bond k -> j has a message. The messages are a flat list; only for the sum over the triplets k -> j -> i
are they laid out in slots for each atom j, where the sum is one dense product. In slots everywhere, half of the work
would be on empty ones where the coordination varies, as in a perovskite (12 for one atom, 2 for another).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dpcdvae.config.fields import read_options
from dpcdvae.config.options import DimeNetOptions
from dpcdvae.interfaces import Encoder
from dpcdvae.nn.basis import BesselRadialBasis, SphericalBesselBasis, legendre_harmonics
from dpcdvae.nn.layers import ExactLinear, ScaleFactor
from dpcdvae.structures.elements import NUM_ELEMENTS
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.graph import PeriodicGraph, bond_graph


class DimeNetEncoder(Encoder):
    """DimeNet++: the features (C, out_features) of a crystal are the mean over its atoms of all output blocks."""

    def __init__(self, out_features: int, max_atoms: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.out_features = out_features
        o = read_options(DimeNetOptions, options, "dimenet++")
        self.options = o
        power = o.envelope_exponent + 1
        self.radial_basis = BesselRadialBasis(o.num_radial, o.cutoff, power)
        self.spherical_basis = SphericalBesselBasis(o.num_spherical, o.num_radial, o.cutoff, power)
        self.atom_embedding = nn.Embedding(NUM_ELEMENTS + 1, o.hidden)
        nn.init.uniform_(self.atom_embedding.weight, -math.sqrt(3), math.sqrt(3))
        self.radial_embedding = dense(o.num_radial, o.hidden)
        self.edge_embedding = dense(3 * o.hidden, o.hidden)
        self.interactions = nn.ModuleList(Interaction(o) for _ in range(o.blocks))
        self.outputs = nn.ModuleList(Output(o, out_features) for _ in range(o.blocks + 1))

    def forward(self, batch: CrystalBatch) -> Tensor:
        graph = bond_graph(
            batch.bonds, batch.bond_images, batch.num_bonds, batch.num_atoms, batch.frac_coords, batch.lattice
        )
        harmonics = legendre_harmonics(graph.cosines(), self.options.num_spherical)
        triplets = graph.triplet_mask()
        if not self.options.same_atom_triplets:
            triplets = triplets & (graph.source[:, :, None] != graph.source[:, None, :])
        harmonics = (harmonics * triplets[:, :, None]).transpose(2, 3).flatten(2)  # (N, K, K * L)
        bonds = Bonds.of(graph)
        radial, spherical = self.radial_basis(bonds.distances), self.spherical_basis(bonds.distances)

        atoms = self.atom_embedding(batch.atomic_numbers)
        ends = [atoms.index_select(0, bonds.source), atoms.index_select(0, bonds.target)]
        message = self.edge_embedding(torch.cat([*ends, self.radial_embedding(radial)], -1))
        out = self.outputs[0](message, radial, bonds)
        for interaction, output in zip(self.interactions, self.outputs[1:], strict=True):
            message = interaction(message, radial, spherical, harmonics, bonds)
            out = out + output(message, radial, bonds)
        return batch.mean_over_atoms(out)


class Bonds(NamedTuple):
    """The E directed bonds of a graph of N atoms with K slots, in the order of their targets.

    source, target: (E,) atoms. distances: (E,) Å. slot: (E,) flat slot number at the target; opposite: (E,) that of the
    bond in the other direction. shape: (N, K).
    """

    source: Tensor
    target: Tensor
    distances: Tensor
    slot: Tensor
    opposite: Tensor
    shape: torch.Size

    @classmethod
    def of(cls, graph: PeriodicGraph) -> Bonds:
        slot = graph.mask.flatten().nonzero().squeeze(1)
        source, distances, opposite = (x.flatten()[slot] for x in (graph.source, graph.distances, graph.reverse))
        target = torch.div(slot, graph.mask.shape[1], rounding_mode="floor")
        return cls(source, target, distances, slot, opposite, graph.mask.shape)

    def in_slots(self, values: Tensor) -> Tensor:
        """Values of the bonds (E, ...) laid out in the slots of their targets (N, K, ...), 0 in empty slots."""
        slots = values.new_zeros((self.shape.numel(), *values.shape[1:])).index_copy(0, self.slot, values)
        unflattened: Tensor = slots.unflatten(0, self.shape)
        return unflattened


class Interaction(nn.Module):
    """An interaction block: messages (E, hidden) are updated by those that arrive at their source atom."""

    def __init__(self, o: DimeNetOptions) -> None:
        super().__init__()
        self.radial = nn.Sequential(linear(o.num_radial, o.basis_emb), linear(o.basis_emb, o.hidden))
        self.spherical = linear(o.num_spherical * o.num_radial, o.basis_emb)
        self.spherical_up = linear(o.basis_emb, o.int_emb)
        self.triplet_scale = ScaleFactor()  # the sum over triplets grows with coordination, block after block
        self.incoming, self.own = dense(o.hidden, o.hidden), dense(o.hidden, o.hidden)
        self.down, self.up = dense(o.hidden, o.int_emb, bias=False), dense(o.int_emb, o.hidden, bias=False)
        self.before_skip = nn.Sequential(*(Skip(o.hidden) for _ in range(o.layers_before_skip)))
        self.final = dense(o.hidden, o.hidden)
        self.after_skip = nn.Sequential(*(Skip(o.hidden) for _ in range(o.layers_after_skip)))

    def forward(self, message: Tensor, radial: Tensor, spherical: Tensor, harmonics: Tensor, bonds: Bonds) -> Tensor:
        """``spherical`` (E, L, R); ``harmonics`` (N, K, K * L), zero where the triplet does not exist."""
        incoming = self.down(self.incoming(message) * self.radial(radial))
        # The basis is a product of a part of (order, distance) and a part of (order, angle), so the weight of
        # each order joins the message before the sum over k, which is then one batched matrix product.
        weight = self.spherical.weight.unflatten(1, spherical.shape[1:])
        weight = torch.einsum("elr,plr->elp", spherical, weight)
        terms = self.spherical_up(weight) * incoming[:, None]
        summed = torch.bmm(harmonics, bonds.in_slots(terms).flatten(1, 2)).flatten(0, 1)
        summed = summed.index_select(0, bonds.opposite)
        summed = self.triplet_scale(summed, incoming)
        hidden = self.before_skip(self.own(message) + self.up(summed))
        updated: Tensor = self.after_skip(self.final(hidden) + message)
        return updated


class Output(nn.Module):
    """An output block: the features (N, out_features) of each atom from its messages."""

    def __init__(self, o: DimeNetOptions, out_features: int) -> None:
        super().__init__()
        self.radial = linear(o.num_radial, o.hidden)
        self.up = linear(o.hidden, o.out_emb, bias=True)
        self.layers = nn.Sequential(*(dense(o.out_emb, o.out_emb) for _ in range(o.output_layers)))
        self.final = ExactLinear(o.out_emb, out_features, bias=False)
        nn.init.zeros_(self.final.weight)  # the first log variance must not be large: it is exponentiated

    def forward(self, message: Tensor, radial: Tensor, bonds: Bonds) -> Tensor:
        features: Tensor = self.final(self.layers(self.up(bonds.in_slots(self.radial(radial) * message).sum(1))))
        return features


class Skip(nn.Module):
    """A residual block x + f(x), with f two dense layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(dense(width, width), dense(width, width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.layers(x)
        return out


def linear(in_features: int, out_features: int, *, bias: bool = False) -> nn.Linear:
    """A linear layer with orthogonal weights, scaled to the variance 2 / (fan in + fan out) (DimeNet)."""
    layer = nn.Linear(in_features, out_features, bias=bias)
    nn.init.orthogonal_(layer.weight)
    with torch.no_grad():
        variance = layer.weight.var() if layer.weight.numel() > 1 else torch.ones(())
        layer.weight.mul_(torch.sqrt(2.0 / ((in_features + out_features) * variance)))
        if bias:
            layer.bias.zero_()
    return layer


def dense(in_features: int, out_features: int, *, bias: bool = True) -> nn.Sequential:
    """A linear layer with SiLU."""
    return nn.Sequential(linear(in_features, out_features, bias=bias), nn.SiLU())
