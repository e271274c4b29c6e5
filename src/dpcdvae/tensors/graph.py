"""Periodic graphs with a fixed number of neighbour slots per atom.

Both networks store their edges in an (atoms, slots) layout: sums over the neighbours of an atom are
then plain dense products, and the triplets of an atom are a (slots, slots) block. Empty slots are
masked. ``reverse`` pairs every edge with the one in the opposite direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcdvae.tensors.lattice import full_precision
from dpcdvae.tensors.neighbours import neighbours_within


@dataclass(frozen=True)
class PeriodicGraph:
    """Edges j -> i of N atoms with K slots each.

    Attributes:
        source: (N, K) index of the atom j; 0 in empty slots.
        image: (N, K, 3) integer cell of j relative to the cell that holds i.
        vectors: (N, K, 3) unit vectors from i to j.
        distances: (N, K) Å; 1 in empty slots so that no basis function divides by zero.
        mask: (N, K) True where there is an edge.
        reverse: (N, K) flat slot number of the edge i -> j; N * K where j does not list i.
    """

    source: Tensor
    image: Tensor
    vectors: Tensor
    distances: Tensor
    mask: Tensor
    reverse: Tensor

    @classmethod
    def from_edges(
        cls, source: Tensor, image: Tensor, mask: Tensor, frac_coords: Tensor, lattice: Tensor
    ) -> PeriodicGraph:
        """Geometry and reverse edges of given edges; ``lattice`` (N, 3, 3) is that of each atom's crystal."""
        source = source.masked_fill(~mask, 0)
        image = image.masked_fill(~mask[..., None], 0)
        frac = frac_coords[source] + image - frac_coords[:, None]
        vectors = torch.einsum("nki,nij->nkj", frac, lattice)
        distances = torch.linalg.vector_norm(vectors, dim=-1).masked_fill(~mask, 1.0)
        vectors = (vectors / distances.clamp_min(1e-6)[..., None]).masked_fill(~mask[..., None], 0.0)
        return cls(source, image, vectors, distances, mask, _reverse_slots(source, image, mask))

    def swap(self, edge_features: Tensor) -> Tensor:
        """Features (N, K, F) of the opposite edges; zeros where there is none."""
        paired = self.reverse < self.reverse.numel()
        opposite = self.reverse.masked_fill(~paired, 0).flatten()
        return _swapped(edge_features, opposite, paired[..., None].to(edge_features.dtype))

    def of_source(self, atom_features: Tensor) -> Tensor:
        """(N, F) -> (N, K, F) those of each edge's atom j; of atom 0 in empty slots."""
        return atom_features.index_select(0, self.source.flatten()).view(*self.source.shape, atom_features.shape[-1])

    @full_precision
    def cosines(self) -> Tensor:
        """(N, K, K) cosine of the angle at atom i between its edges k and l."""
        return (self.vectors @ self.vectors.transpose(1, 2)).clamp(-1, 1)

    def triplet_mask(self) -> Tensor:
        """(N, K, K) True for two different edges of one atom."""
        different = ~torch.eye(self.mask.shape[1], dtype=torch.bool, device=self.mask.device)
        return self.mask[:, :, None] & self.mask[:, None, :] & different


class _Swap(torch.autograd.Function):
    """Edge features (N, K, F) by the slot (N * K,) of their opposite, zeros where ``paired`` (N, K, 1) is 0.

    Opposites come in pairs, so it is its own transpose: the gradient is gathered too, which is several times faster
    than adding up rows, as autograd would.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, opposite: Tensor, paired: Tensor) -> Tensor:
        ctx.save_for_backward(opposite, paired)
        swapped = torch.empty_like(features, memory_format=torch.contiguous_format)  # no view: it may be overwritten
        torch.index_select(features.flatten(0, 1), 0, opposite, out=swapped.view(-1, features.shape[-1]))
        return swapped.mul_(paired)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _swapped(gradient, *ctx.saved_tensors), None, None


def _swapped(features: Tensor, opposite: Tensor, paired: Tensor) -> Tensor:
    swapped: Tensor = _Swap.apply(features, opposite, paired)  # type: ignore[no-untyped-call]
    return swapped


def _reverse_slots(source: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    num_atoms, slots = source.shape
    reach = image.abs().amax() + 1 if image.numel() else 1
    base = 2 * reach + 1
    key = ((image[..., 0] + reach) * base + image[..., 1] + reach) * base + image[..., 2] + reach
    opposite = ((reach - image[..., 0]) * base + reach - image[..., 1]) * base + reach - image[..., 2]
    atom = torch.arange(num_atoms, device=source.device)
    key = (key * num_atoms + source).masked_fill(~mask, -1)
    wanted = (opposite * num_atoms + atom[:, None]).masked_fill(~mask, -2)
    listed = key.index_select(0, source.flatten()).view(num_atoms, slots, slots)
    found, place = (listed == wanted[..., None]).to(torch.int8).max(-1)
    return torch.where(found.bool(), source * slots + place, num_atoms * slots)


@full_precision
def radius_graph(
    frac_coords: Tensor,
    lattice: Tensor,
    num_atoms: Tensor,
    cutoff: float,
    max_neighbours: int,
    *,
    complete: bool = True,
) -> PeriodicGraph:
    """The nearest neighbours of every atom within ``cutoff``, over as many images as that needs.

    A shell of equal distances (relative tolerance ``neighbours.SHELL_TOLERANCE``) that the cap would split is left
    out whole: which of its atoms come first is an accident of the cell and must not matter. Only where
    the very first shell exceeds the cap (overlapping atoms) is it cut in the order of the search.

    Args:
        frac_coords: (N, 3), any image; lattice: (C, 3, 3) Å, not degenerate; num_atoms: (C,).
        cutoff: Å. max_neighbours: K, slots of each atom.
        complete: False searches as the public code does: among the 27 cells around the atom's own only, and
            cut at the cap in the order of the search.

    Returns:
        A graph whose ``image`` refers to the coordinates as given, unwrapped.
    """
    found = neighbours_within(frac_coords, lattice, num_atoms, cutoff, max_neighbours, complete=complete)
    per_atom = lattice.repeat_interleave(num_atoms, 0, output_size=len(frac_coords))
    return PeriodicGraph.from_edges(found.source, found.image, found.mask, frac_coords, per_atom)


@full_precision
def bond_graph(
    bonds: Tensor, bond_images: Tensor, num_bonds: Tensor, num_atoms: Tensor, frac_coords: Tensor, lattice: Tensor
) -> PeriodicGraph:
    """Both directions of given bonds (see :class:`~dpcdvae.structures.table.CrystalTable`) in slots.

    Args:
        bonds: (E, 2) atoms counted within their crystal; bond_images: (E, 3); num_bonds, num_atoms: (C,).
        frac_coords: (N, 3); lattice: (C, 3, 3) Å.

    Returns:
        A graph with as many slots as the best-connected atom has bonds.
    """
    first = num_atoms.cumsum(0) - num_atoms
    offset = first.repeat_interleave(num_bonds, output_size=bonds.shape[0])
    i, j = bonds[:, 0] + offset, bonds[:, 1] + offset
    target, source = torch.cat([i, j]), torch.cat([j, i])
    image = torch.cat([bond_images, -bond_images])
    order = torch.argsort(target, stable=True)
    target, source, image = target[order], source[order], image[order]
    degree = torch.bincount(target, minlength=len(frac_coords))
    slots = max(int(degree.max()), 1) if len(target) else 1
    slot = torch.arange(len(target), device=target.device) - (degree.cumsum(0) - degree)[target]
    shape = (len(frac_coords), slots)
    padded_source = source.new_zeros(shape)
    padded_image = image.new_zeros((*shape, 3))
    mask = torch.zeros(shape, dtype=torch.bool, device=source.device)
    padded_source[target, slot], padded_image[target, slot], mask[target, slot] = source, image, True
    per_atom = lattice.repeat_interleave(num_atoms, 0, output_size=len(frac_coords))
    return PeriodicGraph.from_edges(padded_source, padded_image, mask, frac_coords, per_atom)
