"""Files: round trips over every format, agreement with pymatgen and ASE, and what bad input says."""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dpcdvae.crystal import Crystal
from dpcdvae.errors import InputError
from dpcdvae.io import FORMATS, Failure, cif_text, crystal_from_cif, read, read_csv, write
from dpcdvae.io.sources import MAX_BYTES
from dpcdvae.prototypes import build_prototypes

MANY = ["many.cif", "x.extxyz", "x.xyz", "x.zip", "x.csv", "x.csv.gz", "x.json", "x.npz", "folder", "x.cif.gz"]
KEEPS_ORIENTATION = {".extxyz", ".xyz", ".json"}
KEEPS_NO_PROPERTIES = {".vasp", ""}


@st.composite
def crystals(draw: st.DrawFn) -> Crystal:
    """Any triclinic cell, also left-handed, that is not nearly flat; any id; finite properties."""
    n = draw(st.integers(1, 6))
    lattice = draw(arrays(np.float64, (3, 3), elements=st.floats(-9, 9, width=32)))
    lengths = np.linalg.norm(lattice, axis=1)
    if abs(np.linalg.det(lattice)) < max(0.05 * lengths.prod(), 1.0):
        lattice = lattice + draw(st.sampled_from([-1, 1])) * 20 * np.eye(3)
    return Crystal(
        draw(arrays(np.int64, n, elements=st.integers(1, 118))),
        draw(arrays(np.float64, (n, 3), elements=st.floats(-2, 2, width=32))),
        lattice,
        draw(st.text(min_size=1, max_size=20).map(lambda s: " ".join(s.split()) or "a")),
        draw(st.dictionaries(st.from_regex(r"[a-z][a-z_.]{2,8}", fullmatch=True).filter(lambda k: k != "name"),
                             st.floats(-1e9, 1e9), max_size=3)),
    )  # fmt: skip


def assert_same_crystal(a: Crystal, b: Crystal, tolerance: float, *, oriented: bool = False) -> None:
    """Equal up to a proper rotation of space: no mirror image, the same atoms in the same order."""
    assert a.atomic_numbers.tolist() == b.atomic_numbers.tolist()
    if oriented:
        assert np.allclose(a.lattice, b.lattice, rtol=0, atol=tolerance)
        assert np.allclose(a.frac_coords, b.frac_coords, rtol=0, atol=tolerance)
        return
    # Left-handed cells come back as (-a, -b, -c) with -x: compare in space, after the best rotation.
    sign = np.sign(np.linalg.det(a.lattice) * np.linalg.det(b.lattice))
    u, _, vt = np.linalg.svd(a.lattice.T @ (sign * b.lattice))
    rotation = u @ vt
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    scale = max(1.0, a.lengths.max())
    assert np.allclose(a.lattice @ rotation, sign * b.lattice, rtol=0, atol=tolerance * scale)
    assert np.allclose(a.cart_coords @ rotation, b.cart_coords, rtol=0, atol=tolerance * scale)


@pytest.fixture
def salt() -> Crystal:
    return next(c for c in build_prototypes() if c.id == "rock_salt-NaCl")


# --- round trips ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MANY)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some=st.lists(crystals(), min_size=1, max_size=4, unique_by=lambda c: c.id))
def test_round_trip(name: str, some: list[Crystal], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = write(some, tmp_path_factory.mktemp("io") / name)
    back = {c.id: c for c in read(path)}
    assert set(back) == {c.id for c in some}
    if "folder" not in name and ".zip" not in name:
        assert list(back) == [c.id for c in some]  # files keep the order; folders sort by name
    suffix = Path(name).suffix
    for crystal in some:
        tolerance = 1e-12 if suffix == ".json" else 1e-6
        assert_same_crystal(crystal, back[crystal.id], tolerance, oriented=suffix in KEEPS_ORIENTATION)
        assert back[crystal.id].properties == crystal.properties


@settings(max_examples=25, deadline=None)
@given(crystal=crystals())
def test_poscar_round_trip_groups_elements(crystal: Crystal, tmp_path_factory: pytest.TempPathFactory) -> None:
    back = read(write([crystal], tmp_path_factory.mktemp("io") / "POSCAR"))[0]
    elements = list(dict.fromkeys(crystal.symbols))
    order = sorted(range(crystal.num_atoms), key=lambda i: elements.index(crystal.symbols[i]))
    grouped = replace(
        crystal, atomic_numbers=crystal.atomic_numbers[order], frac_coords=crystal.frac_coords[order]
    )  # fmt: skip
    assert_same_crystal(grouped, back, 1e-9)
    assert back.id == crystal.id
    assert np.linalg.det(back.lattice) > 0  # VASP refuses the other sign


def test_json_keeps_every_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    crystal = Crystal(np.array([6, 8]), rng.normal(size=(2, 3)), 5 * rng.normal(size=(3, 3)), "a", {"x": 0.1 + 0.2})
    back = read(write([crystal], tmp_path / "a.json"))[0]
    assert np.array_equal(back.frac_coords, crystal.frac_coords)
    assert np.array_equal(back.lattice, crystal.lattice)
    assert back.properties == crystal.properties


@pytest.mark.parametrize("name", ["x.csv.gz", "x.zip", "x.cif", "x.extxyz", "x.json", "x.npz"])
def test_the_same_crystals_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    some = build_prototypes()[::100]
    first, second = (write(some, tmp_path / folder / name).read_bytes() for folder in ("1", "2"))
    assert first == second


def test_prototypes_through_every_format(tmp_path: Path) -> None:
    some = build_prototypes()[::20]
    for name in MANY:
        back = {c.id: c for c in read(write(some, tmp_path / name))}
        for crystal in some:
            assert_same_crystal(crystal, back[crystal.id], 1e-7)


def test_file_names_are_safe_and_unique(tmp_path: Path, salt: Crystal) -> None:
    ids = ["a/b", "a:b", "A_b", "../../etc/passwd", ".hidden", "", "ä ö", "x" * 300]
    write([salt.with_id(id) for id in ids], tmp_path / "out")
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert len({name.lower() for name in names}) == len(ids)
    assert all(name.isascii() and "/" not in name and not name.startswith(".") and len(name) < 130 for name in names)
    assert sorted(c.id for c in read(tmp_path / "out")) == sorted("crystal-5" if id == "" else id for id in ids)


def test_repeated_ids_become_unique(tmp_path: Path, salt: Crystal) -> None:
    path = write([salt.with_id(id) for id in ("a", "a", "a-2", "a")], tmp_path / "x.json")
    assert [c.id for c in read(path)] == ["a", "a-2", "a-2-2", "a-3"]


def test_a_folder_is_read_in_natural_order_without_its_manifest(tmp_path: Path, salt: Crystal) -> None:
    write([salt.with_id(f"g-{k}") for k in range(12)], tmp_path / "out")
    (tmp_path / "out" / "manifest.json").write_text("{}")
    (tmp_path / "out" / "README.txt").write_text("words")
    (tmp_path / "out" / "inner").mkdir()
    write([salt.with_id("g-12")], tmp_path / "out" / "inner" / "a.vasp")
    assert [c.id for c in read(tmp_path / "out")] == [*(f"g-{k}" for k in range(12)), "a"]


# --- agreement with pymatgen and ASE ----------------------------------------------------------------


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


def test_pymatgen_json(tmp_path: Path) -> None:
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
    import csv

    from pymatgen.io.cif import CifParser

    csv.field_size_limit(10**7)
    for name in ("perov_5", "carbon_24", "mp_20_reduced"):
        with gzip.open(data_dir / name / "test.csv.gz", "rt") as stream:
            texts = [row["cif"] for row in csv.DictReader(stream)][::150]
        for text in texts:
            crystal = crystal_from_cif(text)
            structure = CifParser.from_str(text, frac_tolerance=0).parse_structures(primitive=False)[0]
            assert np.allclose(crystal.lattice, structure.lattice.matrix, rtol=0, atol=1e-10)
            assert_same_sites(crystal, np.array(structure.atomic_numbers), structure.frac_coords, 1e-12)


# --- the files of others ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count"), [("cdvae_replica_perov_gen", 10_000), ("crysbfn_carbon_24_gen", 1_000), ("diffcsp_mp_20_gen", 10_000)]
)  # fmt: skip
def test_generated_npz_of_others(data_dir: Path, name: str, count: int) -> None:
    failures: list[Failure] = []
    start = time.process_time()
    found = read(data_dir / "generated" / f"{name}.npz", failures)
    assert time.process_time() - start < 10
    assert len(found) + len(failures) == count
    assert len(found) > 0.99 * count
    stored = np.load(data_dir / "generated" / f"{name}.npz")
    assert sum(c.num_atoms for c in found) == stored["num_atoms"].sum() or failures
    assert np.allclose(found[0].lengths, stored["lengths"][0], rtol=1e-6)
    assert np.allclose(found[0].angles, stored["angles"][0], rtol=1e-5)


def test_csv_of_real_data_reads_fast(data_dir: Path) -> None:
    start = time.process_time()
    found = read_csv(data_dir / "perov_5" / "test.csv.gz")
    assert (time.process_time() - start) / len(found) < 2e-3  # pymatgen's parser needs 10 ms or more
    assert len(found) == 3785
    assert found[0].id == "3961"
    assert set(found[0].properties) == {"heat_all", "heat_ref", "dir_gap", "ind_gap"}


def test_empty_cells_are_absent(data_dir: Path) -> None:
    found = read(data_dir / "carbon_24_reduced" / "train.csv.gz")
    assert sum("energy_per_atom" not in c.properties for c in found) == 2572


def peer_file(path: Path, some: list[Crystal], evaluations: int = 1, **more: object) -> Path:
    torch = pytest.importorskip("torch")

    def stack(values: list[np.ndarray]) -> object:
        return torch.tensor(np.concatenate(values)).unsqueeze(0).repeat_interleave(evaluations, 0)

    content = {
        "frac_coords": stack([c.frac_coords for c in some]),
        "num_atoms": stack([np.array([c.num_atoms]) for c in some]),
        "atom_types": stack([c.atomic_numbers for c in some]),
        "lengths": stack([c.lengths[None] for c in some]),
        "angles": stack([c.angles[None] for c in some]),
        **more,
    }
    torch.save(content, path)
    return path


def test_peers_pt(tmp_path: Path) -> None:
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
        f"for name in ('a.cif', 'a.extxyz', 'a.zip', 'a.json', 'a.npz', 'out'): io.write(crystals, {str(tmp_path)!r} + '/' + name)\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'pymatgen', 'ase', 'scipy', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- bad input --------------------------------------------------------------------------------------


def message(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


GOOD = cif_text(Crystal([11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], np.eye(3) * 4))

BAD_CIFS = {
    "partial occupancy": (GOOD.replace("0.50000000 1\n", "0.50000000 0.5\n"), "partial occupancies"),
    "deuterium": (GOOD.replace("  Na Na0", "  D D0"), "isotope 'D': write it as H"),
    "tritium": (GOOD.replace("  Na Na0", "  T T0"), "isotope 'T': write it as H"),
    "dummy": (GOOD.replace("  Na Na0", "  X X0"), "'X' is not an element"),
    "no element": (GOOD.replace("  Na Na0", "  Qq Qq0"), "'Qq' is not an element"),
    "NaN lattice": (GOOD.replace("_cell_length_a 4.00000000", "_cell_length_a nan"), "the lattice is not finite"),
    "infinite coordinate": (GOOD.replace("0.50000000 1\n", "inf 1\n"), "coordinates are not finite"),
    "no volume": (GOOD.replace("_cell_length_a 4.00000000", "_cell_length_a 0.0"), "degenerate"),
    "impossible angles": (GOOD.replace("_cell_angle_alpha 90.0", "_cell_angle_alpha 179.0")
                              .replace("_cell_angle_beta 90.0", "_cell_angle_beta 20.0"), "the lattice is not finite"),
    "no atoms": (GOOD[: GOOD.index("loop_\n _atom_site")], "pymatgen can parse"),
    "no data block": ("hello world\n", "no CIF data block"),
    "words for numbers": (GOOD.replace("0.50000000 1\n", "half 1\n"), "pymatgen can parse"),
    "cut off": (GOOD[:-30], ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_CIFS)
def test_bad_cif(kind: str, tmp_path: Path) -> None:
    text, reason = BAD_CIFS[kind]
    assert text != GOOD
    path = tmp_path / "bad.cif"
    path.write_text(text)
    said = message(lambda: read(path))
    assert said.startswith(str(path))
    assert reason in said


@pytest.mark.parametrize("kind", [k for k in BAD_CIFS if k != "no data block"])
def test_row_17_is_named_and_the_others_are_read(kind: str, tmp_path: Path, salt: Crystal) -> None:
    path = tmp_path / "rows.csv"
    write([salt.with_id(f"r{k}") for k in range(1, 21)], path)
    rows = path.read_text().split("r17,")
    before, after = rows[0], rows[1]
    tail = after[after.index('\n",') :]
    path.write_text(before + 'r17,"' + BAD_CIFS[kind][0].rstrip("\n").replace('"', '""') + tail)
    said = message(lambda: read(path))
    assert f"{path} row 17: " in said
    assert BAD_CIFS[kind][1] in said
    failures: list[Failure] = []
    found = read(path, failures)
    assert [c.id for c in found] == [f"r{k}" for k in range(1, 21) if k != 17]
    assert [(f.id, f.where) for f in failures] == [("r17", f"{path} row 17")]
    assert BAD_CIFS[kind][1] in failures[0].reason


def test_csv_without_cif_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,structure\n1,x\n")
    said = message(lambda: read(tmp_path / "a.csv"))
    assert "no column 'cif' (columns: 'id', 'structure')" in said
    assert message(lambda: read(tmp_path / "a.csv", [])) == said  # no list of failures helps here


@pytest.mark.parametrize("name", ["a.cif", "a.csv", "a.csv.gz", "a.json", "a.npz", "a.pt", "a.extxyz", "POSCAR", "a.zip"])
@pytest.mark.parametrize("content", [b"", b"\n \n", b"\x00\xff\xfegarbage\x93", b"words\n"])
def test_empty_and_garbled_files(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    said = message(lambda: read(tmp_path / name))
    assert said.startswith(str(tmp_path / name))
    if name == "a.csv.gz":
        (tmp_path / name).write_bytes(gzip.compress(content))
        assert message(lambda: read(tmp_path / name)).startswith(str(tmp_path / name))


@pytest.mark.parametrize("name", ["x.cif", "x.extxyz", "x.csv.gz", "x.json", "x.npz", "x.zip", "POSCAR", "x.pt"])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.95])
def test_a_file_cut_in_half(name: str, kept: float, tmp_path: Path, salt: Crystal) -> None:
    """An error in one line, or fewer crystals; never a traceback."""
    some = [salt.with_id("a")] if name == "POSCAR" else [salt.with_id(f"c{k}") for k in range(9)]
    path = peer_file(tmp_path / name, some) if name == "x.pt" else write(some, tmp_path / name)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    if name == "POSCAR" and kept > 0.9:  # the last digits of the last number: nobody can tell
        return
    try:
        assert len(read(path)) < len(some)
    except InputError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)


def test_pickles_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Payload:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return Path.touch, (tmp_path / "pwned",)  # type: ignore[return-value]

    peer_file(tmp_path / "evil.pt", build_prototypes()[:2], extra=Payload())
    assert "refused" in message(lambda: read(tmp_path / "evil.pt"))
    torch.save(Payload(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert "refused" in message(lambda: read(tmp_path / "old.pt"))
    arrays = dict.fromkeys(("frac_coords", "num_atoms", "atom_types", "lengths", "angles"), np.array([Payload()]))
    np.savez(tmp_path / "evil.npz", **arrays, allow_pickle=True)
    assert "plain arrays" in message(lambda: read(tmp_path / "evil.npz"))
    assert not (tmp_path / "pwned").exists()


def test_npz_that_does_not_fit(tmp_path: Path, salt: Crystal) -> None:
    stored = dict(np.load(write([salt, salt], tmp_path / "a.npz")))
    for key, value, reason in (
        ("num_atoms", np.array([2, 3]), "add up to 5, but there are 4"),
        ("lengths", np.ones((3, 3)), "shapes"),
        ("atom_types", np.ones(4), "shapes or types"),
        ("ids", np.array(["a"]), "not as many"),
    ):
        np.savez(tmp_path / "b.npz", **{**stored, key: value})
        assert reason in message(lambda: read(tmp_path / "b.npz"))
    np.savez(tmp_path / "c.npz", other=np.ones(2))
    assert "no array frac_coords" in message(lambda: read(tmp_path / "c.npz"))


def test_nan_crystals_are_failures_not_the_end(tmp_path: Path, salt: Crystal) -> None:
    stored = dict(np.load(write([salt] * 5, tmp_path / "a.npz")))
    stored["lengths"][1] = np.nan
    stored["frac_coords"][4] = np.inf
    stored["atom_types"][6] = 0
    np.savez(tmp_path / "b.npz", **stored)
    failures: list[Failure] = []
    assert len(read(tmp_path / "b.npz", failures)) == 2
    assert [f.where.rsplit(" ", 1)[1] for f in failures] == ["2", "3", "4"]
    assert "lattice is not finite" in failures[0].reason
    assert "crystal 2: the lattice" in message(lambda: read(tmp_path / "b.npz"))
    frames = write([salt] * 3, tmp_path / "a.extxyz").read_text().splitlines()
    frames[6] = "Na nan 0 0"
    (tmp_path / "b.extxyz").write_text("\n".join(frames))
    failures = []
    assert len(read(tmp_path / "b.extxyz", failures)) == 2
    assert "frame 2" in failures[0].where


def test_bad_files_in_a_folder_or_zip_are_named(tmp_path: Path, salt: Crystal) -> None:
    folder = write([salt.with_id("a"), salt.with_id("c")], tmp_path / "out")
    (folder / "b.cif").write_text("hello")
    (folder / "d.csv").write_text("x\n1\n")
    (folder / "e.cif").write_text("")
    failures: list[Failure] = []
    assert [c.id for c in read(folder, failures)] == ["a", "c"]
    assert [Path(f.where).name for f in failures] == ["b.cif", "d.csv", "e.cif"]
    assert "empty" in failures[2].reason
    assert message(lambda: read(folder)).startswith(str(folder / "b.cif"))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"inner/{file.name}")
    failures = []
    assert [c.id for c in read(tmp_path / "x.zip", failures)] == ["a", "c"]
    assert failures[0].where == f"{tmp_path / 'x.zip'}:inner/b.cif"


def test_nothing_there(tmp_path: Path) -> None:
    assert "no such file" in message(lambda: read(tmp_path / "none.cif"))
    assert "no such file" in message(lambda: read(tmp_path / "none.zip"))
    (tmp_path / "empty").mkdir()
    assert "no crystals" in message(lambda: read(tmp_path / "empty"))
    (tmp_path / "a.cff").write_text("x")
    assert "did you mean '.cif'" in message(lambda: read(tmp_path / "a.cff"))


def test_absurdly_large_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_BYTES == 2**31
    monkeypatch.setattr("dpcdvae.io.sources.MAX_BYTES", 2**20)
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(b" " * 2**22))
    assert "larger than" in message(lambda: read(tmp_path / "bomb.csv.gz"))
    monkeypatch.setattr("dpcdvae.io.cif.MAX_CIF_BYTES", 1000)
    (tmp_path / "a.cif").write_text(GOOD + "#" * 2000)
    assert "MB for one crystal" in message(lambda: read(tmp_path / "a.cif"))


def test_extxyz_without_cell(tmp_path: Path) -> None:
    (tmp_path / "m.xyz").write_text("1\nwater\nO 0 0 0\n")
    assert "no Lattice" in message(lambda: read(tmp_path / "m.xyz"))


# --- writing ----------------------------------------------------------------------------------------


def test_an_output_that_exists_is_kept(tmp_path: Path, salt: Crystal) -> None:
    for name in ("x.cif", "out"):
        path = write([salt], tmp_path / name)
        assert "exists" in message(lambda path=path: write([salt] * 2, path))  # type: ignore[misc]
        assert len(read(path)) == 1
        write([salt] * 3, path, overwrite=True)
        assert len(read(path)) == 3


def test_an_output_that_cannot_be_written(tmp_path: Path, salt: Crystal) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write" in message(lambda: write([salt], tmp_path / "file" / "x.cif"))


def test_nothing_is_left_after_an_error(tmp_path: Path, salt: Crystal) -> None:
    flat = replace(salt, lattice=np.full((3, 3), np.nan), id="flat")
    for name in ("x.cif", "out", "x.zip", "x.npz"):
        assert "'flat' cannot be written" in message(lambda name=name: write([salt, flat], tmp_path / name))  # type: ignore[misc]
    assert "no crystals" in message(lambda: write([], tmp_path / "x.cif"))
    assert "one crystal, not 2" in message(lambda: write([salt] * 2, tmp_path / "POSCAR"))
    assert list(tmp_path.iterdir()) == []


def test_unknown_output_formats(tmp_path: Path, salt: Crystal) -> None:
    assert "did you mean '.cif'" in message(lambda: write([salt], tmp_path / "x.ciff"))
    assert "'.pt'" in message(lambda: write([salt], tmp_path / "x.pt"))
    said = message(lambda: write([salt], tmp_path / "x", format="exyz"))
    assert "did you mean 'extxyz'" in said
    assert write([salt], f"{tmp_path}/v1.5/").is_dir()
    assert read(write([salt], tmp_path / "named.cif", format="cif"))[0].symbols == salt.symbols


def test_every_format_is_tested() -> None:
    suffixes = {s for f in FORMATS.values() for s in f.suffixes if f.render is not None}
    assert suffixes - {".vasp", ".poscar"} <= {Path(name).suffix for name in MANY}
