"""CIF written: P1, all atoms listed, id and properties as items of our own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import quote

import numpy as np

from dpcdvae.structures.crystal import Crystal

CELL = [f"_cell_{kind}" for kind in ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")]
SITE = "_atom_site_"
# Our own items; CIF reserves no prefix for them, and other readers ignore unknown items.
ID, PROPERTY_NAME, PROPERTY_VALUE = "_dpcdvae_id", "_dpcdvae_property_name", "_dpcdvae_property_value"


def cif_text(crystal: Crystal) -> str:
    """P1 CIF with 8 decimals, ASCII, the same for the same crystal; id and properties as own items.

    A left-handed cell (a, b, c) is written as (-a, -b, -c) with negated coordinates: the same atoms in
    space. Lengths and angles alone would turn it into its mirror image.
    """
    crystal = right_handed(crystal)
    label = re.sub(r"[^A-Za-z0-9_.+-]", "_", crystal.id)[:70] or crystal.formula
    # + 0.0 and round: no "-0.00000000"
    lengths, angles, coords = (np.round(v, 8) + 0.0 for v in (crystal.lengths, crystal.angles, crystal.frac_coords))
    lines = [f"data_{label}"]
    if crystal.id:
        lines.append(f"{ID} '{_quoted(crystal.id)}'")
    lines += [f"{tag} {value:.8f}" for tag, value in zip(CELL, [*lengths, *angles], strict=True)]
    composition = " ".join(f"{symbol}{count}" for symbol, count in crystal.composition.items())
    lines += [
        f"_cell_volume {crystal.volume:.8f}",
        f"_chemical_formula_sum '{composition}'",
        "_symmetry_space_group_name_H-M 'P 1'",
        "_symmetry_Int_Tables_number 1",
        "loop_",
        " _symmetry_equiv_pos_site_id",
        " _symmetry_equiv_pos_as_xyz",
        "  1 'x, y, z'",
    ]
    if crystal.properties:
        lines += ["loop_", f" {PROPERTY_NAME}", f" {PROPERTY_VALUE}"]
        lines += [f"  '{_quoted(name)}' {float(value)!r}" for name, value in crystal.properties.items()]
    columns = ("type_symbol", "label", "symmetry_multiplicity", "fract_x", "fract_y", "fract_z", "occupancy")
    lines += ["loop_", *(f" {SITE}{column}" for column in columns)]
    lines += [
        f"  {symbol} {symbol}{index} 1 {x:.8f} {y:.8f} {z:.8f} 1"
        for index, (symbol, (x, y, z)) in enumerate(zip(crystal.symbols, coords, strict=True))
    ]
    return "\n".join(lines) + "\n"


def render_cif(crystals: Sequence[Crystal]) -> bytes:
    return "\n".join(cif_text(crystal) for crystal in crystals).encode("ascii")


def right_handed(crystal: Crystal) -> Crystal:
    """The same atoms in space, described by a cell with a positive triple product."""
    if np.linalg.det(crystal.lattice) >= 0:
        return crystal
    return replace(crystal, frac_coords=-crystal.frac_coords, lattice=-crystal.lattice)


def _quoted(text: str) -> str:
    """Any text as printable ASCII without quotes; ``unquote`` undoes it."""
    return quote(text, safe=" !$&()*+,-./:;<=>?@[]^_`{|}~")
