"""pymatgen's ``StructureMatcher`` on arrays: the same mappings, tolerances and distances, some ten times as fast.

Two primitive cells are scaled to the same volume. Every set of three lattice vectors of the first that has the
lengths and angles of the second's, within tolerances, is a mapping; on each of them every atom of the rarest element is
laid onto the first one of the second crystal. Where then every atom has a counterpart within the site tolerance,
atoms are assigned so that the sum of squared distances is least, and the mean displacement is taken away
(Ong et al., Comput. Mater. Sci. 68, 314, 2013; ``pymatgen.core.structure_matcher``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpcdvae.structures.crystal import Crystal, lattice_from_parameters
from dpcdvae.structures.lattice_mapping import (
    Floats,
    Integers,
    angles_between,
    lattice_mappings,
    vector_lengths,
)
from dpcdvae.structures.reduction import lll_reduced
from dpcdvae.structures.tolerances import Tolerances

Flags = npt.NDArray[np.bool_]

ALGORITHM = "1"
"""To be raised with every change of the numbers."""

_HELD = 30_000  # differences of positions held at a time, so that they stay in the processor's cache
_FEW = 8  # atoms
_IMAGES = np.stack(np.meshgrid(*[[-1.0, 0.0, 1.0]] * 3, indexing="ij"), -1).reshape(-1, 3)


@dataclass(frozen=True)
class Distance:
    """How far two crystals are apart in their best mappings, in units of (V/N)^(1/3); infinite without a match.

    Attributes:
        rms: the least rms displacement, as of ``get_rms_dist``.
        largest: the least largest displacement: finite where ``fit`` says yes.
    """

    rms: float
    largest: float


def compare(
    firsts: Sequence[Crystal], second: Crystal, tolerances: Tolerances, mappings: Sequence[Integers] | None = None
) -> list[Distance]:
    """Compares each of several crystals with ``second``, all in primitive cells.

    The order within a pair matters a little, as it does in pymatgen: the lattice vectors of the first are looked for.

    Args:
        mappings: those of each of ``firsts``, where :func:`lattice_mappings` has already found them.

    Raises:
        ValueError: as :func:`lattice_mappings`.
    """
    if mappings is None:
        mappings = [lattice_mappings(first, second, tolerances) for first in firsts]
    same = np.argsort(second.atomic_numbers, kind="stable")
    target = second.lattice / second.volume ** (1 / 3)
    moved, mapped = [], []
    for first, matrices in zip(firsts, mappings, strict=True):
        if len(matrices):
            coords = np.empty_like(first.frac_coords)
            coords[same] = first.frac_coords[np.argsort(first.atomic_numbers, kind="stable")]
            moved.append(coords @ np.linalg.inv(matrices))
            mapped.append(matrices @ (first.lattice / first.volume ** (1 / 3)))
    rms, largest = np.full((2, len(firsts)), np.inf)
    if moved:
        owner = np.repeat(np.arange(len(firsts)), [len(matrices) for matrices in mappings])
        forbidden = second.atomic_numbers[:, None] != second.atomic_numbers
        placed = _Placed(
            np.concatenate(moved), np.concatenate(mapped), target, second.frac_coords, forbidden, tolerances
        )
        for which, found in placed.displacements():
            np.minimum.at(rms, owner[which], np.sqrt((found**2).mean(axis=1)))
            np.minimum.at(largest, owner[which], found.max(axis=1))
    rms[rms >= tolerances.stol] = largest[largest >= tolerances.stol] = np.inf
    return [Distance(float(r), float(m)) for r, m in zip(rms, largest, strict=True)]


class _Placed:
    """Crystals in mappings onto a second one, and in each the translations that lay an atom onto its rarest.

    Args:
        first: (m, n, 3) fractional coordinates in the lattices ``mapped`` (m, 3, 3), which resemble ``target`` (3, 3).
        second: (n, 3) fractional coordinates, atom by atom of the same elements.
        forbidden: (n, n) pairs of atoms of different elements.
    """

    def __init__(
        self, first: Floats, mapped: Floats, target: Floats, second: Floats, forbidden: Flags, tolerances: Tolerances
    ) -> None:
        self.first, self.second, self.forbidden, self.stol = first, second, forbidden, tolerances.stol
        lengths = (vector_lengths(mapped) + vector_lengths(target)) / 2
        self.average = lattice_from_parameters(lengths, (angles_between(mapped) + angles_between(target)) / 2)
        self.normalisation = (len(second) / np.abs(np.linalg.det(self.average))) ** (1 / 3)
        self.tolerance = _fractional_tolerance(self.average, self.normalisation, self.stol)

    def displacements(self) -> Iterator[tuple[Integers, Floats]]:
        """(c,) which mapping, (c, n) normalised displacements of the atoms: all translations that may be a match."""
        n = len(self.second)
        anchor = int(self.forbidden.sum(axis=1).argmax())
        anchored = ~self.forbidden[anchor]
        shifts = (self.first[:, anchored] - self.second[anchor]).reshape(-1, 3)
        mapping = np.repeat(np.arange(len(self.first)), anchored.sum())
        for rows in (slice(0, _FEW), slice(_FEW, n)):  # most translations already fail for the first few atoms
            atoms = len(self.second[rows])
            if atoms and len(mapping):
                parts = _parts(len(mapping), n * atoms)
                kept = np.concatenate([self._near(mapping[part], shifts[part], rows) for part in parts])
                mapping, shifts = mapping[kept], shifts[kept]
        for part in _parts(len(mapping), n * n):
            yield self._assigned(mapping[part], shifts[part])

    def _difference(self, mapping: Integers, shifts: Floats, rows: slice) -> Floats:
        """(c, rows, n, 3) from atoms of the second crystal to those of the first, wrapped."""
        difference = self.first[mapping][:, None] - self.second[rows, None] - shifts[:, None, None]
        difference -= np.round(difference)
        return difference

    def _near(self, mapping: Integers, shifts: Floats, rows: slice) -> Flags:
        """(c,) whether each of these atoms has a counterpart within the tolerance."""
        near = np.abs(self._difference(mapping, shifts, rows)) <= self.tolerance[mapping][:, None, None]
        return np.asarray((near.all(axis=-1) & ~self.forbidden[rows]).any(axis=-1).all(axis=-1), bool)

    def _assigned(self, mapping: Integers, shifts: Floats) -> tuple[Integers, Floats]:
        """Atoms paired up, the mean displacement taken away; without the placements in which one stays alone."""
        n = len(self.second)
        used, which = np.unique(mapping, return_inverse=True)
        basis, whole = lll_reduced(self.average[used])
        difference = self._difference(mapping, shifts, slice(n)).reshape(-1, n * n, 3)
        fractional = difference @ np.linalg.inv(whole)[which]
        fractional -= np.round(fractional)
        tolerance = _fractional_tolerance(basis, self.normalisation[used], self.stol)[which]
        impossible = (np.abs(fractional) > tolerance[:, None, :]).any(axis=-1).reshape(-1, n, n) | self.forbidden
        vectors = _shortest(fractional, basis[which], ~impossible.reshape(-1, n * n)).reshape(-1, n, n, 3)
        squares = (vectors**2).sum(axis=-1)
        squares[impossible] = 1e20
        partner = _assign(squares)
        best = np.take_along_axis(vectors, partner[:, :, None, None], axis=2)[:, :, 0]
        best = best - best.mean(axis=1, keepdims=True)
        displacements = np.sqrt((best**2).sum(axis=-1)) * self.normalisation[mapping, None]
        paired = ~np.take_along_axis(impossible, partner[:, :, None], axis=2)[:, :, 0].any(axis=1)
        return mapping[paired], displacements[paired]


def _parts(count: int, each: int) -> Iterator[slice]:
    """Slices of so many that few enough differences are held at a time."""
    size = max(1, _HELD // each)
    return (slice(start, start + size) for start in range(0, count, size))


def _shortest(fractional: Floats, basis: Floats, possible: Flags) -> Floats:
    """(c, p, 3) shortest Cartesian vectors where they are ``possible`` (c, p), looked for in 27 cells."""
    images = _IMAGES @ basis  # (c, 27, 3)
    squared = (images**2).sum(axis=-1)
    if possible.mean() > 0.2:
        cartesian = fractional @ basis
        squares = 2 * cartesian @ images.swapaxes(1, 2) + squared[:, None, :]
        vectors: Floats = cartesian + np.take_along_axis(images, squares.argmin(axis=-1)[:, :, None], axis=1)
        return vectors
    vectors = np.zeros_like(fractional)
    c, p = np.nonzero(possible)
    chosen = (fractional[c, p][:, None] @ basis[c])[:, 0]
    nearest = (2 * (images[c] @ chosen[:, :, None])[:, :, 0] + squared[c]).argmin(axis=-1)
    vectors[c, p] = chosen + images[c, nearest]
    return vectors


def _assign(squares: Floats) -> Integers:
    """(c, n) for each row of (c, n, n) its column, so that the sum is least."""
    from scipy.optimize import linear_sum_assignment

    partner: Integers = squares.argmin(axis=-1)
    ordered = np.sort(partner, axis=-1)
    for k in np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=-1)):
        partner[k] = linear_sum_assignment(squares[k])[1]
    return partner


def _fractional_tolerance(lattices: Floats, normalisation: Floats, stol: float) -> Floats:
    """(m, 3) twice the site tolerance, in fractions of the distances of lattice planes."""
    planes = np.sqrt((np.linalg.inv(lattices) ** 2).sum(axis=-2))
    tolerance: Floats = planes * (2 * stol / normalisation)[:, None]
    return tolerance
