"""The report: laws over every metric, what is counted, JSON, and the command."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

import dpcdvae.files
from crystal_files import real_crystals
from dpcdvae.cli import main
from dpcdvae.errors import InputError
from dpcdvae.evaluation import METRICS, EnergyModel, Report, evaluate, read_generated, resolve_reference
from dpcdvae.evaluation.headline import CHOICES
from dpcdvae.evaluation.metrics.validity import DRAWN_GATE, counted, draws
from dpcdvae.evaluation.phases import Phase, Phases
from dpcdvae.evaluation.stability import EnergySource, Stability
from dpcdvae.io import Failure, read, write
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.summary import ReferenceStatistics


@pytest.fixture(scope="module")
def real(data_dir: Path) -> list[Crystal]:
    return real_crystals(data_dir / "perov_5" / "test.csv.gz", 40)


def volume_model(crystals: Sequence[Crystal]) -> tuple[np.ndarray, dict[int, str]]:
    """In an energy model's place; it cannot tell that of the first crystal."""
    values = np.array([crystal.volume / crystal.num_atoms for crystal in crystals])
    values[:1] = np.nan
    return values, {0: "no idea"}


def rattled(crystals: list[Crystal], scale: float, seed: int = 0) -> list[Crystal]:
    rng = np.random.default_rng(seed)
    return [
        Crystal(
            c.atomic_numbers,
            c.frac_coords + rng.normal(scale=scale, size=c.frac_coords.shape),
            c.lattice * rng.uniform(0.95, 1.1),
            c.id,
        )
        for c in crystals
    ]


def values(report: Report) -> dict[tuple[str, str], float | None]:
    return {(name, number.gate): number.value for name, number in report.numbers}


def test_real_crystals_against_themselves(real: list[Crystal]) -> None:
    report = evaluate(real, real, paired=True, workers=0)
    for name in ("structural_validity", "match_rate", "uniqueness"):
        assert report[name].value == 1.0, name
    for name in ("density_wasserstein", "num_elements_wasserstein", "match_rms"):
        assert report[name].value == pytest.approx(0.0, abs=1e-6), name


def test_every_number_has_its_count_and_an_interval_around_it(real: list[Crystal]) -> None:
    model = EnergyModel("volume", "Å^3/atom", volume_model)
    elements = {symbol for crystal in real for symbol in crystal.symbols}
    phases = Phases("elements", [Phase({symbol: 1}, 1.0) for symbol in elements])
    energies = EnergySource("volume", lambda crystal: crystal.volume / 12)
    report = evaluate(
        rattled(real, 0.1),
        real,
        paired=True,
        workers=0,
        training=real,
        energy_model=model,
        stability=Stability(phases, energies),
        relaxed=real,
    )
    assert {name for name, _ in report.numbers} == set(METRICS)
    known = {(name, number.gate) for name, number in report.numbers}
    assert all(known & {*choice.alternatives} for choice in CHOICES)
    for name, number in report.numbers:
        assert number.value is not None, name
        assert number.interval is not None, name
        assert number.interval[0] <= number.value <= number.interval[1], name
        assert 0 < number.n <= len(real), name


def test_energies_are_compared_where_they_are_known(real: list[Crystal]) -> None:
    model = EnergyModel("volume", "Å^3/atom", volume_model)
    report = evaluate(rattled(real, 0.05), real, workers=0, energy_model=model, baselines=())
    number = report["energy_wasserstein"]
    ours, theirs = (volume_model(crystals)[0][1:] for crystals in (rattled(real, 0.05), real))
    assert number.value == pytest.approx(wasserstein_distance(ours, theirs))
    assert number.n == len(real) - 1
    assert [g["what"] for g in report.given_up] == ["energy", "energy of the reference"]
    assert evaluate(real, real, workers=0, energy_model=model)["energy_wasserstein"].value == 0
    statistics = ReferenceStatistics.from_crystals(real, source="x", sha256="")
    with pytest.raises(InputError, match="energies need the crystals of the reference"):
        evaluate(real, statistics, workers=0, energy_model=model)


def test_what_could_not_be_read_or_is_no_crystal_counts_in_the_rates(real: list[Crystal]) -> None:
    broken = Crystal([6], [[np.nan, 0, 0]], np.eye(3), "broken")
    failures = [Failure(f"f{k}", "row 3", "no cell") for k in range(9)]
    whole = evaluate(real, real, workers=0)
    report = evaluate([*real, broken], real, failures=failures, workers=0)
    assert report.generated == 50
    assert report["structural_validity"].value == len(real) / 50
    assert report["validity"].value == pytest.approx(whole["validity"].value * len(real) / 50)
    assert report["density_wasserstein"].value == 0.0
    assert report["density_wasserstein"].n == report["uniqueness"].n == len(real)
    assert "not usable: no cell (9)" in report.markdown()


def test_what_could_not_be_read_counts_once_however_it_is_handed_on(real: list[Crystal], tmp_path: Path) -> None:
    write(real, tmp_path / "some.csv")
    with (tmp_path / "some.csv").open("a") as stream:
        stream.write("bad,no cif\nworse,none\n")
    failures: list[Failure] = []
    crystals = read(tmp_path / "some.csv", failures)
    ways = [
        evaluate(tmp_path / "some.csv", real, workers=0),
        evaluate(crystals, real, workers=0),
        evaluate(crystals, real, failures=failures, workers=0),
        evaluate(list(crystals), real, failures=failures, workers=0),
    ]
    assert [report.generated for report in ways] == [len(real) + 2] * 4


def test_nothing_readable_is_an_error_with_the_commonest_reason(real: list[Crystal]) -> None:
    """Reasons that differ in their numbers alone are one."""
    failures = [Failure(f"f{k}", f"row {k}", f"line {k} is no CIF") for k in range(8)]
    failures += [Failure("x", "row 9", "no cell")]
    with pytest.raises(InputError, match=r"none of 9 could be read or built: line 0 is no CIF \(8\), no cell \(1\)$"):
        evaluate([], real, failures=failures, workers=0)


def test_undecided_crystals_are_counted_beside_the_number(real: list[Crystal]) -> None:
    """Two atoms in one place have no fingerprint: the crystal counts as not covered, and a column says so."""
    crowded = Crystal([6, 6, 8], [[0, 0, 0], [0, 0, 1e-5], [0.5, 0.5, 0.5]], np.eye(3) * 4, "crowded")
    report = evaluate([*real, crowded], real, baselines=(), workers=0)
    assert report["coverage_precision"].undecided == 1
    assert report["coverage_precision"].value == pytest.approx(40 / 41)
    head = next(line for line in report.markdown().splitlines() if line.startswith("| metric"))
    assert "| undecided |" in head
    assert "undecided" not in evaluate(real, real, baselines=(), workers=0).markdown()


def test_the_published_draw_is_of_different_valid_crystals(
    real: list[Crystal], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dpcdvae.evaluation.metrics.validity.DRAWN", 6)
    crystals = [*rattled(real, 0.05), Crystal([8], [[0, 0, 0]], np.eye(3) * 0.4, "no crystal")]
    reports = [evaluate(crystals, real, baselines=(), workers=0, seed=seed) for seed in (0, 0, 1)]
    made = [[indices.tolist() for indices in report.sample.once(draws)] for report in reports]
    assert made[0] == made[1] != made[2]
    for report, chosen in zip(reports, made, strict=True):
        assert len(chosen) == 20
        for indices in chosen:
            assert len(set(indices)) == 6
            assert report.sample.once(counted)[indices].all()
        number = next(n for name, n in report.numbers if (name, n.gate) == ("density_wasserstein", DRAWN_GATE))
        expected = [
            wasserstein_distance([crystals[k].density for k in indices], [c.density for c in real])
            for indices in chosen
        ]
        assert (number.n, number.value) == (6, pytest.approx(np.mean(expected)))
        assert number.interval == pytest.approx((min(expected), max(expected)))
        assert "20 draws of 6" in number.note


def test_fewer_valid_crystals_than_are_drawn_are_all_of_them(real: list[Crystal]) -> None:
    numbers = {(name, n.gate): n for name, n in evaluate(real, real[:9], baselines=(), workers=0).numbers}
    for name in ("density_wasserstein", "num_elements_wasserstein", "structure_diversity"):
        drawn, valid = numbers[name, DRAWN_GATE], numbers[name, "valid"]
        assert (drawn.value, drawn.n, drawn.interval, drawn.note) == (valid.value, valid.n, valid.interval, valid.note)


def test_what_is_no_crystal_is_no_reference(real: list[Crystal]) -> None:
    broken = [Crystal([6], [[np.nan, 0, 0]], np.eye(3), "nan"), Crystal([6], [[0, 0, 0]], np.zeros((3, 3)), "flat")]
    report = evaluate(real, [*real, *broken], baselines=(), workers=0)
    assert report.reference.count == len(real)
    assert "2 left out, the first: crystal 'nan'" in report.reference.source
    assert values(report) == values(evaluate(real, real, baselines=(), workers=0))
    with pytest.raises(InputError, match="no crystals that can be used: crystal 'nan'"):
        evaluate(real, broken, workers=0)
    with pytest.raises(InputError, match="has no crystals"):
        evaluate(real, [], workers=0)


def test_wrong_settings_are_refused(real: list[Crystal]) -> None:
    with pytest.raises(InputError, match="--seed -1"):
        evaluate(real, real, seed=-1)
    with pytest.raises(InputError, match="cutoffs: a pair of numbers is needed"):
        evaluate(real, real, cutoffs=(1.0,))  # type: ignore[arg-type]


def test_missing_predictions_are_misses(real: list[Crystal]) -> None:
    report = evaluate(real[::-2], real, paired=True, workers=0)
    assert report["match_rate"].value == 0.5
    assert report["match_rate"].n == len(real)
    assert "20 without prediction" in report["match_rate"].note


def test_gates_count_a_match_only_where_the_crystals_are_valid() -> None:
    """NaO7 is possible as a structure, not as a composition; its twin is both."""
    lattice = np.eye(3) * 5.0
    coords = np.array([[0, 0, 0], *np.eye(3) * 0.5, *(0.5 - np.eye(3) * 0.5), [0.5, 0.5, 0.5]])
    odd = Crystal([11] + [8] * 7, coords, lattice, "odd")
    good = Crystal([11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], np.eye(3) * 3.4, "good")
    rates = values(evaluate([odd, good], [odd, good], paired=True, workers=0))
    assert [rates["match_rate", gate] for gate in ("none", "prediction valid", "both valid")] == [1.0, 0.5, 0.5]


def test_seed_moves_intervals_not_values(real: list[Crystal]) -> None:
    crystals = rattled(real, 0.05)
    first, again, other = (evaluate(crystals, real, workers=0, seed=seed) for seed in (0, 0, 1))
    assert first.numbers == again.numbers
    assert values(first) == values(other)
    assert first["density_wasserstein"].interval != other["density_wasserstein"].interval


def test_statistics_stand_for_crystals(real: list[Crystal]) -> None:
    statistics = ReferenceStatistics.from_crystals(real, source="perov_5:test", sha256="")
    crystals = rattled(real, 0.05)
    there, here = evaluate(crystals, statistics, workers=0), evaluate(crystals, real, workers=0)
    known = values(here)
    without = {name for name, _ in known.keys() - values(there).keys()}
    needing = (
        "coverage_recall coverage_precision metre crmse volume_window space_group_distance crystal_system_distance"
    )
    assert without == {*needing.split()} | {m for m in METRICS if "_distance_" in m and m != "shortest_distance_ratio"}
    assert values(there) == pytest.approx({key: known[key] for key in values(there)}, rel=1e-5, abs=1e-6)
    with pytest.raises(InputError, match="has statistics only"):
        evaluate(crystals, statistics, paired=True, workers=0)


def test_asking_for_a_number_that_is_not_there(real: list[Crystal]) -> None:
    report = evaluate(real[:3], real[:3], workers=0)
    with pytest.raises(InputError, match="did you mean 'match_rate'"):
        report["match_rat"]
    with pytest.raises(InputError, match="paired"):
        report["match_rate"]


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of ``dpcdvae evaluate``."""
    capfd.readouterr()
    return main(["evaluate", *map(str, arguments)]), *capfd.readouterr()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    crystals = [
        Crystal([11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], np.eye(3) * (3.3 + 0.01 * k), f"c{k}") for k in range(5)
    ]
    write(crystals, tmp_path / "made.extxyz")
    write(crystals, tmp_path / "real.json")
    write([c.with_id(f"x{k}") for k, c in enumerate(crystals[:3])], tmp_path / "three.json")
    (tmp_path / "empty.cif").write_text("")
    statistics = ReferenceStatistics.from_crystals(crystals, source="salt:train", sha256="")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "card.json").write_text(json.dumps({"training_statistics": statistics.to_json()}))
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "card.json").write_text("{}")
    return tmp_path


def test_command_prints_writes_and_draws(files: Path, capfd: pytest.CaptureFixture[str]) -> None:
    what = files / "made.extxyz", "--reference", files / "real.json", "--paired", "--workers", 0
    code, out, err = run(capfd, *what, "--all", "--json", files / "out.json", "--picture", files / "out.png")
    assert (code, err) == (0, "")
    assert "match rate" in out
    assert "paired by id" in out
    report = json.loads((files / "out.json").read_text())
    assert report["schema"] == "dpcdvae.evaluation/2"
    assert report["reference"]["count"] == 5
    assert {"name", "gate", "value", "interval", "n", "undecided", "unit", "note", "baselines"} == set(
        report["metrics"][0]
    )
    assert all(m["value"] is None or math.isfinite(m["value"]) for m in report["metrics"])
    assert (files / "out.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((files / "out.json.manifest.json").read_text())["command"] == "evaluate"


def test_command_takes_a_model_as_reference(files: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, files / "made.extxyz", "--reference", files / "model", "--workers", 0)
    assert code == 0, err
    assert "statistics of salt:train" in " ".join(out.split())


def test_failures_and_limit_of_a_manifest_count(files: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Seven of ten were asked for, and two of them never got built."""
    ten = [Crystal([11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], np.eye(3) * 3.3, f"c{k}") for k in range(10)]
    write(ten, files / "ten.json")
    manifest = {
        "arguments": {"limit": 7},
        "crystals": 5,
        "failures": [{"id": f"c{k}", "reason": "NaN"} for k in (5, 6)],
    }
    (files / "made.extxyz.manifest.json").write_text(json.dumps(manifest))
    made, ten_file, numbers = (files / name for name in ("made.extxyz", "ten.json", "o.json"))
    code, _, err = run(capfd, made, "--reference", ten_file, "--paired", "--workers", 0, "--json", numbers)
    assert code == 0, err
    report = json.loads((files / "o.json").read_text())
    rate = next(m for m in report["metrics"] if m["name"] == "match_rate")
    assert (rate["n"], round(rate["value"] * 7)) == (7, 5)
    assert [f["id"] for f in report["crystals"]["failures"]] == ["c5", "c6"]
    assert report["reference"]["source"].startswith("7 of ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.cif", "--reference", "real.json"], "nowhere.cif"),
        (["empty.cif", "--reference", "real.json"], "empty.cif"),
        (["made.extxyz", "--reference", "nowhere.csv"], "no such file or folder"),
        (["made.extxyz", "--reference", "perov5"], "did you mean 'perov_5'"),
        (["made.extxyz", "--reference", "bare"], "has no 'training_statistics'"),
        (["made.extxyz", "--reference", "model", "--paired"], "has statistics only"),
        (["three.json", "--reference", "real.json", "--paired"], "cannot pair 3 predictions with 5"),
        (["made.extxyz", "--reference", "real.json", "--json", "three.json"], "three.json exists"),
        (["made.extxyz", "--reference", "real.json", "--json", "real.json", "--overwrite"], "is an input"),
        (["made.extxyz", "--reference", "real.json", "--json", "model", "--overwrite"], "is a folder"),
        (["made.extxyz", "--reference", "model", "--cutoffs", "1", "2"], "not statistics"),
        (["made.extxyz", "--reference", "real.json", "--training", "model"], "statistics only"),
        (["made.extxyz", "--reference", "perov-5-compact:test"], "has no splits"),
        (["made.extxyz"], "--reference"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    files: Path, arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(files)
    assert main(["evaluate", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert says in captured.err


def test_a_folder_that_holds_its_crystals_twice_is_refused(tmp_path: Path, real: list[Crystal]) -> None:
    """As extxyz and as CIFs, in a folder or an archive, and as the ends of trajectories."""
    some = rattled(real[:6], 0.03)
    for k, (name, others) in enumerate((("cifs/", some), ("all.zip", some), ("again.json", [*some[1:], real[9]]))):
        folder = tmp_path / str(k)
        folder.mkdir()
        write(some, folder / "made.extxyz")
        write(others, folder / name)
        with pytest.raises(InputError, match=r"made.extxyz \(6\).*stand in another of these too: name the one"):
            read_generated(folder)
        assert len(read_generated(folder / "made.extxyz").crystals) == 6
    folder = tmp_path / "run"
    (folder / "steps").mkdir(parents=True)
    write(some, folder / "relaxed.json")
    for k, crystal in enumerate(some):
        frames = [Crystal(crystal.atomic_numbers, crystal.frac_coords, crystal.lattice * s) for s in (1.03, 1.01, 1)]
        write(frames, folder / "steps" / f"{k}.extxyz")
    with pytest.raises(InputError, match=r"24 crystals: .*relaxed.json \(6\)"):
        read_generated(folder)


def test_a_folder_of_different_crystals_in_several_formats_gets_a_note(
    tmp_path: Path, real: list[Crystal], capsys: pytest.CaptureFixture[str]
) -> None:
    write(rattled(real[:3], 0.03), tmp_path / "a.extxyz")
    write(rattled(real[3:6], 0.03), tmp_path / "b.json")
    write(real[6:10], tmp_path / "c/")
    assert len(read_generated(tmp_path).crystals) == 10
    said = capsys.readouterr().err
    assert said.startswith(f"note: {tmp_path} holds 10 crystals: ")
    for part in ("a.extxyz (3)", "b.json (3)", "c/*.cif (4)"):
        assert part in said
    assert len(read_generated(tmp_path / "c").crystals) == 4
    assert capsys.readouterr().err == ""


def test_reference_names_resolve_to_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path))
    with pytest.raises(InputError, match="data get perov_5"):
        resolve_reference("perov_5")
    with pytest.raises(InputError, match="did you mean"):
        resolve_reference("perov_6:val")


def test_evaluation_loads_no_torch() -> None:
    code = "import sys, dpcdvae.evaluation, dpcdvae.drawing.picture; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


OUTPUTS = {"--json": "out.json", "--markdown": "out.md", "--table": "out.csv", "--picture": "out.png"}


@pytest.mark.parametrize("broken", OUTPUTS)
def test_outputs_and_manifests_are_written_together_or_not_at_all(
    broken: str, files: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of them the disk refuses; and what cannot be drawn is said before anything is computed."""
    options = [word for option, name in OUTPUTS.items() for word in (option, files / name)]
    what = [files / "made.extxyz", "--reference", files / "real.json", "--protocol", "cdvae", "--workers", 0, *options]
    before = sorted(files.iterdir())
    refused = OUTPUTS[broken].partition(".")[2]
    flush = dpcdvae.files._flush

    def full(path: Path) -> None:
        if path.name.endswith(f".{refused}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(path)

    monkeypatch.setattr("dpcdvae.files._flush", full)
    code, _, err = run(capfd, *what, "--baselines", "none")
    assert code == 2
    assert err.splitlines()[-1] == f"dpcdvae: error: cannot write {files / OUTPUTS[broken]}: No space left on device"
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize("turn", range(1, 2 * len(OUTPUTS) + 1))
def test_a_manifest_never_lies_beside_another_output_than_its_own(
    turn: int, files: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the renames is the last one before the disk fails, with outputs of before to replace."""
    for name in OUTPUTS.values():
        (files / name).write_text("before")
        (files / f"{name}.manifest.json").write_text("before")
    options = [word for option, name in OUTPUTS.items() for word in (option, files / name)]
    what = [files / "made.extxyz", "--reference", files / "real.json", "--protocol", "cdvae", "--workers", 0, *options]
    rename, done = os.replace, []

    def fails(source: Path, target: Path) -> None:
        if Path(target).parent == files and not Path(target).name.startswith("."):
            done.append(target)
            if len(done) >= turn:
                raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr("dpcdvae.files.os.replace", fails)
    code, _, _ = run(capfd, *what, "--baselines", "none", "--overwrite")
    assert code == 2
    for name in OUTPUTS.values():
        manifest = files / f"{name}.manifest.json"
        if manifest.exists():
            old = manifest.read_text() == "before"
            assert old == ((files / name).read_bytes() == b"before")


def test_what_cannot_be_drawn_is_said_before_any_work(
    files: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dpcdvae.evaluation.evaluate", lambda *a, **b: pytest.fail("evaluated"))
    monkeypatch.setattr(Crystal, "problem", lambda crystal: "the cell is degenerate")
    made = files / "made.extxyz"
    code, _, err = run(capfd, made, "--reference", files / "model", "--workers", 0, "--picture", files / "out.png")
    assert code == 2
    assert "nothing to draw" in err
