"""The built-in data set: symmetry, contacts, charges and radii, each against an independent source."""

from __future__ import annotations

import functools
import itertools
import re
import subprocess
import sys

import numpy as np
import pytest

from dpcdvae.prototypes import STRUCTURE_TYPES, StructureType, build_prototypes
from dpcdvae.prototypes.radii import COVALENT, IONIC, METALLIC

IMAGES = np.array(list(itertools.product((-2, -1, 0, 1, 2), repeat=3)))
_prototypes = functools.cache(build_prototypes)
TYPES = {kind.name: kind for kind in STRUCTURE_TYPES}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:spglib")
@pytest.mark.parametrize("kind", STRUCTURE_TYPES, ids=lambda kind: kind.name)
def test_spglib_finds_the_space_group_and_no_smaller_cell(kind: StructureType) -> None:
    spglib = pytest.importorskip("spglib")
    members = [c for c in _prototypes() if c.id.startswith(f"{kind.name}-")]
    for crystal in members[:: 1 + len(members) // 8]:  # the geometry is the same for all
        cell = (crystal.lattice, crystal.frac_coords, crystal.atomic_numbers)
        assert spglib.get_symmetry_dataset(cell, symprec=1e-5).number == kind.space_group, crystal.id
        assert len(spglib.find_primitive(cell, symprec=1e-5)[2]) == crystal.num_atoms, crystal.id


def test_atoms_touch_and_do_not_overlap() -> None:
    """The closest pair, in units of the sum of its radii: never far below 1, and 1 in most types."""
    closest = {}
    for kind in STRUCTURE_TYPES:
        for tables, members in kind.families:
            for species in members:
                radii = [table[ion] for table, ion in zip(tables, species, strict=True)]
                lattice, sites = kind.geometry(*radii)
                radius = np.repeat(radii, [len(coords) for coords in sites])
                coords = np.concatenate([np.array(c) for c in sites])
                vectors = (coords[None, :, None] - coords[:, None, None] + IMAGES) @ lattice
                distances = np.linalg.norm(vectors, axis=-1)
                distances[distances < 1e-9] = np.inf  # an atom and itself
                ratio = distances.min(-1) / (radius[:, None] + radius[None])
                closest[kind.name, species] = ratio.min()
    assert min(closest.values()) > 0.8
    assert max(closest.values()) < 1.0 + 1e-9  # something always touches
    assert np.isclose(list(closest.values()), 1.0).sum() > len(closest) / 2


def test_textbook_lattice_constants() -> None:
    """Measured lattice constants (Å, room temperature) within the 6 % that hard spheres allow."""
    measured = {
        "rock_salt-NaCl": 5.640,
        "rock_salt-MgO": 4.212,
        "cesium_chloride-CsCl": 4.123,
        "fluorite-CaF2": 5.463,
        "zinc_blende-GaAs": 5.653,
        "diamond-C": 3.567,
        "diamond-Si": 5.431,
        "fcc-Cu": 3.615,
        "bcc-Fe": 2.867,
        "perovskite-SrTiO3": 3.905,
        "rhenium_trioxide-ReO3": 3.748,
        "heusler-Co2MnSi": 5.654,
        "potassium_hexachloroplatinate-K2PtCl6": 9.74,
        "spinel-MgAl2O4": 8.083,
        "a15-Nb3Sn": 5.289,
        "calcium_hexaboride-CaB6": 4.150,
    }
    atoms_per_conventional = {"F": 4, "P": 1, "I": 2}
    face_centred = "rock_salt fluorite zinc_blende diamond fcc heusler potassium_hexachloroplatinate spinel"
    centring = {**dict.fromkeys(face_centred.split(), "F"), "bcc": "I"}
    crystals = {c.id: c for c in _prototypes()}
    for id, a in measured.items():
        cells = atoms_per_conventional[centring.get(id.split("-")[0], "P")]
        assert np.cbrt(crystals[id].volume * cells) == pytest.approx(a, rel=0.06), id


def test_ionic_members_are_neutral() -> None:
    crystals = {c.id: c for c in _prototypes()}
    checked = 0
    for kind in STRUCTURE_TYPES:
        for tables, members in kind.families:
            if any(table is not IONIC for table in tables):
                continue
            for species in members:
                _, sites = kind.geometry(*(IONIC[ion] for ion in species))
                charges = [int(m[2] + (m[1] or "1")) for ion in species if (m := re.search(r"(\d*)([+-])$", ion))]
                assert sum(q * len(coords) for q, coords in zip(charges, sites, strict=True)) == 0, species
                checked += 1
    assert 300 < checked <= len(crystals)


def test_a_few_hundred_distinct_small_crystals() -> None:
    crystals = _prototypes()
    assert 300 <= len(crystals) <= 600
    assert len({c.id for c in crystals}) == len(crystals)
    assert max(c.num_atoms for c in crystals) <= 20
    assert {c.id.split("-")[0] for c in crystals} == set(TYPES)
    assert all(c.problem() is None for c in crystals)
    assert all(0.1 < c.properties["packing_fraction"] < 1.0 for c in crystals)
    assert len(TYPES) == len(STRUCTURE_TYPES)


def test_packing_fractions_of_the_sphere_packings() -> None:
    """Close packing π/√18, diamond π√3/16, simple cubic π/6."""
    packing = {c.id: c.properties["packing_fraction"] for c in _prototypes()}
    assert packing["fcc-Cu"] == pytest.approx(np.pi / np.sqrt(18), abs=1e-12)
    assert packing["hcp-Mg"] == pytest.approx(np.pi / np.sqrt(18), abs=1e-12)
    assert packing["diamond-C"] == pytest.approx(np.pi * np.sqrt(3) / 16, abs=1e-12)
    assert packing["simple_cubic-Po"] == pytest.approx(np.pi / 6, abs=1e-12)


def test_prototypes_are_built_alike_every_time() -> None:
    for first, second in zip(build_prototypes(), build_prototypes(), strict=True):
        assert first.id == second.id
        assert first.properties == second.properties
        assert np.array_equal(first.frac_coords, second.frac_coords)
        assert np.array_equal(first.lattice, second.lattice)


def test_builds_without_chemistry_libraries() -> None:
    code = (
        "import sys; from dpcdvae.prototypes import build_prototypes; build_prototypes();"
        "sys.exit(any(m in sys.modules for m in ('torch', 'pymatgen', 'ase', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ionic_radii_are_shannon_s() -> None:
    species = pytest.importorskip("pymatgen.core").Species
    for ion, radius in IONIC.items():
        tabled = species.from_str(ion).element.data["Shannon radii"]
        charge = re.sub(r"^[A-Za-z]+(\d*)([+-])$", lambda m: f"{m[2].replace('+', '')}{m[1] or '1'}", ion)
        sixfold = [entry["ionic_radius"] for entry in tabled[charge]["VI"].values()]
        assert radius in sixfold, ion


def test_covalent_radii_are_cordero_s() -> None:
    data = pytest.importorskip("ase.data")
    for symbol, radius in COVALENT.items():
        assert radius == pytest.approx(data.covalent_radii[data.atomic_numbers[symbol]], abs=1e-9), symbol


@pytest.mark.filterwarnings("ignore:No data available")
def test_metallic_radii_agree_with_another_table() -> None:
    """pymatgen's metallic radii come from another compilation; 6.5 % apart at most."""
    element = pytest.importorskip("pymatgen.core").Element
    known = {symbol: element(symbol).metallic_radius for symbol in METALLIC}
    assert sum(radius is not None for radius in known.values()) > 35
    for symbol, radius in known.items():
        assert radius is None or METALLIC[symbol] == pytest.approx(float(radius), rel=0.065), symbol
