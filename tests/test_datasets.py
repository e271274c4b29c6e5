"""Data sets: bad rows named and left out, caches reused when they should be, splits by seed."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dpcdvae.datasets import (
    SPLITS,
    add_dataset,
    dataset_file,
    get_dataset,
    load_dataset,
    load_split,
    prepared_names,
)
from dpcdvae.datasets.building import split_by_seed
from dpcdvae.datasets.preparation import Settings, by_reason, prepare
from dpcdvae.errors import InputError
from dpcdvae.files import home
from dpcdvae.io import Failure, cif_text
from dpcdvae.parallel import HERE, LocalEngine
from dpcdvae.prototypes import build_prototypes
from dpcdvae.structures.crystal import Crystal


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def crystals() -> list[Crystal]:
    return build_prototypes()[::10][:40]


def write_csv(path: Path, rows: list[tuple[str, str]], column: str = "cif") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["material_id", column, "energy"])
        writer.writerows((id, cif, 0.5 * k if k % 2 else "") for k, (id, cif) in enumerate(rows))
    return path


def rows_of(crystals: list[Crystal]) -> list[tuple[str, str]]:
    return [(c.id, cif_text(c)) for c in crystals]


def large(n: int) -> Crystal:
    """n atoms of helium in a row of cubes."""
    return Crystal(
        np.full(n, 2), np.stack([np.arange(n) / n, np.zeros(n), np.zeros(n)], 1), np.diag([3.0 * n, 3, 3]), "x"
    )


def changed(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new, 1)


def rock_salt() -> Crystal:
    return Crystal(np.array([11, 17]), np.array([[0, 0, 0], [0.5] * 3]), 2.82 * (1 - np.eye(3)), "x")


BAD = {
    "unparsable": ("data_x\nnothing of the kind", "CIF"),
    "empty cell": ("", "the cell 'cif' .*is empty|'cif' is empty"),
    "overlap": (
        cif_text(Crystal(np.array([11, 11]), np.array([[0, 0, 0], [0, 0, 0.01]]), 4 * np.eye(3), "x")),
        r"atoms 1 and 2 are 0\.040 Å apart",
    ),
    "400 atoms": (cif_text(large(400)), "400 atoms in the cell: more than 100"),
    "partial occupancy": (changed(cif_text(rock_salt()), "0.50000000 1\n", "0.50000000 0.5\n"), "partial occupanc"),
    "isotope": (changed(cif_text(rock_salt()), " Na Na0", " D D0"), "isotope 'D'|not an element"),
    "dummy": (changed(cif_text(rock_salt()), " Na Na0", " Xx Xx0"), "'Xx.*' is not an element|parse"),
    "element 104": (cif_text(Crystal(np.array([104]), np.zeros((1, 3)), 4 * np.eye(3), "x")), "element Rf is beyond"),
    "NaN lattice": (
        changed(cif_text(rock_salt()), "_cell_length_a 3.9", "_cell_length_a nan 0.9").replace("nan 0.9", "nan #"),
        "the lattice is not finite",
    ),
    "isolated": (cif_text(Crystal(np.array([2]), np.zeros((1, 3)), 9 * np.eye(3), "x")), "atom 1 is isolated"),
    "flat": (cif_text(Crystal(np.array([6]), np.zeros((1, 3)), np.diag([3, 3, 1e-5]), "x")), "cell is degenerate"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_is_named_with_row_and_reason_and_left_out(
    tmp_path: Path, crystals: list[Crystal], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cif, reason = BAD[kind]
    rows = [*rows_of(crystals)[:16], ("culprit", cif), *rows_of(crystals)[16:20]]
    dataset = add_dataset(write_csv(tmp_path / "own.csv", rows), "own")
    assert sum(len(table) for table in dataset.tables.values()) == 20
    [failure] = dataset.metadata["failures"]
    assert failure["id"] == "culprit"
    assert failure["where"] == f"{tmp_path / 'own.csv'} row 17"
    assert re.search(reason, failure["reason"]), failure["reason"]
    err = capsys.readouterr().err
    assert "20 crystals (train 16, val 2, test 2); 1 could not be used" in err
    assert "row 17" in err


def test_rows_are_counted_right_beyond_unreadable_ones(tmp_path: Path, crystals: list[Crystal]) -> None:
    rows = rows_of(crystals)[:12]
    rows[3] = ("unreadable", "nothing")
    rows[7] = ("overlap", BAD["overlap"][0])
    rows[9] = ("unreadable too", "nothing")
    failures = add_dataset(write_csv(tmp_path / "own.csv", rows), "own").metadata["failures"]
    where = {f["id"]: f["where"].rpartition(" ")[2] for f in failures}
    assert where == {"unreadable": "4", "unreadable too": "10", "overlap": "8"}


def test_an_unexpected_error_is_a_failure_of_one_crystal(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(crystal: Crystal) -> None:
        raise ZeroDivisionError("in a library")

    table, failures = prepare([rock_salt()], ["row 1"], Settings(20))
    assert (len(table), failures) == (1, [])
    monkeypatch.setattr("dpcdvae.datasets.preparation.crystal_nn_bonds", stumble)
    table, failures = prepare([rock_salt()], ["row 1"], Settings(20))
    assert len(table) == 0
    assert failures == [Failure("x", "row 1", "ZeroDivisionError: in a library")]


def test_workers_give_the_same(crystals: list[Crystal]) -> None:
    places = [c.id for c in crystals]
    alone, _ = prepare(crystals, places, Settings(20), engine=HERE)
    shared, _ = prepare(crystals, places, Settings(20), engine=LocalEngine(2))
    for name in ("ids", "num_atoms", "frac_coords", "lattices", "bonds", "bond_images"):
        np.testing.assert_array_equal(getattr(shared, name), getattr(alone, name))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "empty"),
        ("material_id,structure\n1,x\n", "no column 'cif'.*'structure'"),
        ("material_id,cif\n", "no crystals|no usable crystal"),
        ("material_id,cif\n1,x\n2,y\n", "no usable crystal for 'own'.*row 1"),
    ],
)
def test_a_file_without_a_usable_crystal_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "own.csv").write_text(content)
    with pytest.raises(InputError, match=reason):
        add_dataset(tmp_path / "own.csv", "own")
    assert prepared_names() == []


def test_a_prepared_data_set_is_loaded_as_it_was(tmp_path: Path, crystals: list[Crystal]) -> None:
    written = add_dataset(write_csv(tmp_path / "own.csv", rows_of(crystals)), "own")
    for loaded in (load_dataset("own"), load_dataset(str(dataset_file("own")))):
        assert loaded.name == "own"
        assert loaded.metadata == written.metadata
        assert list(loaded.tables) == list(SPLITS)
        for split, table in written.tables.items():
            for name in ("ids", "num_atoms", "atomic_numbers", "frac_coords", "lattices", "bonds", "bond_images"):
                np.testing.assert_array_equal(getattr(loaded[split], name), getattr(table, name))
            np.testing.assert_array_equal(loaded[split].properties["energy"], table.properties["energy"])
    assert load_split("own:val").ids.tolist() == written["val"].ids.tolist()
    assert load_split("own").ids.tolist() == written["test"].ids.tolist()
    assert 0 < np.isnan(written["train"].properties["energy"]).sum() < len(written["train"])


def test_a_damaged_cache_is_recognised(tmp_path: Path, crystals: list[Crystal]) -> None:
    add_dataset(write_csv(tmp_path / "own.csv", rows_of(crystals)), "own")
    path = dataset_file("own")
    content = bytearray(path.read_bytes())
    start = content.find(b"frac_coords")
    for position in range(start + 60, start + 200):
        content[position] ^= 0x5A
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{re.escape(str(path))} is not a data set cache"):
        load_dataset("own")
    np.savez(path, metadata=np.array("[]"))
    with pytest.raises(InputError, match="no JSON object"):
        load_dataset("own")


def test_split_by_seed(crystals: list[Crystal]) -> None:
    table, _ = prepare(crystals, [c.id for c in crystals], Settings(20))
    ids = {seed: [s.ids.tolist() for s in split_by_seed(table, (0.6, 0.2, 0.2), seed).values()] for seed in (0, 1)}
    again = [s.ids.tolist() for s in split_by_seed(table, (0.6, 0.2, 0.2), 0).values()]
    assert again == ids[0] != ids[1]
    assert [len(part) for part in ids[0]] == [24, 8, 8]
    assert sorted(id for part in ids[0] for id in part) == sorted(table.ids.tolist())
    assert list(split_by_seed(table, (0.9, 0.1, 0.0), 0)) == ["train", "val"]
    assert [len(s) for s in split_by_seed(table.select([0, 1, 2]), (0.98, 0.01, 0.01), 0).values()] == [1, 1, 1]
    with pytest.raises(InputError, match="2 usable crystals cannot be split"):
        split_by_seed(table.select([0, 1]), (0.8, 0.1, 0.1), 0)


@pytest.fixture
def folder(tmp_path: Path, crystals: list[Crystal]) -> Path:
    for k, split in enumerate(SPLITS):
        write_csv(tmp_path / "source" / f"{split}.csv", rows_of(crystals[k::3]))
    return tmp_path / "source"


def test_prepared_again_only_when_files_or_settings_change(folder: Path, crystals: list[Crystal]) -> None:
    def prepared_at(**options: bool) -> int:
        get_dataset("perov_5", folder=folder, store_as="mine", **options)
        return dataset_file("mine").stat().st_mtime_ns

    first = prepared_at()
    assert prepared_at() == first
    subprocess.run(["gzip", folder / "val.csv"], check=True)
    assert prepared_at() == first  # the same content
    second = prepared_at(primitive=True)
    assert second != first
    write_csv(folder / "test.csv", rows_of(crystals[:5]))
    third = prepared_at(primitive=True)
    assert third != second
    content = dataset_file("mine").read_bytes()
    dataset_file("mine").write_bytes(content[: len(content) // 2])
    assert prepared_at(primitive=True) != third
    assert len(load_dataset("mine").tables) == 3


def test_a_folder_with_a_split_missing_is_refused(folder: Path) -> None:
    (folder / "val.csv").unlink()
    with pytest.raises(InputError, match=r"has no val\.csv"):
        get_dataset("perov_5", folder=folder)


def test_own_data_from_a_folder_with_splits_and_from_a_folder_of_cifs(
    folder: Path, tmp_path: Path, crystals: list[Crystal]
) -> None:
    dataset = add_dataset(folder, "split")
    assert [len(dataset[s]) for s in SPLITS] == [len(crystals[k::3]) for k in range(3)]
    cifs = tmp_path / "cifs"
    cifs.mkdir()
    for crystal in crystals:
        (cifs / f"{crystal.id}.cif").write_text(cif_text(crystal))
    (cifs / "broken.cif").write_text("data_x\n_cell_length_a what\n")
    dataset = add_dataset(cifs, "cifs", fractions=(0.5, 0.25, 0.25), seed=3)
    assert [len(dataset[s]) for s in SPLITS] == [20, 10, 10]
    assert sorted(id for t in dataset.tables.values() for id in t.ids) == sorted(c.id for c in crystals)
    assert "broken.cif" in dataset.metadata["failures"][0]["where"]


def test_bad_names_of_data_sets_are_refused(tmp_path: Path, crystals: list[Crystal]) -> None:
    source = write_csv(tmp_path / "own.csv", rows_of(crystals[:4]))
    add_dataset(source, "own")
    with pytest.raises(InputError, match="data set 'own' exists"):
        add_dataset(source, "own")
    add_dataset(source, "own", overwrite=True)
    with pytest.raises(InputError, match="'perov_5' is the name of a published data set"):
        add_dataset(source, "perov_5", overwrite=True)
    for name in ("../evil", "", "a:b", ".hidden"):
        with pytest.raises(InputError, match="cannot name a data set"):
            add_dataset(source, name)
    with pytest.raises(InputError, match="unknown data set 'perov5': did you mean 'perov_5'"):
        load_dataset("perov5")
    with pytest.raises(InputError, match="unknown data set 'onw': did you mean 'own'"):
        load_dataset("onw")
    with pytest.raises(InputError, match="unknown split of data set 'own' 'tset': did you mean 'test'"):
        load_split("own:tset")
    with pytest.raises(InputError, match="run 'dpcdvae data get mp_20'"):
        load_dataset("mp_20")
    assert prepared_names() == ["own"]


def test_the_cache_folder_is_that_of_dpcdvae_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert home() == tmp_path / "home"
    monkeypatch.delenv("DPCDVAE_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert home() == Path("/somewhere/dpcdvae")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert home() == Path.home() / ".cache" / "dpcdvae"


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5), (0.8, 0.1, 0.2), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1), (np.nan, 0.5, 0.5)]
)
def test_fractions_must_make_sense(tmp_path: Path, crystals: list[Crystal], fractions: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="three fractions"):
        add_dataset(write_csv(tmp_path / "own.csv", rows_of(crystals[:4])), "own", fractions=fractions)


def test_reasons_are_counted_whatever_the_numbers_in_them() -> None:
    reasons = ["NaN", "atom 1 has no bond", "atom 12 has no bond", "atom 3 has no bond"]
    failures = [Failure(f"id-{k}", f"row {k}", reason) for k, reason in enumerate(reasons)]
    assert by_reason(failures) == [("atom 1 has no bond", 3), ("NaN", 1)]


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("pymatgen", "ase", "torch", "spglib", "scipy"):
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocker())
from dpcdvae import load_dataset
dataset = load_dataset(sys.argv[1])
print(sum(len(t) for t in dataset.tables.values()), dataset["train"][0].formula)
"""


def test_the_prototypes_build_themselves_once_and_load_without_chemistry_libraries() -> None:
    built = load_dataset("prototypes")
    assert built.metadata["failures"] == []
    total = sum(len(t) for t in built.tables.values())
    assert total == len(build_prototypes())
    when = dataset_file("prototypes").stat().st_mtime_ns
    for name in ("prototypes", str(dataset_file("prototypes"))):
        done = subprocess.run(
            [sys.executable, "-c", BLOCKED, name], capture_output=True, text=True, env=os.environ, check=False
        )
        assert done.stdout.split() == [str(total), built["train"][0].formula], done.stderr
    assert dataset_file("prototypes").stat().st_mtime_ns == when


def test_a_home_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, crystals: list[Crystal], own_home: Path
) -> None:
    own_home.write_text("a file where the folder should be")
    with pytest.raises(InputError, match="is not a folder"):
        add_dataset(write_csv(tmp_path / "own.csv", rows_of(crystals[:4])), "own")
