"""CIF written, in P1 or with its symmetry; id and properties are items of our own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.properties import outside_names

if TYPE_CHECKING:
    from dpcdvae.structures.symmetrised import Symmetrised

CELL = [f"_cell_{kind}" for kind in ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")]
SITE = "_atom_site_"
# Our own items; CIF reserves no prefix for them, and other readers ignore unknown items.
ID, PROPERTY_NAME, PROPERTY_VALUE = "_dpcdvae_id", "_dpcdvae_property_name", "_dpcdvae_property_value"


def cif_text(crystal: Crystal, symmetry: Symmetrised | None = None) -> str:
    """A CIF with 8 decimals, ASCII, the same for the same crystal; id and properties as own items.

    Without ``symmetry`` it is P1 with all atoms. A left-handed cell (a, b, c) is written as (-a, -b, -c) with negated
    coordinates: the same atoms in space. Lengths and angles alone would turn it into its mirror image.

    Args:
        symmetry: of the crystal, to write the space group, its operations, and one atom for each set of images.
    """
    crystal = right_handed(crystal if symmetry is None else symmetry.crystal)
    label = re.sub(r"[^A-Za-z0-9_.+-]", "_", crystal.id)[:70] or crystal.formula
    # + 0.0 and round: no "-0.00000000"
    lengths, angles, coords = (np.round(v, 8) + 0.0 for v in (crystal.lengths, crystal.angles, crystal.frac_coords))
    lines = [f"data_{label}"]
    if crystal.id:
        lines.append(f"{ID} '{_quoted(crystal.id)}'")
    lines += [f"{tag} {value:.8f}" for tag, value in zip(CELL, [*lengths, *angles], strict=True)]
    composition = " ".join(f"{symbol}{count}" for symbol, count in crystal.composition.items())
    lines += [f"_cell_volume {crystal.volume:.8f}", f"_chemical_formula_sum '{composition}'"]
    if symmetry is not None:
        lines.append(f"_symmetry_space_group_name_Hall '{symmetry.hall}'")
    lines += [
        f"_symmetry_space_group_name_H-M '{'P 1' if symmetry is None else symmetry.symbol}'",
        f"_symmetry_Int_Tables_number {1 if symmetry is None else symmetry.number}",
        "loop_",
        " _symmetry_equiv_pos_site_id",
        " _symmetry_equiv_pos_as_xyz",
    ]
    operations = ("x, y, z",) if symmetry is None else symmetry.operations
    lines += [f"  {number} '{operation}'" for number, operation in enumerate(operations, 1)]
    if properties := outside_names(crystal.properties):
        lines += ["loop_", f" {PROPERTY_NAME}", f" {PROPERTY_VALUE}"]
        lines += [f"  '{_quoted(name)}' {value!r}" for name, value in properties.items()]
    columns = ("type_symbol", "label", "symmetry_multiplicity", "fract_x", "fract_y", "fract_z", "occupancy")
    lines += ["loop_", *(f" {SITE}{column}" for column in columns)]
    every = dict.fromkeys(range(crystal.num_atoms), 1)
    sites = every if symmetry is None else dict(zip(symmetry.sites, symmetry.multiplicities, strict=True))
    symbols = crystal.symbols
    for index, multiplicity in sites.items():
        symbol, (x, y, z) = symbols[index], coords[index]
        lines.append(f"  {symbol} {symbol}{index} {multiplicity} {x:.8f} {y:.8f} {z:.8f} 1")
    return "\n".join(lines) + "\n"


def render_cif(crystals: Sequence[Crystal]) -> bytes:
    return joined(cif_text(crystal) for crystal in crystals)


def joined(texts: Iterable[str]) -> bytes:
    """Several data blocks as the content of one file."""
    return "\n".join(texts).encode("ascii")


def right_handed(crystal: Crystal) -> Crystal:
    """The same atoms in space, described by a cell with a positive triple product."""
    if np.linalg.det(crystal.lattice) >= 0:
        return crystal
    return replace(crystal, frac_coords=-crystal.frac_coords, lattice=-crystal.lattice)


def _quoted(text: str) -> str:
    """Any text as printable ASCII without quotes; ``unquote`` undoes it."""
    return quote(text, safe=" !$&()*+,-./:;<=>?@[]^_`{|}~")
