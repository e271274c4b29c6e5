"""The points of reciprocal space at which a crystal is described."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

POINTS = 59
RADIUS, WIDER_RADIUS = 1.297, 1.4  # 1/Å; the second where the first holds less than 60 points, the origin included
SMALLEST_SHELL = 6  # |h| + |k| + |l|: 376 points, enough for most cells


def reciprocal_points(lattice: Tensor) -> tuple[Tensor, Tensor]:
    """The first points by |h| + |k| + |l|, then the largest h, k, l first, within a sphere around the origin.

    Args:
        lattice: (C, 3, 3) Å, not degenerate.

    Returns:
        hkl (C, 59, 3), and their lengths |h a* + k b* + l c*| (C, 59) in 1/Å, without the factor 2π. Where the sphere
        holds fewer points, the rest is 0.
    """
    reciprocal = torch.linalg.inv(lattice.double()).mT  # rows a*, b*, c*
    # |h| = |g·a| <= |g| |a|: no point of the sphere lies in a higher shell.
    highest = (WIDER_RADIUS * torch.linalg.vector_norm(lattice.double(), dim=-1)).floor().sum(-1)
    hkl = lattice.new_zeros((len(lattice), POINTS, 3))
    lengths = lattice.new_zeros((len(lattice), POINTS))
    todo, shell = torch.arange(len(lattice), device=lattice.device), SMALLEST_SHELL
    while len(todo):
        points = _octahedron(shell).to(reciprocal)
        size = torch.linalg.vector_norm(points @ reciprocal[todo], dim=-1)  # (todo, P)
        narrow = size <= RADIUS
        inside = torch.where(narrow.sum(1, keepdim=True) < POINTS, size <= WIDER_RADIUS, narrow)
        rank = inside.cumsum(1)
        chosen = inside & (rank <= POINTS)
        finished = (narrow.sum(1) >= POINTS) | (highest[todo] <= shell)
        row, point = torch.nonzero(chosen & finished[:, None], as_tuple=True)
        place = (todo[row], rank[row, point] - 1)
        hkl[place] = points[point].to(hkl)
        lengths[place] = size[row, point].to(lengths)
        todo, shell = todo[~finished], 2 * shell
    return hkl, lengths


@cache
def _octahedron(shell: int) -> Tensor:
    """(P, 3) all hkl but 0 with |h| + |k| + |l| <= shell, in the order of :func:`reciprocal_points`."""
    side = torch.arange(-shell, shell + 1)
    points = torch.cartesian_prod(side, side, side)
    total = points.abs().sum(1)
    points, total = points[(total > 0) & (total <= shell)], total[(total > 0) & (total <= shell)]
    key = total
    for axis in range(3):
        key = key * (2 * shell + 1) + (shell - points[:, axis])
    return points[key.argsort()]
