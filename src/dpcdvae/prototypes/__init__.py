"""A data set the package builds itself: textbook structure types with lattice constants from radii.

Each type is one entry of :data:`STRUCTURE_TYPES`: a geometry (radii in, primitive cell out; the closed-form
condition that neighbours touch stands in its docstring) and the elements that go into it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import pi
from typing import Final

import numpy as np

from dpcdvae.prototypes import geometries as g
from dpcdvae.prototypes.primitive_cell import Cell
from dpcdvae.prototypes.radii import COVALENT, IONIC, METALLIC
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.elements import ATOMIC_NUMBERS

Radii = Mapping[str, float]
Members = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class StructureType:
    """One textbook structure.

    Attributes:
        name: its usual name. space_group: number in the International Tables.
        geometry: radii (Å) of the roles -> primitive cell and fractional coordinates of each role.
        families: which species may play the roles, each with the table of radii of each role.
    """

    name: str
    space_group: int
    geometry: Callable[..., Cell]
    families: tuple[tuple[tuple[Radii, ...], Members], ...]


def build_prototypes() -> list[Crystal]:
    """The crystals of all structure types, ids like ``rock_salt-NaCl``: the same list every time.

    Properties: ``packing_fraction``, the volume of the atoms' spheres over that of the cell, and ``mean_radius``
    in Å, both with the radii that built the crystal. Needs numpy alone.
    """
    return [
        _crystal(kind, tables, species)
        for kind in STRUCTURE_TYPES
        for tables, members in kind.families
        for species in members
    ]


def _crystal(kind: StructureType, tables: Sequence[Radii], species: Sequence[str]) -> Crystal:
    radii = [table[ion] for table, ion in zip(tables, species, strict=True)]
    lattice, sites = kind.geometry(*radii)
    symbols = [ion.rstrip("0123456789+-") for ion in species]
    counts = [len(coords) for coords in sites]
    divisor = int(np.gcd.reduce(counts))
    formula = "".join(f"{s}{n // divisor if n > divisor else ''}" for s, n in zip(symbols, counts, strict=True))
    spheres = np.repeat(radii, counts)
    packing = 4 / 3 * pi * float((spheres**3).sum()) / abs(float(np.linalg.det(lattice)))
    return Crystal(
        np.repeat([ATOMIC_NUMBERS[s] for s in symbols], counts),
        np.array([xyz for coords in sites for xyz in coords]),
        lattice,
        f"{kind.name}-{formula}",
        {"packing_fraction": packing, "mean_radius": float(spheres.mean())},
    )


def _every(*roles: str) -> Members:
    """All combinations of the species of each role."""
    return tuple(itertools.product(*(role.split() for role in roles)))


def _each(text: str) -> Members:
    """Members one by one, separated by commas."""
    return tuple(tuple(member.split()) for member in text.split(","))


_ALKALI: Final = "Li+ Na+ K+ Rb+"
_HALIDES: Final = "F- Cl- Br- I-"
_CHALCOGENIDES: Final = "O2- S2- Se2- Te2-"
_ION2: Final = (IONIC, IONIC)
_ION3: Final = (IONIC, IONIC, IONIC)
_ION4: Final = (IONIC, IONIC, IONIC, IONIC)
_BOND2: Final = (COVALENT, COVALENT)
_BOND3: Final = (COVALENT, COVALENT, COVALENT)
_METAL2: Final = (METALLIC, METALLIC)
_METAL3: Final = (METALLIC, METALLIC, METALLIC)

STRUCTURE_TYPES: Final = (
    # elements
    StructureType("fcc", 225, g.face_centred_cubic,
                  (((METALLIC,), _every("Al Ca Sr Ni Cu Rh Pd Ag Ir Pt Au Pb Th")),)),
    StructureType("bcc", 229, g.body_centred_cubic,
                  (((METALLIC,), _every("Li Na K Rb Cs Ba V Cr Fe Nb Mo Ta W")),)),
    StructureType("hcp", 194, g.hexagonal_close_packed,
                  (((METALLIC,), _every("Be Mg Sc Ti Co Zn Y Zr Ru Cd La Hf Re Os Tl")),)),
    StructureType("simple_cubic", 221, g.simple_cubic, (((COVALENT,), _every("Po")),)),
    StructureType("diamond", 227, g.diamond, (((COVALENT,), _every("C Si Ge Sn")),)),
    StructureType("lonsdaleite", 194, g.lonsdaleite, (((COVALENT,), _every("C Si Ge")),)),
    StructureType("graphite", 194, g.graphite, (((COVALENT,), _every("C")),)),
    # two species
    StructureType("rock_salt", 225, g.rock_salt, (
        (_ION2, _every(_ALKALI, _HALIDES) + _every("Ag+", "F- Cl- Br-")),
        (_ION2, _every("Mg2+ Ca2+ Sr2+ Ba2+", _CHALCOGENIDES)),
        (_ION2, _every("Ti2+ V2+ Mn2+ Fe2+ Co2+ Ni2+ Cd2+ Eu2+", "O2-") + _every("Pb2+", "S2- Se2- Te2-")),
        ((METALLIC, COVALENT), _every("Ti V Zr Nb Hf Ta", "C N") + _every("Sc Cr", "N")),
    )),
    StructureType("cesium_chloride", 221, g.cesium_chloride, (
        (_ION2, _every("Cs+ Tl+", "Cl- Br- I-")),
        (_METAL2, _each("Ni Al, Co Al, Fe Al, Ru Al, Cu Zn, Ag Mg, Ti Fe, Ti Co, Ti Ni, Y Ag, Y Cu, Zr Ru, Hf Ru, "
                        "Be Cu, Be Ni, Be Co")),
    )),
    StructureType("zinc_blende", 216, g.zinc_blende, (
        (_BOND2, _every("B Al Ga In", "N P As Sb") + _every("Be Zn Cd", "S Se Te")),
        (_BOND2, _every("Cu", "Cl Br I") + _each("Ag I, Si C")),
    )),
    StructureType("wurtzite", 186, g.wurtzite,
                  ((_BOND2, _every("Al Ga In", "N") + _each("Zn O, Zn S, Zn Se, Cd S, Cd Se, Be O, Ag I, Si C")),)),
    StructureType("boron_nitride", 194, g.boron_nitride, ((_BOND2, _each("B N")),)),
    StructureType("fluorite", 225, g.fluorite, (
        (_ION2, _every("Ca2+ Sr2+ Ba2+ Cd2+ Pb2+", "F-") + _every("Sr2+ Ba2+", "Cl-")),
        (_ION2, _every("Ce4+ Zr4+ Hf4+ Th4+ U4+", "O2-")),
    )),
    StructureType("antifluorite", 225, g.fluorite, ((_ION2, _every(_CHALCOGENIDES, _ALKALI)),)),
    StructureType("nickel_arsenide", 194, g.nickel_arsenide,
                  ((_ION2, _every("Ti2+ V2+ Cr2+ Fe2+ Co2+ Ni2+", "S2- Se2- Te2-")),)),
    StructureType("cadmium_iodide", 164, g.cadmium_iodide, (
        (_ION2, _every("Mg2+ Ca2+ Mn2+ Fe2+ Co2+ Cd2+ Pb2+", "I-") + _every("Mg2+ Mn2+ Fe2+ Co2+", "Br-")),
        (_ION2, _every("Ti4+ Zr4+ Hf4+ Sn4+ Pt4+", "S2- Se2-")),
    )),
    StructureType("cadmium_chloride", 166, g.cadmium_chloride,
                  ((_ION2, _every("Mg2+ Mn2+ Fe2+ Co2+ Ni2+ Zn2+ Cd2+", "Cl-") + _every("Ni2+ Cd2+", "Br-")),)),
    StructureType("rutile", 136, g.rutile, (
        (_ION2, _every("Ti4+ V4+ Cr4+ Mn4+ Ge4+ Ru4+ Sn4+ Ir4+ Pb4+", "O2-")),
        (_ION2, _every("Mg2+ Mn2+ Fe2+ Co2+ Ni2+ Zn2+", "F-")),
    )),
    StructureType("anatase", 141, g.anatase, ((_ION2, _every("Ti4+ V4+ Sn4+", "O2-")),)),
    StructureType("rhenium_trioxide", 221, g.rhenium_trioxide,
                  ((_ION2, _every("Re6+ W6+", "O2-") + _every("Al3+ Sc3+ Ti3+ V3+ Cr3+ Fe3+ Ga3+ In3+", "F-")),)),
    StructureType("cuprite", 224, g.cuprite, ((_ION2, _every("Cu+ Ag+", "O2-")),)),
    StructureType("l1_2", 221, g.l1_2, (
        (_METAL2, _each("Al Ni, Ga Ni, Si Ni, Ge Ni, Fe Ni, Mn Ni, Au Cu, Pd Cu, Pt Cu, Cu Au, Fe Pt, Mn Pt, Cr Pt, "
                        "Co Pt, Ti Pt, Sc Al, Ti Zn, Sn Ca, Sn La, In La, Tl Ca")),
    )),
    StructureType("l1_0", 123, g.l1_0, ((_METAL2, _each("Cu Au, Fe Pt, Co Pt, Fe Pd, Ti Al, Mn Ni, Mn Pt, Zn Pd")),)),
    StructureType("d0_3", 225, g.d0_3, ((_METAL2, _each("Fe Al, Fe Si, Fe Ga, Mn Si, Cu Sb")),)),
    StructureType("a15", 223, g.a15, (
        (_METAL2, _each("Nb Sn, Nb Al, Nb Ge, Nb Ga, V Si, V Ga, V Ge, Cr Si, Mo Si, Ti Au, Ti Ir, Mo Ir")),
    )),
    StructureType("aluminium_diboride", 191, g.aluminium_diboride,
                  (((METALLIC, COVALENT), _every("Mg Al Ti V Cr Mn Zr Nb Hf Ta", "B")),)),
    StructureType("tungsten_carbide", 187, g.tungsten_carbide,
                  (((METALLIC, COVALENT), _each("W C, Mo C, Ru C, W N, Nb N, Ta N")),)),
    StructureType("calcium_hexaboride", 221, g.calcium_hexaboride,
                  (((METALLIC, COVALENT), _every("Ca Sr Ba Y La Th", "B")),)),
    # three and more species
    StructureType("perovskite", 221, g.perovskite, (
        (_ION3, _every("Ca2+ Sr2+ Ba2+ Pb2+", "Ti4+ Zr4+ Hf4+ Sn4+", "O2-")),
        (_ION3, _every("Na+ K+", "Nb5+ Ta5+", "O2-")),
        (_ION3, _every("La3+", "Al3+ Sc3+ V3+ Cr3+ Fe3+ Co3+ Ga3+", "O2-")),
        (_ION3, _every("K+ Rb+ Cs+", "Mg2+ Mn2+ Fe2+ Co2+ Ni2+ Zn2+", "F-")),
        (_ION3, _every("Cs+", "Pb2+ Ca2+ Cd2+", "Cl- Br- I-")),
    )),
    StructureType("antiperovskite", 221, g.antiperovskite, ((_ION3, _every("Li+ Na+ K+", "O2-", "Cl- Br-")),)),
    StructureType("elpasolite", 225, g.elpasolite, (
        (_ION4, _every("K+ Rb+ Cs+", "Na+", "Al3+ Sc3+ Ga3+ In3+", "F-")),
        (_ION4, _every("Cs+", "Na+ Ag+", "In3+ Y3+ Bi3+", "Cl-")),
    )),
    StructureType("potassium_hexachloroplatinate", 225, g.potassium_hexachloroplatinate,
                  ((_ION3, _every("K+ Rb+ Cs+", "Ti4+ Zr4+ Sn4+ Pt4+", "Cl- Br- I-")),)),
    StructureType("potassium_nickel_fluoride", 139, g.potassium_nickel_fluoride, (
        (_ION3, _every("K+ Rb+ Cs+", "Mg2+ Mn2+ Co2+ Ni2+ Zn2+", "F-")),
        (_ION3, _every("Sr2+ Ba2+", "Ti4+ Zr4+ Sn4+ Ru4+ Ir4+", "O2-")),
    )),
    StructureType("spinel", 227, g.spinel,
                  ((_ION3, _every("Mg2+ Mn2+ Fe2+ Co2+ Ni2+ Zn2+", "Al3+ Cr3+ Fe3+ Ga3+", "O2-")),)),
    StructureType("delafossite", 166, g.delafossite,
                  ((_ION3, _every("Cu+ Ag+", "Al3+ Sc3+ Cr3+ Fe3+ Ga3+ In3+", "O2-")),)),
    StructureType("layered_rock_salt", 166, g.layered_rock_salt,
                  ((_ION3, _every("Li+ Na+", "Sc3+ V3+ Cr3+ Fe3+ Co3+ Ni3+", "O2-")),)),
    StructureType("chalcopyrite", 122, g.chalcopyrite, (
        (_BOND3, _every("Cu Ag", "Al Ga In", "S Se Te")),
        (_BOND3, _every("Zn Cd", "Si Ge Sn", "P As")),
    )),
    StructureType("heusler", 225, g.heusler, (
        (_METAL3, _each("Co Mn Si, Co Mn Ge, Co Mn Sn, Co Fe Si, Co Fe Al, Co Cr Al, Co Ti Sn, Co Ti Al, Ni Mn Ga, "
                        "Ni Mn In, Ni Mn Sn, Fe V Al, Fe Ti Sn, Cu Mn Al, Pd Mn Sn, Mn V Al, Mn V Ga, Ru Mn Ge")),
    )),
    StructureType("half_heusler", 216, g.half_heusler, (
        (_METAL3, _each("Ni Ti Sn, Ni Zr Sn, Ni Hf Sn, Co Ti Sb, Co Zr Sb, Co Hf Sb, Fe V Sb, Fe Nb Sb, Fe Ta Sb, "
                        "Ni Mn Sb, Pt Mn Sb, Rh Ti Sb, Ru V Sb, Co Nb Sn, Cu Mg Sb")),
    )),
)  # fmt: skip
