"""What the viewer needs of a crystal, small enough that a page holds thousands."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dpcdvae.drawing.cell_contents import (
    ATOM_SCALE,
    FACE_TOLERANCE,
    CellBonds,
    cell_bonds,
    cell_heights,
    drawn_radii,
    element_colour,
    viewing_rotation,
)
from dpcdvae.drawing.polyhedra import polyhedra_of
from dpcdvae.errors import InputError
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.elements import SYMBOLS

MOST_ATOMS = 5000
"""Of a crystal that is drawn: beyond it a browser turns it no more."""

_FRAME = re.compile(r"(.*)@(\d{1,9})", re.DOTALL)


def geometry(crystal: Crystal) -> dict[str, Any] | None:
    """A crystal for the viewer, in its frame (x right, y up, z towards the viewer); None for what cannot be drawn.

    Returns:
        ``lattice`` (9,) Å, rows are the vectors; ``numbers`` (n,); ``frac`` (3n,) from 0 to 1; ``near`` (3,) the
        fractional distance from a face within which an atom is drawn on the opposite face too; ``bonds`` (5e,) rows
        (i, j, image of j), each bond once; ``polyhedra``, each [centre, corners (4k,) rows (j, image),
        triangles (3t,), edges (2m,)].
    """
    if crystal.problem() is not None or crystal.num_atoms > MOST_ATOMS:
        return None
    bonds = cell_bonds(crystal)
    wrapped = crystal.frac_coords - np.floor(crystal.frac_coords)
    rows = np.column_stack([bonds.first, bonds.second, bonds.images])
    return {
        "lattice": _rounded(crystal.lattice @ viewing_rotation(crystal.lattice)),
        "numbers": crystal.atomic_numbers.tolist(),
        "frac": _rounded(wrapped),
        "near": _rounded(np.minimum(FACE_TOLERANCE / cell_heights(crystal), 0.2)),
        "bonds": rows[_once(bonds)].ravel().tolist(),
        "polyhedra": [
            [shape.centre, *(a.ravel().tolist() for a in (rows[shape.corners, 1:], shape.triangles, shape.edges))]
            for shape in polyhedra_of(crystal, bonds)
        ],
    }


def _once(bonds: CellBonds) -> npt.NDArray[np.bool_]:
    """(e,) True for one of the two directions in which each bond is listed."""
    images = bonds.images
    first_nonzero = np.take_along_axis(images, (images != 0).argmax(axis=1)[:, None], axis=1)[:, 0]
    once: npt.NDArray[np.bool_] = (bonds.first < bonds.second) | ((bonds.first == bonds.second) & (first_nonzero > 0))
    return once


def _rounded(values: npt.NDArray[np.float64]) -> list[float]:
    return [round(value, 4) for value in values.ravel().tolist()]


def elements(crystals: Sequence[Crystal]) -> dict[int, tuple[str, str, float]]:
    """Symbol, colour (Jmol's, #rrggbb) and drawn radius (Å) of every element that occurs, by atomic number."""
    radii, known = drawn_radii(), {}
    for number in sorted({z for crystal in crystals for z in crystal.atomic_numbers.tolist()}):
        red, green, blue = (round(255 * part) for part in element_colour(number).tolist())
        known[number] = (
            SYMBOLS[number],
            f"#{red:02x}{green:02x}{blue:02x}",
            round(ATOM_SCALE * float(radii[number]), 3),
        )
    return known


def films(ids: Sequence[str]) -> list[list[int]]:
    """Crystals that are the frames of one film, in order: two or more whose ids differ in what follows ``@`` alone.

    So do ``interpolate`` (``a-b@0``, ``a-b@1``, ...) and ``optimize`` (``a@0``, ``a@500``, ...) name theirs.
    """
    frames: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for place, id in enumerate(ids):
        if (parts := _FRAME.fullmatch(id)) is not None:
            frames[parts[1]].append((int(parts[2]), place))
    return [[place for _, place in sorted(found)] for found in frames.values() if len(found) > 1]


def partners(crystals: Sequence[Crystal], others: Sequence[Crystal]) -> list[int | None]:
    """For each crystal its place among the others: by id, or by order where no id is shared and the counts agree.

    Raises:
        InputError: neither.
    """
    places = {other.id: place for place, other in reversed(list(enumerate(others))) if other.id}
    found = [places.get(crystal.id) for crystal in crystals]
    if any(place is not None for place in found):
        return found
    if len(others) == len(crystals):
        return list(range(len(others)))
    raise InputError(
        f"--beside: no id is that of a crystal to show, and {len(others)} crystals cannot stand beside "
        f"{len(crystals)} by order: give the file that was made of these crystals"
    )
