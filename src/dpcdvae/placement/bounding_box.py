"""The cell of a cluster (lattice rule ``box``): its oriented bounding box, widened until no image comes too close.

CDVAE says of its G-SchNet baseline that the cell is "the smallest oriented bounding box found with PCA such that the
introduced periodicity does not cause structural invalidity", and no more. What is done here is our reading: the axes
are the principal axes of the atoms, and each edge is the least for which all images of atoms stay apart by ``CLOSEST``
times the smallest sum of two covalent radii in the cluster.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt

from dpcdvae.structures.element_data import covalent_radii

CLOSEST = 0.9  # of the smallest sum of covalent radii

Floats = npt.NDArray[np.float64]


def bounding_cell(numbers: npt.NDArray[np.int64], positions: Floats) -> tuple[Floats, Floats]:
    """The lattice (3, 3) Å, rectangular, and the fractional coordinates (n, 3) of a cluster's atoms in it.

    Args:
        numbers: (n,) atomic numbers with a covalent radius; positions: (n, 3) Å.
    """
    bound = CLOSEST * 2 * float(covalent_radii()[numbers].min())
    centred = positions - positions.mean(axis=0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1]  # the longest first
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(3)]
    placed = centred @ (axes * np.sign(largest))  # each axis one way, whatever LAPACK chooses
    edges = np.zeros(3)
    for axis in range(3):
        edges[axis] = _edge(placed, edges, axis, bound)
    corner = placed.min(axis=0)
    return np.diag(edges), (placed - corner) / edges


def _edge(positions: Floats, edges: Floats, axis: int, bound: float) -> float:
    """The shortest edge along ``axis`` that keeps images ``bound`` apart, where the edges of the axes before are known.

    The distance to an image one cell up grows with the edge, as this is no shorter than the box. So each pair of atoms,
    in that cell or one beside it along the axes before, asks for one length, and the longest of these is the edge.
    """
    delta = positions[None] - positions[:, None]  # [i, j] from i to j
    others = [other for other in range(3) if other != axis]
    longest = float(np.ptp(positions[:, axis]))
    beside = [(-1, 0, 1) if other < axis else (0,) for other in others]
    for shift in product(*beside):
        across = delta[..., others] + np.array(shift) * edges[others]
        room = bound**2 - (across**2).sum(axis=-1)
        wanted = np.sqrt(np.maximum(room, 0)) - delta[..., axis]
        longest = max(longest, float(wanted[room > 0].max(initial=0.0)))
    return longest
