"""An order of the atoms and an origin that do not depend on those of the file.

The origin is an atom of the rarest element, and the atoms come by (element, distance from the origin, coordinates). Of
several such origins the one with the first of all lists is taken. The cell stays: a reduced cell of high symmetry has
settings of its axes that are as good, and which one the data have still shows.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from dpcdvae.ftcp.padded_sites import Sites
from dpcdvae.tensors.lattice import full_precision

# Distances and coordinates are compared in steps, so that rounding decides nothing among equivalent atoms. The offsets
# keep the special values 0, 1/4, 1/3, 1/2 and whole tenths of Å away from the edges of a step.
DISTANCE_STEP, DISTANCE_OFFSET = 0.02, 0.0071  # Å
STEPS, COORDINATE_OFFSET = 500, 0.00127  # of a cell length
FARTHEST = 2**14  # steps
LAST = torch.iinfo(torch.int64).max  # behind every atom
CORNERS = tuple(product((0.0, 1.0), repeat=3))


@full_precision
def canonical(sites: Sites) -> Sites:
    """The same crystals with the origin and the order of this module; coordinates from just below 0 to just below 1."""
    numbers, lattice = sites.numbers, sites.lattice.double()
    frac = sites.frac.double()
    origins, usable = _origins(numbers)  # (C, K)
    start = frac.gather(1, origins[..., None].expand(-1, -1, 3))
    moved = _wrapped(frac[:, None] - start[:, :, None])  # (C, K, S, 3)
    keys = _keys(numbers, moved, lattice)
    keys = torch.where(usable[..., None], keys, LAST)
    ordered, order = keys.sort(-1)
    best = _first_list(ordered)  # (C,)
    rows = torch.arange(len(numbers), device=numbers.device)
    order, moved = order[rows, best], moved[rows, best]
    numbers = numbers.gather(1, order)
    frac = moved.gather(1, order[..., None].expand(-1, -1, 3)) * (numbers > 0)[..., None]
    return Sites(numbers, frac.to(sites.frac.dtype), sites.lattice)


def _origins(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """(C, K) sites of the rarest elements of each crystal, and which of these entries are any."""
    occupied = numbers > 0
    counts = ((numbers[:, :, None] == numbers[:, None, :]) & occupied[:, None, :]).sum(-1)
    counts = torch.where(occupied, counts, numbers.shape[1] + 1)
    rarest = counts == counts.amin(1, keepdim=True)
    most = int(rarest.sum(1).max()) if len(numbers) else 0
    origins = rarest.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    return origins, rarest.gather(1, origins)


def _wrapped(frac: Tensor) -> Tensor:
    """Into [-offset, 1 - offset), so that rounding does not part 0 from itself."""
    shifted = frac + COORDINATE_OFFSET
    return shifted - torch.floor(shifted) - COORDINATE_OFFSET


def _keys(numbers: Tensor, frac: Tensor, lattice: Tensor) -> Tensor:
    """(C, K, S) whole numbers in the order of the atoms: element, distance, x, y, z."""
    metric = lattice @ lattice.mT
    # |f - s|² = f·Gf - 2 s·Gf + s·Gs for the corners s of the cell, one of which is the nearest in most reduced cells.
    turned = frac @ metric[:, None]
    corners = torch.tensor(CORNERS, dtype=frac.dtype, device=frac.device)
    own = torch.einsum("pi,cij,pj->cp", corners, metric, corners)
    squares = (turned * frac).sum(-1, keepdim=True) - 2 * turned @ corners.T + own[:, None, None]
    distance = squares.amin(-1).clamp(min=0).sqrt()
    steps = ((distance + DISTANCE_OFFSET) / DISTANCE_STEP).long().clamp(max=FARTHEST - 1)
    cells = ((frac + COORDINATE_OFFSET) * STEPS).long().clamp(0, STEPS - 1)
    key = numbers[:, None].expand_as(steps)
    for value, size in ((steps, FARTHEST), *((cells[..., axis], STEPS) for axis in range(3))):
        key = key * size + value
    return torch.where(numbers[:, None] > 0, key, LAST)


def _first_list(ordered: Tensor) -> Tensor:
    """(C,) the first of the lists (C, K, S) of each crystal, compared entry by entry."""
    wins = torch.ones(ordered.shape[:2], dtype=torch.bool, device=ordered.device)
    for entry in ordered.unbind(-1):
        candidates = torch.where(wins, entry, LAST)
        wins = wins & (entry == candidates.amin(1, keepdim=True))
    return wins.to(torch.int8).argmax(1)
