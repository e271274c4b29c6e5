"""Neighbours of every atom within a radius, over as many periodic images as that needs."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dpcdvae.tensors.lattice import full_precision, heights, volume, wrap

# Two neighbours whose distances differ by less than this (relative) belong to one shell.
SHELL_TOLERANCE = 1e-4
# Times as many atoms as asked for are expected in the sphere that is searched first.
CROWD = 2.0
# Atom-image distances held in memory at once by the neighbour search.
MAX_DISTANCES = 4_000_000


class Neighbours(NamedTuple):
    """Edges as in :class:`~dpcdvae.tensors.graph.PeriodicGraph`, without the geometry and the reverse edges.

    Attributes:
        distances: (N, K) Å, as found.
    """

    source: Tensor
    image: Tensor
    mask: Tensor
    distances: Tensor


@full_precision
def neighbours_within(
    frac_coords: Tensor,
    lattice: Tensor,
    num_atoms: Tensor,
    cutoff: float,
    max_neighbours: int,
    *,
    complete: bool = True,
) -> Neighbours:
    """The edges of :func:`~dpcdvae.tensors.graph.radius_graph`, for networks that need distances alone.

    Time and memory grow with N K.
    """
    wrapped = wrap(frac_coords)
    crystal = torch.repeat_interleave(num_atoms, output_size=len(frac_coords))
    first = num_atoms.cumsum(0) - num_atoms
    cells = _Cells(wrapped, lattice, num_atoms, crystal, first)
    everyone = torch.arange(len(wrapped), device=wrapped.device)
    count = max_neighbours + 1
    if complete:
        # A sphere that holds more than count atoms unless they are spread very unevenly; who finds fewer looks again.
        per_atom = volume(lattice) / num_atoms
        radius = (per_atom * (CROWD * count * 3 / (4 * math.pi))).pow(1 / 3).clamp(max=cutoff)[crystal]
        found = _search(cells, everyone, radius, count)
        few = ((radius < cutoff) & ~found[0][:, -1].isfinite()).nonzero().squeeze(1)
        if len(few):
            again = _search(cells, few, torch.full_like(radius[few], cutoff), count)
            for old, new in zip(found, again, strict=True):
                old[few] = new
    else:
        found = _search(cells, everyone, torch.full_like(wrapped[:, 0], cutoff), count, centred=False)
    distances, source, image = found
    mask = _whole_shells(distances) if complete else distances[:, :max_neighbours].isfinite()

    source, image = source[:, :max_neighbours], image[:, :max_neighbours]
    # Images counted for wrapped coordinates -> for the coordinates as given.
    shift = (wrapped - frac_coords).round().long()
    image = image + shift[source] - shift[:, None]
    return Neighbours(source, image, mask, distances[:, :max_neighbours])


def _whole_shells(distances: Tensor) -> Tensor:
    """(N, K + 1) sorted distances -> (N, K) True for those of shells that the first K hold whole."""
    ranked = distances[:, :-1]
    ends_shell = (distances[:, 1:] - ranked > SHELL_TOLERANCE * ranked) & ranked.isfinite()
    position = torch.arange(1, ranked.shape[1] + 1, device=ranked.device)
    keep = torch.where(ends_shell, position, 0).amax(1)
    keep = torch.where(ranked.isfinite().all(1) & (keep == 0), ranked.shape[1], keep)
    return (position <= keep[:, None]) & ranked.isfinite()


class _Cells(NamedTuple):
    """The atoms among which neighbours are searched: wrapped (N, 3), lattice (C, 3, 3), num_atoms (C,),
    crystal (N,) of each atom, first (C,) atom of each crystal."""

    wrapped: Tensor
    lattice: Tensor
    num_atoms: Tensor
    crystal: Tensor
    first: Tensor


def _search(
    cells: _Cells, atoms: Tensor, radius: Tensor, count: int, *, centred: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """The ``count`` nearest images of every one of ``atoms`` (n,) within its ``radius`` (n,) Å.

    The box of cells that is searched is centred on the image of the neighbour that is nearest in fractional
    coordinates, and holds all within the radius; or (not ``centred``) it is the 27 cells around the atom's own.

    Returns:
        (n, count) each: distances, sorted, inf where there is none; source; and (n, count, 3) image.
    """
    box = [1, 1, 1]
    if centred:
        box = torch.floor(radius[:, None] / heights(cells.lattice)[cells.crystal[atoms]] + 0.5).long().amax(0).tolist()
    images = torch.cartesian_prod(*(torch.arange(-n, n + 1, device=atoms.device) for n in box))
    pairs = int(cells.num_atoms[cells.crystal[atoms]].max()) * len(images)
    parts = [
        _nearest(cells, some, radius[chosen], count, images, centred=centred)
        for chosen in torch.arange(len(atoms), device=atoms.device).split(max(1, MAX_DISTANCES // pairs))
        for some in (atoms[chosen],)
    ]
    distances, sources, chosen_images = zip(*parts, strict=True)
    return torch.cat(distances), torch.cat(sources), torch.cat(chosen_images)


def _nearest(
    cells: _Cells, atoms: Tensor, radius: Tensor, count: int, images: Tensor, *, centred: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`_search` among ``images`` (I, 3) for as many atoms as memory allows: all pairs in one crystal first."""
    crystal = cells.crystal[atoms]
    partners = cells.num_atoms[crystal]
    row = torch.repeat_interleave(partners)
    target = atoms[row]
    ends = partners.cumsum(0)
    source = torch.arange(len(row), device=row.device) + (cells.first[crystal] - ends + partners)[row]
    delta = cells.wrapped.index_select(0, source) - cells.wrapped.index_select(0, target)
    nearest = delta.round() if centred else torch.zeros_like(delta)
    frac = delta - nearest
    # Å, one component after the other, as products of so small matrices take far longer.
    offsets = images.to(frac.dtype) @ cells.lattice
    owner = crystal[row]
    squared: Tensor | None = None
    for axis in range(3):
        near = (frac * cells.lattice[:, :, axis].index_select(0, owner)).sum(1)
        component = near[:, None] + offsets[:, :, axis].index_select(0, owner)
        squared = component.square_() if squared is None else squared.addcmul_(component, component)
    assert squared is not None
    within = squared <= radius.square()[row, None]
    itself = (source == target).nonzero().squeeze(1)
    within[itself, len(images) // 2] = False

    # What is left is laid out anew, a row for each atom: the fewer columns, the faster they are ranked.
    flat = within.flatten().nonzero().squeeze(1)
    pair = torch.div(flat, len(images), rounding_mode="floor")
    place = row.index_select(0, pair)
    held = torch.bincount(place, minlength=len(atoms))
    width = max(int(held.max()), count) if len(atoms) else count
    column = torch.arange(len(flat), device=flat.device) - (held.cumsum(0) - held).index_select(0, place)
    slot = place * width + column
    ranked = squared.new_full((len(atoms) * width,), torch.inf)
    ranked[slot] = squared.flatten().index_select(0, flat)
    which = flat.new_zeros(len(atoms) * width)
    which[slot] = flat
    values, chosen = ranked.view(-1, width).topk(count, largest=False, sorted=True)
    flat = which.view(-1, width).gather(1, chosen)
    pair = torch.div(flat, len(images), rounding_mode="floor")
    image = images[flat - pair * len(images)] - nearest[pair].long()
    return values.sqrt(), source[pair], image
