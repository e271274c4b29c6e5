"""Files written and read back: every format, ids and names, outputs that cannot be written."""

from __future__ import annotations

import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crystal_files import assert_same_crystal, crystals, message
from dpcdvae.io import FORMATS, check_destination, read, write
from dpcdvae.prototypes import build_prototypes
from dpcdvae.structures.crystal import Crystal

MANY = ["many.cif", "x.extxyz", "x.xyz", "x.zip", "x.csv", "x.csv.gz", "x.json", "x.npz", "folder", "x.cif.gz"]
KEEPS_ORIENTATION = {".extxyz", ".xyz", ".json"}


@pytest.fixture
def salt() -> Crystal:
    return next(c for c in build_prototypes() if c.id == "rock_salt-NaCl")


@pytest.mark.parametrize("name", MANY)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some=st.lists(crystals(), min_size=1, max_size=4, unique_by=lambda c: c.id))
def test_what_is_written_is_read_back(name: str, some: list[Crystal], tmp_path_factory: pytest.TempPathFactory) -> None:
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
    grouped = replace(crystal, atomic_numbers=crystal.atomic_numbers[order], frac_coords=crystal.frac_coords[order])
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


PASSED_OVER = [
    "__MACOSX",
    "__MACOSX.x",
    ".DS_Store",
    "._a",
    "manifest",
    "manifest.json",
    "x.manifest.json",
    "Thumbs.db",
    "atom_init",
]


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_a_crystal_may_be_called_like_a_file_that_is_passed_over(name: str, tmp_path: Path, salt: Crystal) -> None:
    path = write([salt.with_id(id) for id in PASSED_OVER], tmp_path / name)
    assert {crystal.id for crystal in read(path)} == set(PASSED_OVER)


def test_what_macos_adds_to_a_zip_is_no_crystal(tmp_path: Path, salt: Crystal) -> None:
    text = write([salt], tmp_path / "x.cif").read_text()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for member in ("a.cif", "__MACOSX/._a.cif", "__MACOSX/b.cif", ".hidden/c.cif"):
            archive.writestr(member, text)
    assert len(read(tmp_path / "x.zip")) == 1


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


def test_a_folder_of_other_things_is_not_replaced(tmp_path: Path, salt: Crystal) -> None:
    path = write([salt], tmp_path / "out")
    (path / "manifest.json").write_text("{}")
    write([salt], path, overwrite=True)
    (path / "thesis.tex").write_text("words")
    assert "thesis.tex" in message(lambda: write([salt], path, overwrite=True))
    assert (path / "thesis.tex").exists()


def test_a_folder_does_not_replace_a_file_nor_a_file_a_folder(tmp_path: Path, salt: Crystal) -> None:
    (tmp_path / "out").write_text("words")
    (tmp_path / "out.cif").mkdir()
    assert "it is a file" in message(lambda: check_destination(tmp_path / "out", overwrite=True))
    assert "it is a folder" in message(lambda: check_destination(tmp_path / "out.cif", overwrite=True))


def test_pipes_and_devices_are_not_replaced(tmp_path: Path, salt: Crystal) -> None:
    os.mkfifo(tmp_path / "pipe.cif")
    assert "a device or a pipe" in message(lambda: write([salt], tmp_path / "pipe.cif", overwrite=True))
    assert (tmp_path / "pipe.cif").is_fifo()


def test_odd_ids_and_properties(tmp_path: Path, salt: Crystal) -> None:
    odd = replace(salt, id="a\n\x00b\ud800", properties={"x": np.nan, "id": 1.0, "cif": 2.0, "a b": 3.0, "é'\"": 4.0})
    for name in [*MANY, "POSCAR"]:
        back = read(write([odd], tmp_path / name))[0]
        assert back.id == "a b"
        kept = {"id": 1.0, "cif": 2.0, "a b": 3.0, "é'\"": 4.0}
        assert back.properties == ({} if name == "POSCAR" else kept)


def test_nothing_is_left_after_an_error(tmp_path: Path, salt: Crystal) -> None:
    flat = replace(salt, lattice=np.full((3, 3), np.nan), id="flat")
    for name in ("x.cif", "out", "x.zip", "x.npz"):
        said = message(lambda name=name: write([salt, flat], tmp_path / name))  # type: ignore[misc]
        assert "'flat' cannot be written" in said
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
