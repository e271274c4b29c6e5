"""SchNet (Schütt et al., NeurIPS 2017) of crystals or clusters that are partly in place.

The atoms in place are nodes, and so is the origin; the focus is marked by a vector that is added to its embedding (the
origin and focus "tokens" of G-SchNet). Continuous-filter convolutions multiply the features of a neighbour by a filter
W(d) of its distance. All images of an atom have the same features, so their filters are added up first: one filter for
each pair of atoms. It serves every step of a crystal's growth, as placing atoms moves no other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dpcdvae.config.placement import PlacementModelConfig
from dpcdvae.nn.basis import GaussianRadialBasis, polynomial_envelope
from dpcdvae.placement.geometry import Space
from dpcdvae.structures.elements import NUM_ELEMENTS
from dpcdvae.tensors.neighbours import neighbours_within

ENVELOPE = 5  # exponent of the cutoff
MARGIN = 1.0  # Å around a cluster, beyond the cutoff, so that no image of it is a neighbour


class ShiftedSoftplus(nn.Module):
    """ln(1 + e^x) - ln 2, SchNet's activation."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.softplus(x) - math.log(2)


class Interaction(nn.Module):
    """One interaction block: x + f(Σ_j W(d_ij) ⊙ g(x_j))."""

    def __init__(self, features: int, num_radial: int) -> None:
        super().__init__()
        self.filter = nn.Sequential(
            nn.Linear(num_radial, features), ShiftedSoftplus(), nn.Linear(features, features), ShiftedSoftplus()
        )
        self.before = nn.Linear(features, features, bias=False)
        self.after = nn.Sequential(nn.Linear(features, features), ShiftedSoftplus(), nn.Linear(features, features))

    def forward(self, x: Tensor, basis: Tensor, envelope: Tensor, pair: Tensor, visible: Tensor) -> Tensor:
        """Features (C, S, m, F) of m nodes in S steps, from those before.

        Args:
            basis: (E, num_radial) and envelope: (E, 1) of the distances between neighbours.
            pair: (E,) which they are, counted through (crystal, i, j); visible: (C, S, m), 1 for nodes in place.
        """
        shape = (len(x), x.shape[2], x.shape[2], x.shape[3])
        each = self.filter(basis) * envelope
        filters = each.new_zeros((math.prod(shape[:3]), shape[3])).index_add(0, pair, each).view(shape)
        message = torch.einsum("cijf,csjf->csif", filters, self.before(x) * visible[..., None])
        moved: Tensor = self.after(message)
        return x + moved


class SchNet(nn.Module):
    """Features of the nodes of each step: node 0 is the origin, node k the atom that is placed as number k."""

    def __init__(self, config: PlacementModelConfig) -> None:
        super().__init__()
        self.cutoff, self.max_neighbours = config.cutoff, config.max_neighbours
        self.embedding = nn.Embedding(NUM_ELEMENTS + 1, config.features)  # number 0 is the origin
        self.focus = nn.Parameter(torch.randn(config.features))
        self.basis = GaussianRadialBasis(config.num_radial, config.cutoff, ENVELOPE)
        self.interactions = nn.ModuleList(
            Interaction(config.features, config.num_radial) for _ in range(config.interactions)
        )

    def forward(
        self, numbers: Tensor, positions: Tensor, num_atoms: Tensor, space: Space, focus: Tensor, placed: Tensor
    ) -> Tensor:
        """Features (C, S, n + 1, F) of origin and atoms, of use where a node is in place in its step.

        Args:
            numbers: (C, n); positions: (C, n, 3) Å; num_atoms: (C,) atoms that there are.
            focus: (C, S) node of the focus; placed: (C, S) atoms in place.
        """
        with_origin = nn.functional.pad(numbers, (1, 0))
        nodes = torch.arange(with_origin.shape[1], device=numbers.device)
        pair, distances = self._edges(nn.functional.pad(positions, (0, 0, 1, 0)), num_atoms + 1, space)
        basis, envelope = self.basis(distances), polynomial_envelope(distances / self.cutoff, ENVELOPE)[:, None]
        visible = (nodes <= placed[..., None]).to(positions.dtype)
        marked = (nodes == focus[..., None])[..., None] * self.focus
        x: Tensor = self.embedding(with_origin)[:, None] + marked
        for interaction in self.interactions:
            x = interaction(x, basis, envelope, pair, visible)
        return x

    @torch.no_grad()
    def _edges(self, positions: Tensor, num_nodes: Tensor, space: Space) -> tuple[Tensor, Tensor]:
        """Pairs (E,) of neighbours, counted through (crystal, i, j), and their distances (E,) in Å."""
        crystals, most = positions.shape[:2]
        real = torch.arange(most, device=positions.device) < num_nodes[:, None]
        if space.lattice is None:
            # A box so large that a cluster is no neighbour of its own images.
            side = 2 * positions.abs().amax((1, 2)) + self.cutoff + MARGIN
            lattice = torch.diag_embed(side[:, None].expand(-1, 3))
        else:
            lattice = space.lattice
        frac = positions @ torch.linalg.inv(lattice)
        found = neighbours_within(frac[real], lattice, num_nodes, self.cutoff, self.max_neighbours)
        start = torch.arange(crystals, device=positions.device)[:, None] * most + torch.arange(
            most, device=positions.device
        )
        place = start[real]  # of each node among the padded ones
        pair = place[:, None] * most + place[found.source] % most
        return pair[found.mask], found.distances[found.mask]
