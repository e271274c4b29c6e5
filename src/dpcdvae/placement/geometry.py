"""Distances between atoms of many crystals at once, periodic or not, and clusters cut out of crystals."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from dpcdvae.tensors.lattice import frac_to_cart, full_precision, minimum_image, reduced_basis, search_box


class Space:
    """Where atoms of C crystals lie: repeated by a lattice (C, 3, 3) Å, or in free space (None)."""

    def __init__(self, lattice: Tensor | None) -> None:
        self.lattice = lattice
        if lattice is not None:
            self._basis = reduced_basis(lattice)
            self._inverse = torch.linalg.inv(self._basis)
            # One of each pair of opposite cells, as |x - t| and |x + t| come of one product.
            half = [
                cell
                for cell in product(*(range(-n, n + 1) for n in search_box(self._basis, least=1)))
                if cell > (0, 0, 0)
            ]
            self._cells = torch.tensor(half).to(lattice) @ self._basis

    def select(self, crystals: Tensor) -> Space:
        """The space of some of the crystals."""
        part = object.__new__(Space)
        part.lattice = None
        if self.lattice is not None:
            part.lattice = self.lattice[crystals]
            part._basis, part._inverse = self._basis[crystals], self._inverse[crystals]
            part._cells = self._cells[crystals]
        return part

    @property
    def width(self) -> int:
        """Numbers in memory for each displacement while distances are computed."""
        return 1 if self.lattice is None else 1 + 2 * self._cells.shape[1]

    @full_precision
    def distances(self, displacements: Tensor, images: int = 1) -> Tensor:
        """Distances of the nearest images of displacements (C, ..., 3) Å: (C, ..., images), ascending.

        The first is that of the minimum image in any cell. The others are the nearest among the images searched for
        it: all cells around, in a reduced basis. In free space ``images`` is 1.
        """
        if self.lattice is None:
            free: Tensor = torch.linalg.vector_norm(displacements, dim=-1, keepdim=True)
            return free
        shape = displacements.shape[:-1]
        flat = displacements.reshape(shape[0], -1, 3)
        flat = flat - (flat @ self._inverse).round() @ self._basis
        squared = flat.square().sum(-1)
        lengths = self._cells.square().sum(-1, keepdim=True)
        change = (self._cells @ flat.mT).mul_(2)
        if images == 1:
            found = (lengths - change.abs_()).amin(1).clamp_(max=0)[..., None]
        else:
            found = _least(images, torch.zeros_like(squared), lengths - change, lengths + change)
        nearest: Tensor = found.add_(squared[..., None]).clamp_(min=0).sqrt_()
        return nearest.view(*shape, images)


def _least(count: int, first: Tensor, *others: Tensor) -> Tensor:
    """The ``count`` least of the numbers ``first`` (C, P) and ``others`` (C, k, P) each: (C, P, count), ascending.

    By insertion, one row of P numbers at a time: five times as fast on a CPU as ``topk`` over a last axis of 27.
    """
    least = [first]
    for new in (row for rows in others for row in rows.unbind(1)):
        for place, known in enumerate(least):
            least[place], new = torch.minimum(known, new), torch.maximum(known, new)
        if len(least) < count:
            least.append(new)
    return torch.stack(least, -1)


@full_precision
def unwrapped(frac_coords: Tensor, lattice: Tensor, num_atoms: Tensor) -> Tensor:
    """Clusters of the atoms of crystals, in images that hang together: (C, n, 3) Å, from (C, n, 3) fractional.

    They hang together by the minimum spanning tree of their minimum-image distances. Places beyond ``num_atoms`` (C,)
    hold zeros.
    """
    crystals, atoms = frac_coords.shape[:2]
    delta = frac_coords[:, None] - frac_coords[:, :, None]  # [c, i, j] from i to j
    cells = lattice[:, None].expand(-1, atoms * atoms, -1, -1).reshape(-1, 3, 3)
    vectors = minimum_image(delta.reshape(-1, 3), cells).view(crystals, atoms, atoms, 3)
    rows = torch.arange(crystals, device=lattice.device)
    positions = torch.zeros_like(frac_coords)
    positions[:, 0] = frac_to_cart(frac_coords[:, 0], lattice)
    for new, by in spanning_tree(torch.linalg.vector_norm(vectors, dim=-1), num_atoms):
        joining = (new != by)[:, None]
        positions[rows, new] = torch.where(joining, positions[rows, by] + vectors[rows, by, new], positions[rows, new])
    return positions


def spanning_tree(lengths: Tensor, num_atoms: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The minimum spanning tree of atoms with distances (C, n, n), from the first atom on, by Prim's algorithm.

    Returns:
        For each of n - 1 steps which atom (C,) joins, and which one in the tree (C,) it hangs on. Where all
        ``num_atoms`` (C,) are in the tree, both are the first. Of equal distances (to ``TIE``) those of the lowest
        atoms are taken.
    """
    lengths = ranked(lengths)
    crystals, atoms = lengths.shape[:2]
    rows = torch.arange(crystals, device=lengths.device)
    outside = torch.arange(atoms, device=lengths.device) < num_atoms[:, None]
    outside[:, 0] = False
    best, parent, steps = lengths[:, 0], torch.zeros_like(outside, dtype=torch.long), []
    for _ in range(atoms - 1):
        new = torch.where(outside.any(1), best.masked_fill(~outside, torch.inf).argmin(1), 0)
        steps.append((new, parent[rows, new]))
        outside[rows, new] = False
        nearer = lengths[rows, new] < best
        best, parent = torch.where(nearer, lengths[rows, new], best), torch.where(nearer, new[:, None], parent)
    return steps


TIE = 1e-3  # Å; distances that differ by less are equal, whatever the rounding


def ranked(distances: Tensor) -> Tensor:
    """Distances (..., n) rounded to ``TIE``, with the lowest index first among equal ones."""
    order = torch.arange(distances.shape[-1], device=distances.device)
    return (distances.double() / TIE).round() + order / (2 * distances.shape[-1] + 1)
