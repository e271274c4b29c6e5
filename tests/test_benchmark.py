"""Presets side by side: the same data for each, a table with every row, the same numbers after a kill."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpcdvae.cli import main
from dpcdvae.comparison import compare_presets as comparing
from dpcdvae.comparison import train_and_evaluate as stages
from dpcdvae.comparison.compare_presets import compare_presets
from dpcdvae.comparison.plan import choose, make_plan
from dpcdvae.comparison.results import COLUMNS
from dpcdvae.comparison.suite import Suite, read_suite
from dpcdvae.comparison.tables import labels, markdown
from dpcdvae.comparison.timing import epochs_within
from dpcdvae.config import load_config
from dpcdvae.datasets import load_dataset
from dpcdvae.errors import InputError
from dpcdvae.intervals import t_interval
from dpcdvae.model_store import last_checkpoint, read_card
from dpcdvae.parallel.store import Store
from dpcdvae.sampling import kinds, reconstruction
from dpcdvae.training.lightning_module import TrainingDivergedError, TrainingModule

TINY = """
dataset = "prototypes"
presets = ["compact/dp-cdvae-na", "compact/cdvae"]
seeds = [0, 1]
epochs = 1

[subset]
train = 32
val = 8

[sample]
reconstruct = 3
generate = 3
steps = 3

[set]
"train.batch_size" = 16
model.latent_dim = 16
model.stats_hidden_dim = 16
encoder.options."dimenet++" = {hidden = 16, blocks = 1, int_emb = 8, out_emb = 16, output_layers = 1}

[set.denoiser.options]
hidden = 16
atom_width = 16
blocks = 1
num_radial = 8
emb_trip = 8
emb_cbf = 4
bil_trip = 8
layers_atom = 1
time_embedding = 16
fourier = []
"""


def suite_file(folder: Path, text: str = TINY) -> Path:
    path = folder / "suite.toml"
    path.write_text(text, encoding="utf-8")
    return path


def suite(folder: Path, text: str = TINY) -> Suite:
    return read_suite(suite_file(folder, text))


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in ("time", "machine", "machines")}
    return [without_times(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder and document of the tiny suite, never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    return folder / "out", compare_presets(suite(folder), folder / "out", workers=0)


def test_every_preset_and_seed_stands_in_the_document_and_the_table(whole: tuple[Path, dict[str, Any]]) -> None:
    out, document = whole
    presets = ["compact/dp-cdvae-na", "compact/cdvae"]
    assert [(run["preset"], run["seed"]) for run in document["runs"]] == [(p, s) for s in (0, 1) for p in presets]
    assert all(run["status"] != "pending" and run["epochs"] == 1 for run in document["runs"])
    assert [row["preset"] for row in document["rows"]] == presets
    for row in document["rows"]:
        assert set(row["values"]) == {column.key for column in COLUMNS}
        own = [run for run in document["runs"] if run["preset"] == row["preset"]]
        for key, value in row["values"].items():
            numbers = [run["values"][key]["value"] for run in own if run["values"][key]["value"] is not None]
            assert value["n"] == len(numbers)
            if numbers:
                assert value["value"] == pytest.approx(np.mean(numbers))
    assert json.loads((out / "results.json").read_text()) == document
    table = (out / "table.md").read_text()
    assert table == markdown(document)
    assert [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")] == [
        "| preset",
        "| dp-cdvae-na",
        "| cdvae",
    ]
    assert "t-interval over seeds" in table


def test_the_numbers_are_those_of_the_reports(whole: tuple[Path, dict[str, Any]]) -> None:
    out, document = whole
    run = document["runs"][1]
    report = json.loads((out / run["folder"] / "generated.evaluation.json").read_text())
    expected = next(n for n in report["metrics"] if n["name"] == "structural_validity")
    assert run["values"]["generated/structural_validity"]["value"] == expected["value"]
    assert run["values"]["generated/structural_validity"]["interval"] == expected["interval"]
    assert report["reference"]["count"] == 60  # the whole test split, not what was reconstructed
    report = json.loads((out / run["folder"] / "reconstructed.evaluation.json").read_text())
    assert report["reference"]["count"] == 3


def test_all_presets_train_on_the_same_crystals(tmp_path: Path, whole: tuple[Path, dict[str, Any]]) -> None:
    plan = make_plan(suite(tmp_path))
    train = load_dataset("prototypes")["train"]
    assert len(plan.tables["train"]) == 32
    assert set(plan.tables["train"].ids) < set(train.ids)
    assert list(plan.tables["train"].ids) == list(choose(train, 32, 0).ids)
    assert list(plan.tables["train"].ids) != list(choose(train, 32, 1).ids)
    assert list(plan.tables["train"].ids) != list(train.ids[:32]), "a choice, not the first"
    assert choose(train, None, 0) is train
    out, document = whole
    statistics = []
    for run in document["runs"]:
        card = read_card(out / run["folder"] / "training")
        assert card["dataset"]["crystals"] == {"train": 32, "val": 8}
        statistics.append(card["training_statistics"])
    assert all(other == statistics[0] for other in statistics)


def test_overrides_hold_for_every_preset_and_nothing_else_changes(tmp_path: Path) -> None:
    for contender in make_plan(suite(tmp_path)).contenders:
        assert contender.config.train.batch_size == 16
        assert contender.config.model.latent_dim == 16
        original = load_config(contender.preset)
        assert contender.config.loss == original.loss  # type: ignore[attr-defined]
        assert contender.config.encoder.names == original.encoder.names
        assert contender.configured(7, 3).train.model_dump() == contender.config.train.model_dump() | {
            "seed": 7,
            "max_epochs": 3,
        }


@pytest.mark.parametrize("stage", ["first epoch", "training", "reconstructed", "generated.evaluation"])
def test_stopped_at_any_stage_it_goes_on_to_the_same_document(
    stage: str, tmp_path: Path, whole: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill in the second run: its records up to a stage are there. Of the later runs one stage removes all,
    as a kill does; the others keep them to save their training."""
    out = tmp_path / "out"
    shutil.copytree(whole[0], out)
    names = ["training", "reconstructed", "generated", "reconstructed.evaluation", "generated.evaluation"]
    first, second, *later = sorted(path for path in out.iterdir() if path.is_dir())
    for folder in later if stage == "reconstructed" else ():
        shutil.rmtree(folder)
    for name in names[names.index(stage) if stage in names else 0 :]:
        (second / f"{name}.json").unlink()
    if stage == "first epoch":  # a folder without a checkpoint
        shutil.rmtree(second / "training" / "checkpoints")
    kept = (first / "training.json").stat().st_mtime_ns
    again = compare_presets(suite(tmp_path), out, workers=0)
    assert without_times(again) == without_times(whole[1])
    assert (first / "training.json").stat().st_mtime_ns == kept, "what was complete was done again"
    monkeypatch.setattr(comparing, "complete_run", None)  # now there is nothing left to do
    assert compare_presets(suite(tmp_path), out, workers=0) == again


def test_a_killed_benchmark_goes_on(
    tmp_path: Path, whole: tuple[Path, dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    benchmark = f"benchmark {suite_file(tmp_path)} --out {out} --workers 0 --json {tmp_path}/numbers.json"
    command = [sys.executable, "-m", "dpcdvae", *benchmark.split()]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 1800
    while not list(out.glob("01-*/generated.evaluation.json")):
        assert process.poll() is None
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = json.loads((out / "results.json").read_text())["runs"]
    assert any(run["status"] == "pending" for run in done), "it was over before it could be killed"
    assert main(command[3:]) == 0
    assert without_times(json.loads((tmp_path / "numbers.json").read_text())) == without_times(whole[1])
    table = capfd.readouterr().out
    assert all(name in table for name in ("dp-cdvae-na", "cdvae", "match rate", "COV-R"))


def test_a_second_process_is_refused(tmp_path: Path, whole: tuple[Path, dict[str, Any]]) -> None:
    recorded = make_plan(suite(tmp_path)).recorded()
    with (
        Store(whole[0], recorded, instead=""),
        pytest.raises(InputError, match=f"in use by process {os.getpid()}.*give another --out"),
    ):
        compare_presets(suite(tmp_path), whole[0])
    Store(whole[0], recorded, instead="").close()


def test_ctrl_c_ends_with_130_and_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Pressed in the first training, once it has a checkpoint. `test_shell` does it to a command with a terminal."""
    out = tmp_path / "out"
    text = TINY.replace("epochs = 1", "epochs = 500")
    epoch_end, handler = TrainingModule.on_train_epoch_end, signal.getsignal(signal.SIGINT)

    def pressed_after_a_checkpoint(module: TrainingModule) -> None:
        if list(out.glob("01-*/training/checkpoints/last")):
            signal.raise_signal(signal.SIGINT)
        epoch_end(module)

    monkeypatch.setattr(TrainingModule, "on_train_epoch_end", pressed_after_a_checkpoint)
    assert main(["benchmark", str(suite_file(tmp_path, text)), "--out", str(out), "--workers", "0"]) == 130
    assert signal.getsignal(signal.SIGINT) is handler  # the next Ctrl-C is heard too
    assert capfd.readouterr().err.splitlines()[-1] == "dpcdvae: stopped"
    assert last_checkpoint(next(out.glob("01-*")) / "training").is_dir()


def test_a_model_that_diverges_stands_in_the_table_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = stages.train

    def failing(*args: Any, preset: str, **kwargs: Any) -> Path:
        if preset == "compact/cdvae":
            raise TrainingDivergedError("the loss (coords) is not finite in epoch 0")
        return train(*args, preset=preset, **kwargs)

    monkeypatch.setattr(stages, "train", failing)
    one_seed = TINY.replace("seeds = [0, 1]", "seeds = [0]")
    document = compare_presets(suite(tmp_path, one_seed), tmp_path / "out", workers=0)
    assert [run["status"] for run in document["runs"]] == ["done", "failed"]
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| cdvae | " in table
    assert "cdvae: seed 0: the loss (coords) is not finite in epoch 0" in table
    assert document["rows"][1]["values"]["generated/uniqueness"]["value"] is None
    # With one seed the interval is the report's own.
    own = document["runs"][0]["values"]["generated/structural_validity"]
    assert document["rows"][0]["values"]["generated/structural_validity"] == own
    assert own["interval"] is not None


def test_a_model_that_builds_no_crystal_gets_zeros_and_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate, reconstruct = kinds.generate, reconstruction.reconstruct

    def none(result: stages.GenerationResult) -> stages.GenerationResult:
        ids = [item.id for item in (*result.crystals, *result.failures)]
        return stages.GenerationResult([], [stages.Failure(name, "sampling", "the cell is no cell") for name in ids])

    monkeypatch.setattr(kinds, "generate", lambda *a, **k: none(generate(*a, **k)))
    monkeypatch.setattr(reconstruction, "reconstruct", lambda *a, **k: none(reconstruct(*a, **k)))
    text = TINY.replace("seeds = [0, 1]", "seeds = [0]").replace(', "compact/cdvae"', "")
    document = compare_presets(suite(tmp_path, text), tmp_path / "out", workers=0)
    run = document["runs"][0]
    assert run["status"] == "failed"
    assert "none of 3 crystals generated: the cell is no cell" in run["reason"]
    assert run["values"]["reconstructed/match_rate"]["value"] == 0
    assert run["values"]["generated/coverage_precision"]["value"] == 0
    assert run["values"]["generated/density_wasserstein"]["value"] is None


def test_another_suite_in_an_old_folder_is_refused(
    tmp_path: Path, whole: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    other = suite_file(tmp_path, TINY.replace("epochs = 1", "epochs = 2"))
    assert main(["benchmark", str(other), "--out", str(whole[0])]) == 2
    error = capsys.readouterr().err
    assert "was begun with suite.epochs 1, not 2" in error
    assert error.count("\n") == 1
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds other files"):
        compare_presets(suite(tmp_path), strange)
    assert [path.name for path in strange.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"compact/cdvae"', '"compact/cdvea"', "unknown preset 'compact/cdvea'.*did you mean 'compact/cdvae"),
        ('"compact/cdvae"', '"energy"', "'energy' makes no crystals"),
        ('"compact/cdvae"', '"compact/dp-cdvae-na"', "preset compact/dp-cdvae-na is named twice"),
        ('["compact/dp-cdvae-na", "compact/cdvae"]', "[]", "presets: .*at least 1"),
        ("seeds = [0, 1]", "seeds = [1, 1]", "seed 1 is named twice"),
        ("seeds = [0, 1]", "seeds = [-1]", "seeds.0: at least 0 is needed, not -1"),
        ("epochs = 1", "", "has no budget"),
        ("epochs = 1", "epochs = 1\ncpu_minutes = 1.5", "names two budgets"),
        ("epochs = 1", "epochs = 0", "epochs: more than 0 is needed, not 0"),
        ("epochs = 1", "epoch = 1", "unknown key 'epoch': did you mean 'epochs'"),
        ("generate = 3", "generated = 3", "unknown key 'generated': did you mean 'generate'"),
        ("generate = 3", 'generate = "3"', "sample.generate: a whole number is needed, not '3'"),
        ('dataset = "prototypes"', "", "dataset is missing"),
        ('dataset = "prototypes"', 'dataset = "prototype"', "unknown data set 'prototype'"),
        ("steps = 3", "steps = 501", r"sample.steps = 501: preset 'compact/cdvae' has 500 at most"),
        ("steps = 3", "steps =", "is not TOML"),
        ("model.latent_dim = 16", "model.latent_din = 16", "unknown option 'model.latent_din'.*latent_dim"),
        ("model.latent_dim = 16", "model.latent_dim = true", "option model.latent_dim .*not True"),
        ("model.latent_dim = 16", "model.max_atoms = 2", "more than model.max_atoms = 2"),
        ("model.latent_dim = 16", "train.seed = 3", r"cannot say train.seed: the suite does, with seeds"),
        ("model.latent_dim = 16", "train.max_epochs = 3", "cannot say train.max_epochs"),
    ],
)
def test_what_is_wrong_with_a_suite_is_one_line(
    old: str, new: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert old in TINY
    path = suite_file(tmp_path, TINY.replace(old, new))
    assert main(["benchmark", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_cpu_budget_sets_the_epochs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = TINY.replace("epochs = 1", "cpu_minutes = 0.001").replace("seeds = [0, 1]", "seeds = [0]")
    document = compare_presets(suite(tmp_path, text), tmp_path / "out", workers=0)
    measured = document["time"]["epoch_cpu_seconds_measured_first"]
    for run in document["runs"]:
        assert run["epochs"] == epochs_within(0.001, measured[run["preset"]])
        assert run["time"]["training_cpu_seconds"] > 0
    assert all(contender.config.train.accelerator == "cpu" for contender in make_plan(suite(tmp_path, text)).contenders)

    monkeypatch.setattr(comparing, "epoch_cpu_seconds", None)  # not measured again
    assert compare_presets(suite(tmp_path, text), tmp_path / "out", workers=0) == document


def test_epochs_of_a_budget() -> None:
    assert epochs_within(4, 10) == 24
    assert epochs_within(4, 11) == 21
    assert epochs_within(0.1, 100) == 1


def test_t_interval_is_that_of_scipy() -> None:
    from scipy import stats

    values = [0.31, 0.35, 0.29, 0.4]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert t_interval(values) == pytest.approx((low, high), rel=1e-12)
    assert t_interval([0.0, 1.0]) == pytest.approx((0.5 - 12.7062 / 2, 0.5 + 12.7062 / 2), abs=1e-4)  # t tables, 1 d.f.
    assert t_interval([0.3]) is None
    assert t_interval([]) is None


def test_labels_leave_out_what_all_presets_share() -> None:
    assert labels(["compact/dp-cdvae-gine-perov_5", "compact/dp-cdvae-na-gine-perov_5"]) == [
        "dp-cdvae-gine",
        "dp-cdvae-na-gine",
    ]
    assert labels(["compact/cdvae", "paper/cdvae"]) == ["compact/cdvae", "paper/cdvae"]
    assert labels(["compact/cdvae"]) == ["compact/cdvae"]


@pytest.mark.parametrize("name", ["perov_5", "carbon_24"])
def test_the_suites_that_come_with_the_source_are_sound(name: str) -> None:
    given = read_suite(Path(__file__).resolve().parents[1] / "benchmarks" / "suites" / f"{name}.toml")
    systems = "dp-cdvae dp-cdvae-na dp-cdvae-gine dp-cdvae-na-gine cdvae cdvae-fourier".split()
    assert given.presets == [f"compact/{system}-{name}" for system in systems]
    assert labels(given.presets) == systems
    for preset in given.presets:
        load_config(preset)
