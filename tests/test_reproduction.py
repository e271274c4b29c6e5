"""docs/reproduction.md holds what is kept, and rows of it are made again from the bundled models, with few crystals."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import reproduce  # noqa: E402
from dpcdvae.cli import main  # noqa: E402
from dpcdvae.datasets import DATASETS  # noqa: E402
from dpcdvae.errors import InputError  # noqa: E402
from dpcdvae.files import write_json  # noqa: E402
from dpcdvae.io import read, write  # noqa: E402
from quality import aims, making, published, rows, trained  # noqa: E402
from quality.curves import best_within  # noqa: E402
from quality.marked import with_part  # noqa: E402
from quality.published import COLUMNS, PAGE, TASKS, render  # noqa: E402
from quality.records import Record, read_records  # noqa: E402
from speed import record  # noqa: E402
from speed.command import run  # noqa: E402
from tensors import random_crystal  # noqa: E402

FEW = 4


def test_the_page_is_what_the_results_give() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert render(page, reproduce.RESULTS) == page
    assert len(read_records(reproduce.RESULTS)) > 40


def figure(model: str, value: float, **sampling: bool) -> Record:
    row = {"name": f"{model}-x", "system": "S", "model": model, "dataset": "carbon_24", "task": "reconstruct", "n": 5}
    metrics = [{"name": "match_rms", "value": value, "interval": None, "n": 5, "unit": "(V/N)^(1/3)"}]
    return Record(row={**row, "options": []}, commands=[], sampling=sampling, crystals=5, metrics=metrics, machine={})  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "reached"), [(0.09, True), (0.0901, False)])
def test_an_aim_is_reached_by_the_default_system_alone(value: float, reached: bool) -> None:
    records = [figure("other", 0.01), figure("carbon-24", value), figure("carbon-24", 0.02, force_types=True)]
    lines = aims.table(records, COLUMNS, TASKS).splitlines()
    (line,) = [line for line in lines if line.startswith("| carbon_24, Table 1 | mean rms |")]
    assert f"| ≤ 0.0900 | {value:.4f} | `carbon-24-x` | 0.0100 | `other-x` |" in line
    assert line.endswith("| reached |") == reached


def test_a_curve_never_rises_with_the_time() -> None:
    curve = trained.Curve(epoch=[1.0, 2.0, 3.0], cpu_minutes=[1.0, 2.0, 4.0], criterion=[3.0, 5.0, 2.0])
    assert [best_within(curve, minutes) for minutes in (0.5, 1, 2, 3.9, 4)] == [None, 3, 3, 3, 2]


def test_a_distance_of_few_crystals_says_of_how_many() -> None:
    row = {"name": "r", "system": "S", "model": "", "dataset": "perov_5", "task": "generate", "n": 100, "options": []}
    metrics = [
        {"name": name, "value": 0.5, "interval": None, "n": n, "unit": "u"}
        for name, n in (("density_wasserstein", 89), ("energy_wasserstein", 90), ("coverage_recall", 3))
    ]
    record = Record(row=row, commands=[], sampling={}, crystals=100, metrics=metrics, machine={})  # type: ignore[arg-type]
    (line,) = published.table("table2", "perov_5", [record], {}).splitlines()[2:]
    assert line == "| **S** | - | - | 0.5000 | - | 0.5000 of 89 | 0.5000 | - | 100 |  |  | `r` |"


def test_text_beside_a_part_of_a_page_stays() -> None:
    page = "a\n<!-- x y -->\nold\n<!-- end -->\nb\n<!-- z -->\nold\n<!-- end -->\nc\n"
    assert with_part(page, "x y", "\\1 new") == page.replace("old", "\\1 new", 1)
    assert with_part(page, "z", "new") == "new".join(page.rsplit("old", 1))
    for damaged in (page.replace("<!-- end -->", "", 1), page.replace("x y", "xy"), page + page):
        with pytest.raises(InputError, match="x y"):
            with_part(damaged, "x y", "new")


def test_dft_gets_the_crystals_with_the_fewest_atoms(tmp_path: Path) -> None:
    made = [replace(random_crystal(seed, num_atoms=n), id=str(seed)) for seed, n in enumerate((8, 6, 4, 6, 10))]
    write(made, tmp_path / "made.extxyz")
    few = read(making._smallest(tmp_path / "made.extxyz", 3, tmp_path / "few.extxyz"))
    assert [(crystal.id, crystal.num_atoms) for crystal in few] == [("2", 4), ("1", 6), ("3", 6)]


def refused(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which the script ends, with exit code 2."""
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        run(reproduce.main)
    said = capsys.readouterr().err
    assert stopped.value.code == 2, said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


def changed(record: dict[str, Any], *place: str | int, value: Any) -> dict[str, Any]:
    """A copy with another value at a place; None: without it."""
    copy: Any = json.loads(json.dumps(record))
    inside = copy
    for key in place[:-1]:
        inside = inside[key]
    if value is None:
        del inside[place[-1]]
    else:
        inside[place[-1]] = value
    return dict(copy)


NAME = "carbon-24-generate-4"
DAMAGED = {
    "no sampling": (("sampling",), None, "sampling is missing"),
    "no task": (("row", "task"), None, "row.task is missing"),
    "an unknown key": (("others",), 1, "others is not known"),
    "text for a number": (("metrics", 0, "value"), "abc", "metrics.0.value"),
    "another row": (("row", "name"), "carbon-24-reconstruct-4", "another name"),
    "other options": (("row", "options"), ["--steps", "1"], "another options"),
    "fewer crystals": (("crystals",), 6, "of 6 crystals, not 1000"),
    "another model": (("model_sha256",), "0" * 64, "another model carbon-24"),
}


@pytest.mark.parametrize(("place", "value", "said"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_result_is_one_line(
    place: tuple[str | int, ...],
    value: Any,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = json.loads((reproduce.RESULTS / f"{NAME}.json").read_text(encoding="utf-8"))
    write_json(tmp_path / f"{NAME}.json", changed(record, *place, value=value))
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path)
    before = PAGE.read_bytes()
    line = refused(["--tables"], monkeypatch, capsys)
    assert f"{NAME}.json" in line
    assert said in line
    assert PAGE.read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_result_cut_off_is_one_line(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"{NAME}.json").write_text(text)
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path)
    assert f"{NAME}.json" in refused(["--tables"], monkeypatch, capsys)


WRONG_FILES = {
    "rows: no TOML": (rows, "ROWS", "[task", "[[[", "not TOML"),
    "rows: unknown task": (rows, "ROWS", "generate-4 = 1000", "generate-9 = 1000", "generate-9"),
    "rows: unknown key": (rows, "ROWS", "energy_model =", "energy_modle =", "energy_modle is not known"),
    "rows: text": (rows, "ROWS", "generate-4 = 1000", 'generate-4 = "many"', "generate-4"),
    "rows: negative": (rows, "ROWS", "generate-4 = 1000", "generate-4 = -5", "generate-4"),
    "rows: unknown kind": (rows, "ROWS", 'task = "generate"', 'task = "genrate"', "genrate"),
    "rows: twice": (rows, "ROWS", 'name = "perov-5-compact"', 'name = "perov-5"', "twice"),
    "aims: no TOML": (aims, "AIMS", "[[aim]]", "[[[", "not TOML"),
    "aims: metric": (aims, "AIMS", '"match_rate"', '"match_rat"', "match_rat"),
    "aims: no goal": (aims, "AIMS", "at_least = 0.95\n", "", "needs one of at_least and at_most"),
    "aims: both": (aims, "AIMS", "at_least = 0.95\n", "at_least = 0.95\nat_most = 1.0\n", "needs one of"),
    "aims: text": (aims, "AIMS", "at_least = 0.95\n", 'at_least = "x"\n', "at_least"),
    "aims: table": (aims, "AIMS", 'table = "table1"', 'table = "table9"', "table9"),
    "published: too few": (published, "PUBLISHED", '["99.34", "0.0259"]', '["99.34"]', "needs 2 figures"),
    "published: numbers": (published, "PUBLISHED", '["99.34", "0.0259"]', "[99.34, 0.0259]", "table1.perov_5.FTCP.0"),
    "published: data set": (published, "PUBLISHED", "table1.perov_5", "table1.perov5", "table1.perov5"),
    "page: no end": (published, "PAGE", "<!-- end -->", "", "lacks <!-- end -->"),
    "page: part": (published, "PAGE", "<!-- aims -->", "<!-- aim -->", "<!-- aims -->"),
    "page: data set": (published, "PAGE", "<!-- table1 perov_5 -->", "<!-- table1 perov5 -->", "perov5"),
}


@pytest.mark.parametrize(("module", "name", "old", "new", "said"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_wrong_file_is_one_line(
    module: Any,
    name: str,
    old: str,
    new: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = getattr(module, name).read_text(encoding="utf-8")
    assert old in text
    file = tmp_path / "file"
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    monkeypatch.setattr(module, name, file)
    if name == "PAGE":
        monkeypatch.setattr(reproduce, "PAGE", file)
    assert said in refused(["--tables"], monkeypatch, capsys)
    assert file.read_text(encoding="utf-8") == text.replace(old, new, 1)


@pytest.mark.parametrize("curve", [None, [], {}, {"epoch": [], "cpu_minutes": [], "criterion": []}, {"epoch": [1.0]}])
def test_a_card_without_a_curve_is_one_line(curve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(trained.MODELS / "cdvae-carbon_24", tmp_path / "m")
    card = json.loads((tmp_path / "m" / "card.json").read_text(encoding="utf-8"))
    write_json(tmp_path / "m" / "card.json", {**card, "curve": curve})
    monkeypatch.setattr(trained, "MODELS", tmp_path)
    with pytest.raises(InputError, match="curve of the card"):
        trained.training("m")
    assert trained.training("") == trained.training("another") == ""


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


@pytest.fixture
def small(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Prepares the first crystals of a data set, in a home of their own."""
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path / "home"))

    def prepare(name: str) -> None:
        part = small_copy(data_dir, name, tmp_path / "part")
        assert main(["data", "get", name, "--from", str(part), "--workers", "0"]) == 0

    return prepare


@pytest.mark.parametrize(
    "name", ["perov-5-compact-reconstruct-1", "perov-5-compact-generate-1", "carbon-24-reconstruct-4"]
)
def test_a_row_is_made_again(name: str, small: Callable[[str], None], tmp_path: Path) -> None:
    row = rows.row_of(name)
    small(row.dataset)
    before = sorted(reproduce.RESULTS.iterdir())
    found = Record(**reproduce.measure(row, tmp_path / "work", FEW))
    assert found.crystals == FEW
    assert found.metric("structural_validity").value == 1  # type: ignore[union-attr]
    if row.task == "reconstruct":
        assert found.metric("match_rate").value >= 0.5  # type: ignore[union-attr,operator]
    assert sorted(reproduce.RESULTS.iterdir()) == before
    # What is there is judged again, not made again; what does not belong together is refused.
    (crystals,) = (tmp_path / "work").glob(f"{row.model}-*.extxyz")
    made = crystals.stat().st_mtime_ns
    again = Record(**reproduce.measure(row, tmp_path / "work", FEW))
    assert (again.metrics, again.made) == (found.metrics, found.made)
    assert crystals.stat().st_mtime_ns == made
    write(list(read(crystals))[:-1], crystals, overwrite=True)
    with pytest.raises(InputError, match="do not belong together"):
        reproduce.measure(row, tmp_path / "work", FEW)


def test_test_crystals_match_themselves(small: Callable[[str], None], tmp_path: Path) -> None:
    small("carbon_24")
    row = rows.row_of("carbon_24-ceiling")
    with pytest.raises(InputError, match="leave -n out"):
        reproduce.measure(row, tmp_path / "work", FEW)
    found = Record(**making.make(row, tmp_path / "work", None))
    values = [found.metric(name).value for name in ("match_rate", "match_rms")]  # type: ignore[union-attr]
    assert values == [1, pytest.approx(0, abs=1e-6)]
    assert found.crystals == 12


def test_nothing_is_kept_of_a_part_of_the_data(
    small: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small("carbon_24")
    capsys.readouterr()
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path / "results")
    line = refused(["carbon_24-ceiling", "--work", str(tmp_path / "work")], monkeypatch, capsys)
    assert f"not the published {DATASETS['carbon_24'].rows['test']}" in line
    assert not (tmp_path / "results").exists()


def test_a_row_of_ground_states_is_made_again(tmp_path: Path) -> None:
    pytest.importorskip("chgnet", reason="no CHGNet: pip install 'dpcdvae[relaxation]'")
    found = Record(**reproduce.measure(rows.row_of("carbon-24-relax-4"), tmp_path / "work", 1))
    assert found.relaxation is not None
    assert found.crystals == found.relaxation["converged"] == 1
    assert found.metric("match_rate").value in (0, 1)  # type: ignore[union-attr]
    assert found.metric("delta_enthalpy_rms").value > 0  # type: ignore[union-attr,operator]
    (energy,) = found.delta_energies.values()  # type: ignore[union-attr]
    assert abs(energy) == pytest.approx(found.metric("delta_energy_rms").value, abs=1e-3)  # type: ignore[union-attr]


BAD = {
    "nothing asked": ([], "which rows?"),
    "unknown": (["nothing", "--work", "w"], "nothing"),
    "two lines": (["a\nb", "--work", "w"], "unknown row"),
    "no folder": (["perov-5-compact-generate-1"], "--work FOLDER"),
    "an empty folder": (["perov-5-compact-generate-1", "--work", ""], "is empty"),
    "n": (["perov-5-compact-generate-1", "--work", "w", "-n", "-1"], "-n"),
}


@pytest.mark.parametrize(("arguments", "said"), BAD.values(), ids=BAD)
def test_what_cannot_be_made_is_one_line(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(arguments, monkeypatch, capsys)


@pytest.mark.parametrize(("text", "threads"), [("", 3), ("2", 2), ("4,2", 4)])
def test_threads_are_read_from_the_environment(text: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert record.threads(3) == threads


@pytest.mark.parametrize("text", ["abc", "0", "-1", "1.5"])
def test_wrong_threads_are_said_before_any_work(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    line = refused(["carbon-24-relax-4", "--work", str(tmp_path / "w"), "-n", "1"], monkeypatch, capsys)
    assert "OMP_NUM_THREADS" in line
    assert not (tmp_path / "w").exists()
