"""docs/reproduction.md holds what is kept, and rows of it are made again from the bundled models, with few crystals."""

from __future__ import annotations

import csv
import gzip
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import reproduce  # noqa: E402
from dpcdvae.cli import main  # noqa: E402
from dpcdvae.errors import InputError  # noqa: E402
from dpcdvae.io import read, write  # noqa: E402
from dpcdvae.model_store import find_model  # noqa: E402
from quality import aims  # noqa: E402
from quality.curves import best_within  # noqa: E402
from quality.published import COLUMNS, PAGE, TASKS, kept, render  # noqa: E402
from tensors import random_crystal  # noqa: E402

FEW = 4


def where(model: str) -> str:
    return reproduce.anywhere(reproduce.place_of(model))


def test_the_page_is_what_the_results_give() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert render(page, reproduce.RESULTS) == page
    assert kept(reproduce.RESULTS)


def test_kept_numbers_are_of_the_bundled_models_and_of_the_rows_as_they_are() -> None:
    rows = reproduce.rows()
    for record in kept(reproduce.RESULTS):
        assert record["row"] == rows[record["row"]["name"]].__dict__
        if record["row"]["model"]:
            assert record["model_sha256"] == find_model(where(record["row"]["model"])).sha256


def figure(model: str, value: float, **sampling: bool) -> dict[str, Any]:
    row = {"name": f"{model}-x", "model": model, "dataset": "carbon_24", "task": "reconstruct"}
    metrics = [{"name": "match_rms", "value": value, "interval": None, "n": 5, "unit": "(V/N)^(1/3)"}]
    return {"row": row, "metrics": metrics, "sampling": sampling}


@pytest.mark.parametrize(("value", "reached"), [(0.09, True), (0.0901, False)])
def test_an_aim_is_reached_by_the_default_system_alone(value: float, reached: bool) -> None:
    records = [figure("other", 0.01), figure("carbon-24", value), figure("carbon-24", 0.02, force_types=True)]
    lines = aims.table(records, COLUMNS, TASKS).splitlines()
    (line,) = [line for line in lines if line.startswith("| carbon_24, Table 1 | mean rms |")]
    assert f"| ≤ 0.0900 | {value:.4f} | `carbon-24-x` | 0.0100 | `other-x` |" in line
    assert line.endswith("| reached |") == reached


def test_a_curve_never_rises_with_the_time() -> None:
    curve = {"cpu_minutes": [1.0, 2.0, 4.0], "criterion": [3.0, 5.0, 2.0]}
    assert [best_within(curve, minutes) for minutes in (0.5, 1, 2, 3.9, 4)] == [None, 3, 3, 3, 2]


def test_dft_gets_the_crystals_with_the_fewest_atoms(tmp_path: Path) -> None:
    made = [replace(random_crystal(seed, num_atoms=n), id=str(seed)) for seed, n in enumerate((8, 6, 4, 6, 10))]
    write(made, tmp_path / "made.extxyz")
    few = read(reproduce._smallest(tmp_path / "made.extxyz", 3, tmp_path / "few.extxyz"))
    assert [(crystal.id, crystal.num_atoms) for crystal in few] == [("2", 4), ("1", 6), ("3", 6)]


def small_copy(data: Path, name: str, folder: Path) -> Path:
    """The first crystals of each split of a data set."""
    csv.field_size_limit(2**31 - 1)
    folder.mkdir()
    for split in ("train", "val", "test"):
        (file,) = (data / name).glob(f"{split}.csv*")
        opener = gzip.open if file.suffix == ".gz" else open
        with opener(file, "rt", newline="") as source, (folder / f"{split}.csv").open("w", newline="") as target:
            reader = csv.reader(source)
            csv.writer(target).writerows(row for row, _ in zip(reader, range(13), strict=False))
    return folder


@pytest.mark.parametrize(
    "name", ["perov-5-compact-reconstruct-1", "perov-5-compact-generate-1", "carbon-24-reconstruct-4"]
)
def test_a_row_is_made_again(name: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path / "home"))
    row = reproduce.row_of(name)
    part = small_copy(data_dir, row.dataset, tmp_path / "part")
    assert main(["data", "get", row.dataset, "--from", str(part), "--workers", "0"]) == 0
    before = sorted(reproduce.RESULTS.iterdir())
    found = reproduce.measure(row, tmp_path / "work", FEW)
    numbers = {number["name"]: number["value"] for number in found["metrics"]}
    assert found["crystals"] == FEW
    assert numbers["structural_validity"] == 1
    if row.task == "reconstruct":
        assert numbers["match_rate"] >= 0.5
    assert sorted(reproduce.RESULTS.iterdir()) == before


def test_test_crystals_match_themselves(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path / "home"))
    part = small_copy(data_dir, "carbon_24", tmp_path / "part")
    assert main(["data", "get", "carbon_24", "--from", str(part), "--workers", "0"]) == 0
    found = reproduce.measure(reproduce.row_of("carbon_24-ceiling"), tmp_path / "work", FEW)
    numbers = {number["name"]: number["value"] for number in found["metrics"]}
    assert (numbers["match_rate"], numbers["match_rms"]) == (1, pytest.approx(0, abs=1e-6))


def test_a_row_of_ground_states_is_made_again(tmp_path: Path) -> None:
    pytest.importorskip("chgnet", reason="no CHGNet: pip install 'dpcdvae[relaxation]'")
    found = reproduce.measure(reproduce.row_of("carbon-24-relax-4"), tmp_path / "work", 1)
    numbers = {number["name"]: number["value"] for number in found["metrics"]}
    assert found["crystals"] == found["relaxation"]["converged"] == 1
    assert numbers["match_rate"] in (0, 1)
    assert numbers["delta_enthalpy_rms"] > 0


@pytest.mark.parametrize("arguments", [[], ["nothing", "--work", "w"], ["perov-5-compact-generate-1"]])
def test_what_cannot_be_made_is_one_line(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *arguments])
    with pytest.raises(InputError):
        reproduce.main()
