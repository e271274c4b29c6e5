"""The table of crystals: a row for each, typed columns, reasons that agree with the numbers."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crystal_files import message
from dpcdvae.evaluation import crystal_rows
from dpcdvae.evaluation.crystal_columns import COLUMNS, column
from dpcdvae.evaluation.crystal_rows import SCHEMA, check_table, crystal_table, write_table
from dpcdvae.evaluation.metrics import METRICS
from dpcdvae.evaluation.reference import as_reference
from dpcdvae.evaluation.sample import Sample
from dpcdvae.io import Failure
from dpcdvae.io.tables import guarded
from dpcdvae.parallel import HERE
from dpcdvae.parallel.results import Results
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.neutrality import OXIDATION_TABLES, compositional_problem, compositionally_valid

CUBE = np.eye(3) * 4.0


@pytest.fixture(scope="module")
def odd() -> list[Crystal]:
    return [
        Crystal([55, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], CUBE, "fine"),
        Crystal([55, 17, 55], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.577]], CUBE, "near"),
        Crystal([6], [[0, 0, 0]], np.diag([0.3, 9.0, 9.0]), "own image"),
        Crystal([6], [[np.nan, 0, 0]], CUBE, "nan"),
        Crystal([6], [[0, 0, 0]], np.zeros((3, 3)), "flat"),
        Crystal([6], [[0, 0, 0]], np.eye(3) * 0.46, "small"),
        Crystal([2, 8], [[0, 0, 0], [0.5, 0.5, 0.5]], CUBE, "noble"),
        Crystal([11, *[8] * 7], np.indices((2, 2, 2)).reshape(3, 8).T / 2, CUBE, "=1+1"),
    ]


@pytest.fixture(scope="module")
def sample(odd: list[Crystal]) -> Sample:
    failures = [Failure("gone", "row 7", "no cell"), Failure("", "row 9", 'a "quoted",\nbroken line')]
    sample = Sample(odd, failures, as_reference(odd[:1]), False, Results(HERE, 60.0), 0)
    for metric in METRICS.values():
        metric.measure(sample)
    return sample


@pytest.fixture
def temporary_columns() -> Iterator[None]:
    before = set(COLUMNS)
    yield
    for name in set(COLUMNS) - before:
        del COLUMNS._entries[name]


def test_every_generated_crystal_has_a_row(sample: Sample) -> None:
    table = crystal_table(sample)
    assert {len(values) for values in table.values()} == {sample.generated}
    assert list(table)[:5] == ["id", "where", "failure", "formula", "num_atoms"]
    assert table["id"][:1] + table["id"][-2:] == ["fine", "gone", ""]
    assert table["where"] == [None] * 8 + ["row 7", "row 9"]
    assert table["failure"][-2:] == ["no cell", 'a "quoted",\nbroken line']
    assert table["space_group_symbol"][0] == "Pm-3m"
    assert table["num_atoms"] == [2, 3, 1, 1, 1, 1, 2, 8, None, None]
    assert table["volume_per_atom"][:4] == [pytest.approx(32.0), pytest.approx(64 / 3), pytest.approx(24.3), None]
    assert (table["nearest_structure"][0], table["nearest_composition"][0], table["covered"][0]) == (0.0, 0.0, True)
    assert (table["nearest_structure"][3], table["covered"][3]) == (None, False)
    for name, values in table.items():
        assert {type(value) for value in values} <= {bool, int, float, str, type(None)}, name
        assert all(np.isfinite(value) for value in values if isinstance(value, float)), name


def test_reasons_are_those_of_the_invalid(sample: Sample) -> None:
    table = crystal_table(sample)
    valid = np.array(table["structurally_valid"][:8], bool) & np.array(table["compositionally_valid"][:8], bool)
    assert valid.sum() == METRICS["validity"].measure(sample)[0].value * sample.generated
    assert [reason is None for reason in table["invalid_reason"][:8]] == valid.tolist()
    expected = [
        None,
        r"atoms 2 and 3 are 0\.31 Å apart; charges balance only against the electronegativities",
        r"an atom is 0\.30 Å from its own image",
        "coordinates are not finite",
        "the cell is degenerate",
        r"the volume is 0\.0973 Å\^3",
        "no oxidation state is known of He",
        "charges cannot balance",
    ]
    for reason, pattern in zip(table["invalid_reason"], expected, strict=False):
        assert (reason is None) if pattern is None else re.fullmatch(pattern, reason), reason


def test_what_was_given_up_stands_in_the_row(sample: Sample) -> None:
    table = crystal_table(sample)
    given_up = dict(zip(table["id"], table["given_up"], strict=True))
    assert given_up["fine"] is None
    assert given_up["nan"].startswith("fingerprint: ")
    assert given_up["gone"] is None
    sample.given_up.append({"what": "energy of the reference", "id": "fine", "reason": "no idea"})
    assert crystal_table(sample)["given_up"][0] is None


@pytest.mark.parametrize("table", OXIDATION_TABLES)
def test_a_composition_has_a_problem_exactly_if_it_is_not_valid(table: str) -> None:
    rng = np.random.default_rng(0)
    crystals = []
    for _ in range(400):
        numbers = np.repeat(rng.integers(1, 119, rng.integers(1, 5)), 2)
        crystals.append(Crystal(numbers, np.zeros((len(numbers), 3)), CUBE))
    problems = [compositional_problem(crystal, table) for crystal in crystals]
    np.testing.assert_array_equal([p is None for p in problems], compositionally_valid(crystals, table))
    assert {"charges cannot balance", "charges balance only against the electronegativities"} < set(problems)


def test_csv_round_trip(sample: Sample, tmp_path: Path) -> None:
    table = crystal_table(sample)
    write_table(table, tmp_path / "crystals.csv")
    with (tmp_path / "crystals.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(table)
    for name, values in table.items():
        for row, value in zip(rows, values, strict=True):
            if isinstance(value, bool):
                assert row[name] == str(value).lower()
            elif isinstance(value, float):
                assert float(row[name]) == value
            else:
                assert row[name] == ("" if value is None else guarded(str(value)) if name == "id" else str(value))


def test_parquet_round_trip(sample: Sample, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = {**crystal_table(sample)}
    write_table(table, tmp_path / "crystals.parquet")
    back = parquet.read_table(tmp_path / "crystals.parquet")
    assert back.to_pydict() == table
    types = {field.name: str(field.type) for field in back.schema}
    assert types["id"] == types["given_up"] == types["formula"] == "string"
    assert types["num_atoms"] == types["space_group_number"] == "int64"
    assert types["structurally_valid"] == "bool"
    assert types["density"] == "double"
    assert back.schema.field("density").metadata[b"unit"] == b"g/cm^3"
    assert back.schema.metadata[b"schema"] == SCHEMA.encode()


def test_types_do_not_depend_on_the_crystals(odd: list[Crystal], tmp_path: Path) -> None:
    """Parquet files of many runs are read as one: a column without any value keeps its type."""
    parquet = pytest.importorskip("pyarrow.parquet")
    schemas = []
    for k, some in enumerate((odd[:1], [odd[3]], [])):
        sample = Sample(some, [Failure("f", "x", "y")], as_reference(odd[:1]), False, Results(HERE, 60.0), 0)
        write_table(crystal_table(sample), tmp_path / f"{k}.parquet")
        schemas.append(parquet.read_schema(tmp_path / f"{k}.parquet"))
    assert schemas[0].equals(schemas[1])
    assert schemas[0].equals(schemas[2])


@pytest.mark.usefixtures("temporary_columns")
def test_a_registered_column_is_in_the_table(sample: Sample) -> None:
    column("shoe_size", "EU", kind=int)(lambda sample: np.arange(len(sample.crystals)))
    column("not_for_this_sample")(lambda sample: [])
    column("with_nan")(lambda sample: np.full(len(sample.crystals), np.nan))
    table = crystal_table(sample)
    assert table["shoe_size"] == [*range(8), None, None]
    assert table["with_nan"] == [None] * 10
    assert table["not_for_this_sample"] == [None] * 10
    column("short")(lambda sample: [1])
    with pytest.raises(ValueError, match="'short' has 1 values for 8 crystals"):
        crystal_table(sample)


def test_properties_that_a_model_gave_its_crystals_are_in_the_table(sample: Sample, odd: list[Crystal]) -> None:
    """The latent distance and the decodes that were made; no column of values where no crystal carries them."""
    known = [replace(odd[0], properties={"latent_distance": 0.25, "candidates": 3.0}), odd[1]]
    decoded = Sample(known, [], as_reference(odd[:1]), False, Results(HERE, 60.0), 0)
    for name, value in (("latent_distance", 0.25), ("candidates", 3)):
        assert COLUMNS[name].measure(decoded) == [value, None]
        assert set(crystal_table(sample)[name]) == {None}


def test_other_formats_are_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("table.xlsx", "table"):
        said = message(lambda name=name: check_table(tmp_path / name))
        assert ".csv" in said
        assert ".parquet" in said
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert "pip install 'dpcdvae[parquet]'" in message(lambda: check_table("table.parquet"))
    check_table("table.csv")


def test_names_that_are_no_text_and_a_broken_write(
    odd: list[Crystal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file name may hold any byte; an interrupted write leaves the old table."""
    name = b"caf\xe9.cif".decode("utf-8", "surrogateescape")
    table = {"id": [name], "where": [None], "failure": [None], "given_up": [None]}
    for suffix in (".csv", ".parquet"):
        write_table(table, tmp_path / f"t{suffix}")
        assert b"caf?.cif" in (tmp_path / f"t{suffix}").read_bytes()
    monkeypatch.setattr(crystal_rows, "_write_csv", lambda columns, path: path.write_text("half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_table(table, tmp_path / "t.csv")
    assert b"caf?.cif" in (tmp_path / "t.csv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv", "t.parquet"]
