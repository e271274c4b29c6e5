"""Reduced bases of lattices in numpy, many at a time: short vectors that span the same lattice.

There are two, each for what the other cannot do. The basis of Minkowski is the shortest there is, which the search for
contacts relies on: there the nearest image lies at most one cell away. That of Lenstra, Lenstra and Lovasz is not quite
as short, but it is the basis in which pymatgen's matcher pairs up atoms, so that its distances are found to the last
digit. Niggli's cell, which is one for all descriptions of a crystal, is pymatgen's (``standardise``,
``primitive_cells``).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_ROUNDS = 1000  # of Minkowski's reduction; ordinary cells need two or three


def minkowski_reduced(lattices: Floats) -> tuple[Floats, Floats]:
    """Shortest bases of the same lattices, by the greedy algorithm (Semaev 2001; Nguyen and Stehlé 2009).

    Args:
        lattices: (n, 3, 3) finite, with a volume; rows are the vectors.

    Returns:
        (n, 3, 3) bases of ascending length, and (n, 3, 3) integers T with ``frac_coords @ T`` the
        coordinates in them.
    """
    bases = lattices.copy()
    transforms = np.tile(np.eye(3), (len(lattices), 1, 1))
    active = np.arange(len(lattices))
    for _ in range(_ROUNDS):
        basis, transform = bases[active], transforms[active]
        before = np.linalg.norm(basis, axis=2).sum(axis=1)
        order = np.argsort(np.linalg.norm(basis, axis=2), axis=1, kind="stable")
        basis = np.take_along_axis(basis, order[:, :, None], axis=1)
        transform = np.take_along_axis(transform, order[:, None, :], axis=2)
        a, b = basis[:, 0], basis[:, 1]
        times = np.round(_dot(a, b) / _dot(a, a))
        basis[:, 1] -= times[:, None] * a
        transform[:, :, 0] += times[:, None] * transform[:, :, 1]
        nearest = _nearest_in_plane(basis)
        basis[:, 2] -= np.einsum("nk,nki->ni", nearest, basis[:, :2])
        transform[:, :, :2] += transform[:, :, 2, None] * nearest[:, None, :]
        bases[active], transforms[active] = basis, transform
        active = active[np.linalg.norm(basis, axis=2).sum(axis=1) < before * (1 - 1e-12)]
        if len(active) == 0:
            break
    order = np.argsort(np.linalg.norm(bases, axis=2), axis=1, kind="stable")
    return np.take_along_axis(bases, order[:, :, None], 1), np.take_along_axis(transforms, order[:, None, :], 2)


def _nearest_in_plane(basis: Floats) -> Floats:
    """(n, 2) integers: the point of the lattice of the first two vectors that is nearest to the third."""
    a, b, c = basis[:, 0], basis[:, 1], basis[:, 2]
    aa, ab, bb, ac, bc = _dot(a, a), _dot(a, b), _dot(b, b), _dot(a, c), _dot(b, c)
    determinant = np.maximum(aa * bb - ab**2, np.finfo(float).tiny)
    foot = np.stack([(bb * ac - ab * bc) / determinant, (aa * bc - ab * ac) / determinant], -1)
    # Zero stays in the choice, so that round-off in a flat plane can never make the third vector longer.
    corners = np.stack([np.floor(foot) + corner for corner in ((0, 0), (0, 1), (1, 0), (1, 1))] + [0 * foot], axis=1)
    rests = c[:, None] - corners @ basis[:, :2]
    return np.take_along_axis(corners, np.argmin(_dot(rests, rests), axis=1)[:, None, None], axis=1)[:, 0]


def lll_reduced(lattices: Floats) -> tuple[Floats, Floats]:
    """Bases (m, 3, 3) by the reduction of Lenstra, Lenstra and Lovasz (delta 0.75), as pymatgen's.

    Returns:
        The bases, and the integer matrices (m, 3, 3) that make them of the lattices.
    """
    basis, whole = lattices.copy(), np.tile(np.eye(3), (len(lattices), 1, 1))
    row = np.ones(len(lattices), np.int64)
    active = np.arange(len(lattices))
    while len(active):
        for below in (1, 0):
            part = active[row[active] > below]
            times = np.rint(_gram_schmidt(basis[part])[1][np.arange(len(part)), row[part], below])[:, None]
            for matrix in (basis, whole):
                matrix[part, row[part]] -= times * matrix[part, below]
        squares, u = _gram_schmidt(basis[active])
        here, k = np.arange(len(active)), row[active]
        good = squares[here, k] >= (0.75 - u[here, k, k - 1] ** 2) * squares[here, k - 1]
        swapped, k_swapped = active[~good], k[~good]
        for matrix in (basis, whole):
            matrix[swapped, k_swapped], matrix[swapped, k_swapped - 1] = (
                matrix[swapped, k_swapped - 1],
                matrix[swapped, k_swapped],
            )
        row[active] = np.where(good, k + 1, np.maximum(k - 1, 1))
        active = active[row[active] < 3]
    return basis, whole


def _gram_schmidt(basis: Floats) -> tuple[Floats, Floats]:
    """(m, 3) squared lengths of the orthogonalised rows, and (m, 3, 3) coefficients below the diagonal."""
    a, b, c = np.moveaxis(basis, -2, 0)
    u = np.zeros_like(basis)
    aa = (a * a).sum(axis=-1)
    u[:, 1, 0], u[:, 2, 0] = (a * b).sum(axis=-1) / aa, (a * c).sum(axis=-1) / aa
    b = b - u[:, 1, 0, None] * a
    bb = (b * b).sum(axis=-1)
    u[:, 2, 1] = (b * c).sum(axis=-1) / bb
    c = c - u[:, 2, 0, None] * a - u[:, 2, 1, None] * b
    return np.stack([aa, bb, (c * c).sum(axis=-1)], axis=-1), u


def _dot(x: Floats, y: Floats) -> Floats:
    product: Floats = np.einsum("...i,...i->...", x, y)
    return product
