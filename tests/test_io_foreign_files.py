"""Files of databases, of ASE and of peers: read as plain numbers, whatever classes and modules they name."""

from __future__ import annotations

import contextlib
import gzip
import json
import sqlite3
import struct
import sys
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import ase.db
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import write as ase_write
from pymatgen.core import Lattice, Structure

from crystal_files import assert_same_crystal, message, peer_file
from dpcdvae.errors import InputError
from dpcdvae.io import Failure, cif_text, read, write
from dpcdvae.io.torch_files import Inert, load_torch
from dpcdvae.prototypes import build_prototypes
from dpcdvae.structures.crystal import Crystal

SALT = Structure(Lattice.cubic(4.1), ["Cs+", "Cl-"], [[0, 0, 0], [0.5, 0.5, 0.5]])


# JSON


def stored(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("place", ["site property", "properties", "lattice", "species", "top", "charge"])
def test_a_module_named_in_json_is_not_imported(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "harmful.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Anything: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    harm = {"@module": "harmful", "@class": "Anything"}
    document = SALT.as_dict()
    match place:
        case "site property":
            document["sites"][0]["properties"] = {"x": harm, "magmom": [harm]}
        case "species":
            document["sites"][0]["species"][0].update(harm)
        case "top":
            document.update(harm)
        case _:
            document[place] = {**(document[place] or {}), **harm, "x": harm}
    assert read(stored(tmp_path / "a.json", document))[0].formula == "CsCl"
    assert not (tmp_path / "ran").exists()
    assert "harmful" not in sys.modules


def test_structures_of_pymatgen_as_plain_numbers(tmp_path: Path) -> None:
    document = SALT.as_dict()
    document["properties"] = {"gap": 8.3, "name": "salt", "flag": True}
    for site in document["sites"]:
        site["properties"] = [1]  # anything at all
    cartesian = json.loads(json.dumps(document))
    for site in cartesian["sites"]:
        del site["abc"]
    del cartesian["lattice"]["matrix"]
    for variant in (document, cartesian):
        back = read(stored(tmp_path / "a.json", variant))[0]
        assert_same_crystal(Crystal.from_pymatgen(SALT), back, 1e-12)
        assert back.properties == {"gap": 8.3, "flag": True}


def test_occupancies_and_periodicity_of_json(tmp_path: Path) -> None:
    mixed = Structure(Lattice.cubic(4), [{"Fe2+": 0.4, "Fe3+": 0.6}], [[0, 0, 0]]).as_dict()
    assert read(stored(tmp_path / "a.json", mixed))[0].symbols == ["Fe"]
    mixed["sites"][0]["species"][0]["occu"] = 0.1
    assert "partial" in message(lambda: read(tmp_path / "a.json") if stored(tmp_path / "a.json", mixed) else None)
    slab = SALT.as_dict()
    slab["lattice"]["pbc"] = [True, True, False]
    assert "no three-dimensional crystal" in message(lambda: read(stored(tmp_path / "a.json", slab)))


def test_documents_and_entries_of_the_materials_project(tmp_path: Path) -> None:
    of_structure = {"formula_pretty": "CsCl", "structure": SALT.as_dict(), "symmetry": {"number": 221}}
    of_energy = {"is_stable": True, "energy_above_hull": None, "band_gap": 5.2}
    summary = {"material_id": "mp-1", **of_structure, **of_energy}
    entry = {"@class": "ComputedStructureEntry", "entry_id": "mp-1-GGA", "energy": -6.5, "structure": SALT.as_dict()}
    for document in ([summary], {"data": [summary], "meta": {}}, summary):
        crystal = read(stored(tmp_path / "a.json", document))[0]
        assert (crystal.id, crystal.formula, crystal.properties) == ("mp-1", "CsCl", {"band_gap": 5.2})
    crystal = read(stored(tmp_path / "a.json", {"entries": [entry]}))[0]
    assert (crystal.id, crystal.properties) == ("mp-1-GGA", {"energy": -6.5})
    del summary["structure"]
    assert "ask the Materials Project for that field" in message(lambda: read(stored(tmp_path / "a.json", [summary])))


# tables


@pytest.mark.parametrize("notation", [json.dumps, repr], ids=["JSON", "Python"])
@pytest.mark.parametrize("column", ["cif", "structure"])
def test_a_column_of_dictionaries(notation: Any, column: str, tmp_path: Path) -> None:
    cell = notation(SALT.as_dict()).replace('"', '""')
    (tmp_path / "a.csv").write_text(f'material_id,{column},gap\nm-1,"{cell}",2.5\n')
    crystal = read(tmp_path / "a.csv")[0]
    assert (crystal.id, crystal.formula, crystal.properties) == ("m-1", "CsCl", {"gap": 2.5})


def test_a_dictionary_in_a_cell_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("cif\n\"{'lattice': __import__('os').system('true')}\"\n")
    assert "neither JSON's nor Python's notation" in message(lambda: read(tmp_path / "a.csv"))
    (tmp_path / "a.csv").write_text("cif\n" + "{'lattice': " * 5000 + "1" + "}" * 5000 + "\n")
    assert message(lambda: read(tmp_path / "a.csv")).startswith(f"{tmp_path / 'a.csv'} row 1")


def test_the_column_of_crystals_by_any_name_if_there_is_one(tmp_path: Path) -> None:
    cif = cif_text(Crystal.from_pymatgen(SALT))
    (tmp_path / "a.csv").write_text(f'id,cif_relaxed\n1,"{cif}"\n')
    assert read(tmp_path / "a.csv")[0].formula == "CsCl"
    (tmp_path / "a.csv").write_text(f'id,before,after\n1,"{cif}","{cif}"\n')
    assert "several columns hold crystals (columns: 'before', 'after')" in message(lambda: read(tmp_path / "a.csv"))


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".parquet"])
def test_the_column_of_crystals_that_is_named(ending: str, tmp_path: Path) -> None:
    small, large = (
        cif_text(Crystal([55, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], np.eye(3) * volume ** (1 / 3))) for volume in (50, 90)
    )
    path = tmp_path / f"a{ending}"
    rows = {"id": ["1", "2"], "cif": [small] * 2, "relaxed": [large, "3.5"], "gap": [1.5, 2.5]}
    table = pa.table(rows)
    if ending == ".parquet":
        pq.write_table(table, path)
    else:
        text = "".join(
            [",".join(rows) + "\n", *(f'{k},"{a}","{b}",{g}\n' for k, a, b, g in zip(*rows.values(), strict=True))]
        )
        path.write_bytes(gzip.compress(text.encode()) if ending.endswith(".gz") else text.encode())
    assert [round(c.volume) for c in read(path)] == [50, 50]  # as always: the column 'cif'
    failures: list[Failure] = []
    (crystal,) = read(path, failures, column="relaxed")
    assert (round(crystal.volume), crystal.properties) == (90, {"gap": 1.5})
    assert [failure.where for failure in failures] == [f"{path} row 2"]
    said = message(lambda: read(path, [], column="relxed"))
    assert said == f"{path}: unknown column 'relxed': did you mean 'relaxed'? choose from cif, gap, id, relaxed"


def test_a_column_is_of_a_table(tmp_path: Path) -> None:
    write(build_prototypes()[:2], tmp_path / "both" / "a.csv")
    write(build_prototypes()[:1], tmp_path / "both" / "b.cif")
    assert len(read(tmp_path / "both", column="cif")) == 3
    assert "no table" in message(lambda: read(tmp_path / "both" / "b.cif", [], column="cif"))


@pytest.mark.parametrize("name", ["cif", "energy", "material_id"])
def test_two_columns_of_one_name_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"material_id,cif,energy,{name}\n")
    assert f"two columns are called '{name}'" in message(lambda: read(tmp_path / "a.csv"))


def test_a_row_of_more_cells_than_columns_is_a_failure_unless_they_are_empty(tmp_path: Path) -> None:
    write(build_prototypes()[:1], tmp_path / "a.csv")
    whole = (tmp_path / "a.csv").read_text()
    (tmp_path / "a.csv").write_text(whole.rstrip("\r\n") + ",,\n")
    assert len(read(tmp_path / "a.csv")) == 1
    (tmp_path / "a.csv").write_text(whole.rstrip("\r\n") + ",5\n")
    assert "more cells than columns" in message(lambda: read(tmp_path / "a.csv"))


def test_a_key_that_stands_twice_in_json_is_refused(tmp_path: Path) -> None:
    write(build_prototypes()[:1], tmp_path / "a.json")
    one = json.dumps(json.loads((tmp_path / "a.json").read_text())[0])
    (tmp_path / "a.json").write_text(f'{{"x": {one}, "x": {one}}}')
    assert "the key 'x' stands twice" in message(lambda: read(tmp_path / "a.json"))


def test_csv_in_a_zip_and_gzipped_in_it(tmp_path: Path) -> None:
    some = build_prototypes()[:3]
    write(some, tmp_path / "a.csv")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "a.csv", "inner/a.csv")
        archive.writestr("b.csv.gz", gzip.compress((tmp_path / "a.csv").read_bytes()))
    assert len(read(tmp_path / "a.zip")) == 6


def test_parquet_is_read_like_csv(tmp_path: Path) -> None:
    rows = {
        "id": ["a", "b"],
        "cif": [cif_text(Crystal.from_pymatgen(SALT))] * 2,
        "gap": [1.5, None],
        "tag": ["x", "y"],
    }
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    first, second = read(tmp_path / "a.parquet")
    assert (first.id, first.formula, first.properties) == ("a", "CsCl", {"gap": 1.5})
    assert (second.id, second.properties) == ("b", {})
    rows = {"id": range(10**5), "cif": pa.array(["x"] * 10**5).dictionary_encode()}
    pq.write_table(pa.table(rows).select(["cif"]), tmp_path / "a.parquet")
    assert "claims 100000 rows" in message(lambda: read(tmp_path / "a.parquet"))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more PAR1")
    assert "not a Parquet file" in message(lambda: read(tmp_path / "a.parquet"))


def csv_of(path: Path, name: str, cells: list[str]) -> Path:
    cif = cif_text(Crystal.from_pymatgen(SALT))
    rows = [f'{k},"{cif}","{cell}"' for k, cell in enumerate(cells)]
    path.write_text("\n".join([f"id,cif,{name}", *rows, ""]))
    return path


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (["8.3 eV"] * 3, "column 'gap': 3 cells are no numbers and were left out, such as '8.3 eV'"),
        (["1.5", "", "<0.2"], "column 'gap': 1 cells are no numbers and were left out, such as '<0.2'"),
        (["6,2", "7,0", "1"], "column 'gap': 2 cells are no numbers and were left out, such as '6,2'"),
        (["1.5", "metal", "2"], "column 'gap': 1 cells are no numbers and were left out, such as 'metal'"),
        (["~3", "± 0.1", "4(1)"], "column 'gap': 3 cells are no numbers and were left out, such as '~3'"),
        (["1.5", "", "nan"], ""),
        (["1.5", "N/A", "None"], ""),
        (["NaCl", "InF", "P1"], ""),
    ],
)
def test_text_in_a_column_of_numbers_is_named_on_stderr(
    cells: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(read(csv_of(tmp_path / "a.csv", "gap", cells))) == 3
    assert capsys.readouterr().err == (f"note: {tmp_path / 'a.csv'}: {told}\n" if told else "")


@pytest.mark.parametrize("name", ["Unnamed: 0", "Unnamed: 12", "__index_level_0__", '""'])
def test_the_number_of_a_row_is_no_property(name: str, tmp_path: Path) -> None:
    assert all(not c.properties for c in read(csv_of(tmp_path / "a.csv", name, ["0", "1", "2"])))


def test_ids_that_a_spreadsheet_or_terminal_would_obey(tmp_path: Path) -> None:
    for id in ("=cmd|' /C calc'!A0", "+1", "-x", "@sum(1)", "'=1"):
        path = write([Crystal.from_pymatgen(SALT).with_id(id)], tmp_path / "a.csv", overwrite=True)
        assert path.read_text().splitlines()[1][0] not in "=+-@"
        assert read(path)[0].id == id
    csv_of(tmp_path / "b.csv", "gap", ["1"]).write_text((tmp_path / "b.csv").read_text().replace('0,"', '\x1b[2J,"', 1))
    assert read(tmp_path / "b.csv")[0].id == "[2J"


# extended XYZ and POSCAR


FRAME = '2\nLattice="4.2 0 0 0 4.2 0 0 0 4.2" Properties=species:S:1:pos:R:3 %s\nCs 0 0 0\nCl 2.1 2.1 2.1\n'


@pytest.mark.parametrize("pbc", ["F F F", "T T F", "0 0 1", "F", "False True True", "[T, T, F]"])
def test_what_is_not_periodic_in_three_directions_is_no_crystal(pbc: str, tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text(FRAME % f'pbc="{pbc}"')
    assert "not periodic in three directions" in message(lambda: read(tmp_path / "a.xyz"))


@pytest.mark.parametrize("pbc", ["T T T", "1 1 1", "True True True", "[T, T, T]", "t,t,t"])
def test_periodic_in_every_notation(pbc: str, tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text(FRAME % f'pbc="{pbc}"')
    assert read(tmp_path / "a.xyz")[0].formula == "CsCl"


@pytest.mark.parametrize(
    "cell",
    [
        "{4.2 0 0 0 4.2 0 0 0 4.2}",
        "[[4.2,0,0],[0,4.2,0],[0,0,4.2]]",
        "[4.2, 0, 0, 0, 4.2, 0, 0, 0, 4.2]",
        '"4.2, 0, 0, 0, 4.2, 0, 0, 0, 4.2"',
    ],
)
def test_lattices_in_every_notation(cell: str, tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text((FRAME % "").replace('"4.2 0 0 0 4.2 0 0 0 4.2"', cell))
    assert read(tmp_path / "a.xyz")[0].lengths == pytest.approx(4.2)


@pytest.mark.parametrize("number", ["0", "119", "999", "9" * 30, "9" * 5000, "-1"])
def test_atomic_numbers_that_are_none(number: str, tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text((FRAME % "").replace("Cs 0", f"{number} 0"))
    assert message(lambda: read(tmp_path / "a.xyz")).startswith(f"{tmp_path / 'a.xyz'} frame 1: ")


def test_forces_stress_and_strings_are_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.calc = EMT()
    atoms.get_forces()
    atoms.get_stress()
    atoms.info["source"] = "run 1"
    ase_write(tmp_path / "a.extxyz", [atoms] * 3)
    assert [set(c.properties) for c in read(tmp_path / "a.extxyz")] == [{"energy", "free_energy"}] * 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(word in said for word in ("forces", "stress", "source", "(3 times)"))


@pytest.mark.parametrize("scale", ["1.0 ! of a", "1.0 # Å", "1.0 scaling factor", "1 1 1 each"])
def test_comments_in_a_poscar(scale: str, tmp_path: Path) -> None:
    body = "4 0 0 ! a\n0 4 0\n0 0 4\nTi O ! species\n1 1 ! counts\nDirect\n0 0 0 Ti\n.5 .5 .5 O\n"
    (tmp_path / "POSCAR").write_text(f"rutile\n{scale}\n{body}")
    assert read(tmp_path / "POSCAR")[0].formula == "TiO"
    (tmp_path / "POSCAR").write_text(f"rutile\nscale 1.0\n{body}")
    assert "a scaling factor and three lattice vectors" in message(lambda: read(tmp_path / "POSCAR"))


# ASE


def frames() -> list:
    copper, salt = bulk("Cu", cubic=True), bulk("NaCl", "rocksalt", a=5.64)
    copper.calc = EMT()
    copper.get_forces()
    copper.set_constraint(FixAtoms([0]))
    moved = copper.copy()
    moved.positions += 0.1
    return [copper, moved, salt]


def assert_same_as_ase(crystals: list[Crystal], atoms: list) -> None:
    for crystal, other in zip(crystals, atoms, strict=True):
        assert_same_crystal(Crystal.from_ase(other), crystal, 1e-10, oriented=True)


def test_every_frame_of_a_trajectory_is_read(tmp_path: Path) -> None:
    ase_write(tmp_path / "a.traj", frames())
    crystals = read(tmp_path / "a.traj")
    assert_same_as_ase(crystals, frames())
    assert crystals[0].properties["energy"] == pytest.approx(frames()[0].get_potential_energy())
    assert [c.id for c in crystals] == ["a-0", "a-1", "a-2"]
    slab = bulk("Cu")
    slab.pbc = (True, True, False)
    ase_write(tmp_path / "slab.traj", slab)
    assert "not periodic in three directions" in message(lambda: read(tmp_path / "slab.traj"))


def test_the_size_that_a_trajectory_claims_is_not_allocated(tmp_path: Path) -> None:
    """Cut anywhere, or with any eight bytes changed: fewer crystals or one line, at once."""
    ase_write(tmp_path / "a.traj", frames())
    content = (tmp_path / "a.traj").read_bytes()
    rng = np.random.default_rng(0)
    for k in range(60):
        place = int(rng.integers(24, len(content)))
        rest = b"" if k % 2 else struct.pack("<q", 10 ** (k % 19)) + content[place + 8 :]
        (tmp_path / "b.traj").write_bytes(content[:place] + rest)
        failures: list[Failure] = []
        with contextlib.suppress(InputError):
            assert len(read(tmp_path / "b.traj", failures)) + len(failures) <= 3


def test_databases_are_read_and_left_alone(tmp_path: Path) -> None:
    with ase.db.connect(tmp_path / "a.db") as database:
        for atoms in frames():
            database.write(atoms, gap=1.5, name="x", stable=True)
    before = (tmp_path / "a.db").read_bytes()
    crystals = read(tmp_path / "a.db")
    assert_same_as_ase(crystals, frames())
    assert [c.properties.get("gap") for c in crystals] == [1.5] * 3
    assert (tmp_path / "a.db").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")) == ["a.db"]


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE other (id INTEGER)",
        "CREATE TABLE systems (id INTEGER)",
        "CREATE VIEW systems AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT i AS id, x'' AS numbers, x'' AS positions, x'' AS cell, 7 AS pbc, 0 AS energy, '{}' AS key_value_pairs "
        "FROM n",
    ],
)
def test_databases_of_others_are_refused(script: str, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute(script)
    assert message(lambda: read(tmp_path / "a.db")).startswith(f"{tmp_path / 'a.db'}: not a")
    (tmp_path / "a.db").write_bytes(b"SQLite format 3\0" + bytes(200))
    assert message(lambda: read(tmp_path / "a.db")).startswith(f"{tmp_path / 'a.db'}: ")


def test_a_database_gives_no_value_longer_than_its_file(tmp_path: Path) -> None:
    """A generated column could make any number of atoms out of nothing."""
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute(
            "CREATE TABLE systems (id INTEGER, numbers BLOB AS (cast(replace(hex(zeroblob(600000)), '00', "
            "cast(x'01000000' AS text)) AS blob)), positions BLOB AS (zeroblob(14400000)), cell BLOB, pbc INTEGER, "
            "energy REAL, key_value_pairs TEXT)"
        )
        cell = np.eye(3).tobytes()
        database.execute("INSERT INTO systems (id, cell, pbc, key_value_pairs) VALUES (1, ?, 7, '{}')", [cell])
    assert "string or blob too big" in message(lambda: read(tmp_path / "a.db"))


# torch


class Batch:
    """A class that only its program has."""

    def __init__(self) -> None:
        self.pos = torch.ones(3)
        self.path = Path("/data")
        self.slices = defaultdict(dict, {"x": {1: 2}})


def test_objects_of_other_programs_beside_the_tensors(tmp_path: Path) -> None:
    some = build_prototypes()[:3]
    peer_file(tmp_path / "eval_recon.pt", some, input_data_batch=Batch(), kept=OrderedDict(a=1), kind=Batch)
    for crystal, other in zip(some, read(tmp_path / "eval_recon.pt"), strict=True):
        assert_same_crystal(crystal, other, 1e-9)
    with (tmp_path / "eval_recon.pt").open("rb") as stream:
        content = load_torch(stream)
    assert isinstance(content["input_data_batch"], Inert)
    assert isinstance(content["input_data_batch"].state["slices"], Inert)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t[:1, :1].expand(10**6, 3), "more than it stores"),
        (lambda t: torch.empty(10**12, 3, device="meta"), "no tensor frac_coords"),
        (lambda t: t.to_sparse(), "no tensor frac_coords"),
        (lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8), "no tensor frac_coords"),
        (lambda t: torch.nested.nested_tensor([t.float()]), "no tensor frac_coords"),
        (lambda t: t.to(torch.complex64), "complex"),
        (lambda t: t[0, 0], ""),
        (lambda t: t[None, None], ""),
        (lambda t: [1.0], "no tensor frac_coords"),
    ],
)
def test_tensors_that_are_no_plain_numbers(change: Any, reason: str, tmp_path: Path) -> None:
    peer_file(tmp_path / "a.pt", build_prototypes()[:2])
    content = torch.load(tmp_path / "a.pt")
    content["frac_coords"] = change(content["frac_coords"][0])
    torch.save(content, tmp_path / "a.pt")
    assert reason in message(lambda: read(tmp_path / "a.pt"))
