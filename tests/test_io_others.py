"""Files of other programs and for them: pymatgen, ASE, VASP, the public generators, real data."""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from crystal_files import assert_same_crystal, crystals, peer_file
from dpcdvae.io import Failure, cif_text, crystal_from_cif, read, write
from dpcdvae.prototypes import build_prototypes
from dpcdvae.structures.crystal import Crystal


@settings(max_examples=40, deadline=None)
@given(crystal=crystals())
def test_pymatgen_and_ase_read_our_cif(crystal: Crystal) -> None:
    import io

    from ase.io import read as ase_read
    from pymatgen.io.cif import CifParser

    text = cif_text(crystal)
    assert text.isascii()
    atoms = ase_read(io.StringIO(text), format="cif", subtrans_included=True)
    ours = crystal_from_cif(text)
    assert ours.id == crystal.id
    assert np.allclose(atoms.cell.cellpar()[:3], ours.lengths, rtol=0, atol=1e-7)
    assert np.allclose(atoms.cell.cellpar()[3:], ours.angles, rtol=0, atol=1e-7)
    parser = CifParser.from_str(text, frac_tolerance=0, site_tolerance=1e-9, occupancy_tolerance=10)
    cell = parser.get_lattice(parser._cif.data[next(iter(parser._cif.data))])  # sites may coincide here
    assert np.allclose(cell.matrix, ours.lattice, rtol=0, atol=1e-7)


def test_pymatgen_and_ase_find_the_same_atoms_in_our_cif() -> None:
    import io

    from ase.io import read as ase_read
    from pymatgen.io.cif import CifParser

    for crystal in build_prototypes()[::25]:
        text = cif_text(crystal)
        atoms = ase_read(io.StringIO(text), format="cif")
        structure = CifParser.from_str(text, frac_tolerance=0).parse_structures(primitive=False)[0]
        for numbers, coords in (
            (atoms.numbers, atoms.get_scaled_positions(wrap=False)),
            (np.array(structure.atomic_numbers), structure.frac_coords),
        ):
            assert_same_sites(crystal, numbers, coords, 1e-7)


def assert_same_sites(crystal: Crystal, numbers: np.ndarray, coords: np.ndarray, tolerance: float) -> None:
    """The same atoms modulo 1, in any order."""
    assert len(numbers) == crystal.num_atoms
    difference = crystal.frac_coords[:, None] - coords[None]
    distance = np.abs(difference - np.round(difference)).max(-1)
    distance[crystal.atomic_numbers[:, None] != numbers[None]] = np.inf
    assert distance.min(1).max() <= tolerance
    assert len(set(distance.argmin(1).tolist())) == crystal.num_atoms


def test_ase_reads_our_extxyz_and_we_its(tmp_path: Path) -> None:
    from ase.io import read as ase_read
    from ase.io import write as ase_write

    some = [replace(c, id="0 7\"'=") for c in build_prototypes()[::60]]
    path = write(some, tmp_path / "x.extxyz")
    frames = ase_read(path, index=":")
    ase_write(tmp_path / "ase.extxyz", [c.to_ase() for c in some])
    for crystal, atoms, back in zip(some, frames, read(tmp_path / "ase.extxyz"), strict=True):
        assert np.allclose(atoms.cell.array, crystal.lattice, rtol=0, atol=1e-9)
        assert np.allclose(atoms.positions, crystal.cart_coords, rtol=0, atol=1e-9)
        assert atoms.info["packing_fraction"] == crystal.properties["packing_fraction"]
        assert atoms.pbc.all()
        assert_same_crystal(crystal, back, 1e-7, oriented=True)
        assert back.properties["packing_fraction"] == pytest.approx(crystal.properties["packing_fraction"])


@pytest.mark.parametrize("direct", [True, False])
def test_poscars_of_ase_and_pymatgen(tmp_path: Path, direct: bool) -> None:
    from ase.io import read as ase_read
    from ase.io import write as ase_write
    from pymatgen.io.vasp import Poscar

    crystal = next(c for c in build_prototypes() if c.id == "spinel-MgAl2O4")
    ase_write(tmp_path / "ase.vasp", crystal.to_ase(), format="vasp", direct=direct)
    selective = Poscar(crystal.to_pymatgen(), selective_dynamics=[[True, False, True]] * crystal.num_atoms)
    (tmp_path / "pymatgen.vasp").write_text(selective.get_str(direct=direct, significant_figures=12))
    for name in ("ase.vasp", "pymatgen.vasp"):
        back = read(tmp_path / name)[0]
        assert back.id == Path(name).stem
        assert_same_crystal(crystal, back, 1e-9, oriented=True)
    path = write([crystal], tmp_path / "POSCAR")
    assert np.allclose(ase_read(path).positions, crystal.cart_coords, rtol=0, atol=1e-9)
    assert np.allclose(Poscar.from_file(path).structure.frac_coords, crystal.frac_coords, rtol=0, atol=1e-9)


def test_poscar_scale_factors(tmp_path: Path) -> None:
    body = "4 0 0\n0 4 0\n0 0 4\nTi_pv O\n1 1\nCartesian\n0 0 0\n2 2 2\n"
    for scale, a in (("1.5", 6.0), ("-27.0", 3.0), ("1 1 1", 4.0)):
        (tmp_path / "a.vasp").write_text(f"comment\n{scale}\n{body}")
        crystal = read(tmp_path / "a.vasp")[0]
        assert crystal.symbols == ["Ti", "O"]
        assert crystal.lengths == pytest.approx(a)
        assert crystal.frac_coords[1] == pytest.approx(0.5)


def test_json_of_pymatgen_is_read(tmp_path: Path) -> None:
    some = build_prototypes()[::200]
    structures = [c.to_pymatgen().as_dict() for c in some]
    for content in (structures, {f"k{i}": s for i, s in enumerate(structures)}, structures[0]):
        (tmp_path / "s.json").write_text(json.dumps(content))
        back = read(tmp_path / "s.json")
        for crystal, other in zip(some[: len(back)], back, strict=True):
            assert_same_crystal(crystal, other, 1e-12, oriented=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:spglib")
def test_cif_with_symmetry_is_read_by_pymatgen() -> None:
    from pymatgen.io.cif import CifWriter

    for id in ("rock_salt-NaCl", "spinel-MgAl2O4", "rutile-TiO2"):
        crystal = next(c for c in build_prototypes() if c.id == id)
        text = str(CifWriter(crystal.to_pymatgen(), symprec=1e-3))
        back = crystal_from_cif(text, "x")
        assert back.id == "x"
        assert back.formula == crystal.formula
        assert back.density == pytest.approx(crystal.density, rel=1e-6)


def test_charges_are_dropped() -> None:
    text = cif_text(Crystal([26, 8], [[0, 0, 0], [0.5, 0.5, 0.5]], np.eye(3) * 4))
    text = text.replace("  Fe Fe0", "  Fe3+ Fe0").replace("  O O1", "  O2- O1")
    assert crystal_from_cif(text).symbols == ["Fe", "O"]


def test_the_quick_cif_path_agrees_with_pymatgen_on_real_data(data_dir: Path) -> None:
    """Lattices to 1e-10, the same atoms to 1e-12: nothing but the order may differ."""
    from pymatgen.io.cif import CifParser

    csv.field_size_limit(10**7)
    for name in ("perov_5", "carbon_24", "mp_20"):
        with gzip.open(data_dir / name / "test.csv.gz", "rt") as stream:
            texts = [row["cif"] for row in csv.DictReader(stream)][::150]
        for text in texts:
            crystal = crystal_from_cif(text)
            structure = CifParser.from_str(text, frac_tolerance=0).parse_structures(primitive=False)[0]
            assert np.allclose(crystal.lattice, structure.lattice.matrix, rtol=0, atol=1e-10)
            assert_same_sites(crystal, np.array(structure.atomic_numbers), structure.frac_coords, 1e-12)


@pytest.mark.parametrize(
    ("name", "count"),
    [("cdvae_replica_perov_gen", 10_000), ("crysbfn_carbon_24_gen", 1_000), ("diffcsp_mp_20_gen", 10_000)],
)
def test_generated_npz_of_others(data_dir: Path, name: str, count: int) -> None:
    failures: list[Failure] = []
    found = read(data_dir / "generated" / f"{name}.npz", failures)
    assert len(found) + len(failures) == count
    assert len(found) > 0.99 * count
    stored = np.load(data_dir / "generated" / f"{name}.npz")
    assert sum(c.num_atoms for c in found) == stored["num_atoms"].sum() or failures
    assert np.allclose(found[0].lengths, stored["lengths"][0], rtol=1e-6)
    assert np.allclose(found[0].angles, stored["angles"][0], rtol=1e-5)


def test_csv_of_real_data_keeps_ids_and_properties(data_dir: Path) -> None:
    found = read(data_dir / "perov_5" / "test.csv.gz")
    assert len(found) == 3785
    assert found[0].id == "3961"
    assert set(found[0].properties) == {"heat_all", "heat_ref", "dir_gap", "ind_gap"}


def test_empty_cells_are_absent(data_dir: Path, tmp_path: Path) -> None:
    """In every fiftieth row of the one real file that has empty cells, counted by the csv module."""
    csv.field_size_limit(10**7)
    with gzip.open(data_dir / "mp_20" / "train.csv.gz", "rt", newline="") as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)[::50]
    with (tmp_path / "some.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, reader.fieldnames or ())
        writer.writeheader()
        writer.writerows(rows)
    found = read(tmp_path / "some.csv")
    for column in ("formation_energy_per_atom", "band_gap", "e_above_hull", "spacegroup.number"):
        assert [column in c.properties for c in found] == [row[column] != "" for row in rows]
    known = sum("e_above_hull" in c.properties for c in found)
    assert 0 < known < len(found) == len(rows)


def test_pt_files_of_peers_are_read(tmp_path: Path) -> None:
    some = build_prototypes()[::100]
    setting = argparse.Namespace(model_path="run", n_step_each=100)  # what CDVAE stores beside the tensors
    back = read(peer_file(tmp_path / "eval_gen.pt", some, eval_setting=setting, time=1.5))
    assert [c.id for c in back] == [f"eval_gen-{k}" for k in range(len(some))]
    for crystal, other in zip(some, back, strict=True):
        assert_same_crystal(crystal, other, 1e-9)
    twice = read(peer_file(tmp_path / "eval_recon.pt", some, evaluations=2))
    assert len(twice) == 2 * len(some)
    assert twice[len(some)].id == "eval_recon-1-0"


def test_io_loads_without_torch_pymatgen_and_ase(tmp_path: Path) -> None:
    path = write(build_prototypes()[:3], tmp_path / "x.csv")
    code = (
        "import sys, dpcdvae.io as io\n"
        f"crystals = io.read({str(path)!r})\n"
        "for name in ('a.cif', 'a.extxyz', 'a.zip', 'a.json', 'a.npz', 'POSCAR', 'out'):\n"
        f"    io.write(crystals[:1], {str(tmp_path)!r} + '/' + name)\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'pymatgen', 'ase', 'scipy', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
