"""Periodic graphs with a fixed number of neighbour slots per atom.

Both networks store their edges in an (atoms, slots) layout: sums over the neighbours of an atom are
then plain dense products, and the triplets of an atom are a (slots, slots) block. Empty slots are
masked. ``reverse`` pairs every edge with the one in the opposite direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcdvae.lattice import full_precision, heights, wrap

# Two neighbours whose distances differ by less than this (relative) belong to one shell.
SHELL_TOLERANCE = 1e-4
# Atom-image distances held in memory at once by the neighbour search.
MAX_DISTANCES = 4_000_000


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
        flat = edge_features.flatten(0, 1)
        padded = torch.cat([flat, flat.new_zeros(1, flat.shape[1])])
        return padded[self.reverse]

    @full_precision
    def cosines(self) -> Tensor:
        """(N, K, K) cosine of the angle at atom i between its edges k and l."""
        return (self.vectors @ self.vectors.transpose(1, 2)).clamp(-1, 1)

    def triplet_mask(self) -> Tensor:
        """(N, K, K) True for two different edges of one atom."""
        different = ~torch.eye(self.mask.shape[1], dtype=torch.bool, device=self.mask.device)
        return self.mask[:, :, None] & self.mask[:, None, :] & different


def _reverse_slots(source: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    num_atoms, slots = source.shape
    reach = image.abs().amax() + 1 if image.numel() else 1
    base = 2 * reach + 1
    key = ((image[..., 0] + reach) * base + image[..., 1] + reach) * base + image[..., 2] + reach
    opposite = ((reach - image[..., 0]) * base + reach - image[..., 1]) * base + reach - image[..., 2]
    atom = torch.arange(num_atoms, device=source.device)
    key = (key * num_atoms + source).masked_fill(~mask, -1)
    wanted = (opposite * num_atoms + atom[:, None]).masked_fill(~mask, -2)
    found = key[source] == wanted[..., None]
    slot = source * slots + found.to(torch.int8).argmax(-1)
    return torch.where(found.any(-1), slot, num_atoms * slots)


@full_precision
def radius_graph(
    frac_coords: Tensor, lattice: Tensor, num_atoms: Tensor, cutoff: float, max_neighbours: int,
    *, complete: bool = True,
) -> PeriodicGraph:  # fmt: skip
    """The nearest neighbours of every atom within ``cutoff``, over as many images as that needs.

    A shell of equal distances (relative tolerance ``SHELL_TOLERANCE``) that the cap would split is left
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
    wrapped = wrap(frac_coords)
    crystal = torch.repeat_interleave(num_atoms, output_size=len(frac_coords))
    first = num_atoms.cumsum(0) - num_atoms
    box = [1, 1, 1]
    found = _search(wrapped, lattice, num_atoms, crystal, first, cutoff, max_neighbours, box, centred=complete)
    if complete:
        # The (K+1)-th distance over the nearest images bounds the true one: it tells whether more images matter.
        reach = found[0][:, max_neighbours].clamp(max=cutoff)
        needed = torch.floor(reach[:, None] / heights(lattice)[crystal] + 0.5).long().amax(0).tolist()
        if max(needed) > 1:
            found = _search(wrapped, lattice, num_atoms, crystal, first, cutoff, max_neighbours, needed)
    distances, source, image = found
    mask = _whole_shells(distances) if complete else distances[:, :max_neighbours].isfinite()

    source, image = source[:, :max_neighbours], image[:, :max_neighbours]
    per_atom = lattice[crystal]
    # Images counted for wrapped coordinates -> for the coordinates as given.
    shift = (wrapped - frac_coords).round().long()
    image = image + shift[source] - shift[:, None]
    return PeriodicGraph.from_edges(source, image, mask, frac_coords, per_atom)


def _whole_shells(distances: Tensor) -> Tensor:
    """(N, K + 1) sorted distances -> (N, K) True for those of shells that the first K hold whole."""
    ranked = distances[:, :-1]
    ends_shell = (distances[:, 1:] - ranked > SHELL_TOLERANCE * ranked) & ranked.isfinite()
    position = torch.arange(1, ranked.shape[1] + 1, device=ranked.device)
    keep = torch.where(ends_shell, position, 0).amax(1)
    keep = torch.where(ranked.isfinite().all(1) & (keep == 0), ranked.shape[1], keep)
    return (position <= keep[:, None]) & ranked.isfinite()


def _search(
    wrapped: Tensor, lattice: Tensor, num_atoms: Tensor, crystal: Tensor, first: Tensor,
    cutoff: float, max_neighbours: int, box: Sequence[int], *, centred: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The max_neighbours + 1 nearest images of every atom within a box of cells, sorted; inf beyond the cutoff.

    The box is centred on the image of the neighbour that is nearest in fractional coordinates, or on the atom's cell.
    """
    images = torch.cartesian_prod(*(torch.arange(-cells, cells + 1, device=wrapped.device) for cells in box))
    largest = int(num_atoms.max())
    candidate = torch.arange(largest, device=wrapped.device)
    count = max_neighbours + 1
    per_chunk = max(1, MAX_DISTANCES // (largest * len(images)))
    parts = []
    for atoms in torch.arange(len(wrapped), device=wrapped.device).split(per_chunk):
        owner = crystal[atoms]
        source = (first[owner, None] + candidate).clamp(max=len(wrapped) - 1)
        exists = candidate < num_atoms[owner, None]
        delta = wrapped[source] - wrapped[atoms, None]
        nearest = delta.round() if centred else torch.zeros_like(delta)
        frac = (delta - nearest)[:, :, None] + images.to(delta.dtype)
        cart = frac @ lattice[owner, None]
        squared = cart.square().sum(-1)
        itself = (source == atoms[:, None])[..., None] & (images == 0).all(-1)
        squared = squared.masked_fill(itself | ~exists[..., None] | (squared > cutoff**2), torch.inf).flatten(1)
        if squared.shape[1] < count:
            squared = torch.nn.functional.pad(squared, (0, count - squared.shape[1]), value=torch.inf)
        values, flat = squared.topk(count, largest=False, sorted=True)
        slot = torch.div(flat, len(images), rounding_mode="floor").clamp(max=largest - 1)
        image = images[flat % len(images)] - nearest.gather(1, slot[..., None].expand(-1, -1, 3)).long()
        parts.append((values.sqrt(), source.gather(1, slot), image))
    distances, sources, chosen = zip(*parts, strict=True)
    return torch.cat(distances), torch.cat(sources), torch.cat(chosen)


@full_precision
def bond_graph(
    bonds: Tensor, bond_images: Tensor, num_bonds: Tensor, num_atoms: Tensor, frac_coords: Tensor, lattice: Tensor
) -> PeriodicGraph:
    """Both directions of given bonds (see :class:`~dpcdvae.table.CrystalTable`) in slots.

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
