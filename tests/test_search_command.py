"""Search and interpolation from the shell, with models trained on a data set of one's own."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpcdvae.checkpoints.loading import load_model, load_regressor
from dpcdvae.cli import main
from dpcdvae.datasets import dataset_file, load_dataset
from dpcdvae.files import sha256
from dpcdvae.io import cif_text, read, write
from dpcdvae.model_store import best_checkpoint, find_model, read_card
from dpcdvae.prototypes import build_prototypes
from dpcdvae.sampling import search
from dpcdvae.sampling.property_prediction import predict
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.elements import SYMBOLS
from dpcdvae.structures.neutrality import compositionally_valid
from dpcdvae.structures.validity import structurally_valid
from tensors import random_crystal, table_of
from test_search import CRYSTALS

SMALL = [
    "train.max_epochs=2",
    "train.batch_size=32",
    "model.latent_dim=16",
    "diffusion.timesteps=50",
    "denoiser.options={hidden=16, atom_width=16, blocks=1, num_radial=8, emb_trip=8, emb_cbf=4, bil_trip=8,"
    " layers_atom=1, time_embedding=16, fourier=[]}",
]
SEARCH = ["--gradient-steps", "100", "--lr", "0.01", "--saved", "3", "--steps", "3", "--workers", "0"]


def write_own_csv(path: Path) -> list[Crystal]:
    """Every twelfth prototype, with its density but for every fifth, and a column that says nothing."""
    crystals = build_prototypes()[::12]
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["material_id", "cif", "density", "flat"])
        for k, crystal in enumerate(crystals):
            density = "" if k % 5 == 0 else f"{crystal.density:.6f}"
            writer.writerow([crystal.id, cif_text(crystal), density, "1.5"])
    return crystals


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a data set of one's own, RUN with a head for its density, and ENERGY, a model of the density."""
    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPCDVAE_HOME", str(folder / "home"))
        patch.chdir(folder)
        write_own_csv(folder / "own.csv")
        assert main(["data", "add", "own.csv", "--name", "own", "--split", "0.6,0.2,0.2", "--workers", "1"]) == 0
        write([random_crystal(k, elements=(91, 93, 94)) for k in range(4)], "foreign.json")  # and no property at all
        assert main(["data", "add", "foreign.json", "--name", "foreign", "--workers", "1"]) == 0
        settings = [part for value in SMALL for part in ("--set", value)]
        assert main(["train", "own", "--preset", "compact", "--property", "density", *settings, "--out", "RUN"]) == 0
        energy_model = ["--preset", "energy-gine", "--property", "density", *settings[:4]]
        assert main(["train", "own", *energy_model, "--out", "ENERGY"]) == 0
        yield folder


@pytest.fixture
def here(work: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder beside the trained models."""
    monkeypatch.setenv("DPCDVAE_HOME", str(work / "home"))
    monkeypatch.chdir(tmp_path)
    for name in ("RUN", "ENERGY"):
        (tmp_path / name).symlink_to(work / name)
    return tmp_path


def test_values_that_are_missing_are_masked_and_counted(work: Path) -> None:
    known = np.isfinite(load_dataset("own")["train"].properties["density"])
    assert 0 < known.sum() < len(known) == 30
    values = load_dataset("own")["train"].properties["density"][known]
    for name in ("RUN", "ENERGY"):
        facts = read_card(work / name)["property"]
        assert facts["known"] == known.sum()
        assert facts["quantiles"]["15"] == pytest.approx(np.percentile(values, 15), rel=1e-6)
    with_value = {
        z for crystal in load_dataset("own")["train"] if "density" in crystal.properties for z in crystal.atomic_numbers
    }
    assert load_regressor(work / "ENERGY").unknown_elements(range(1, 101)) == [
        SYMBOLS[z] for z in range(1, 101) if z not in with_value
    ]
    head = load_model(work / "RUN").property_head
    assert head is not None
    assert float(head.scaler.mean) == pytest.approx(values.mean(), rel=1e-6)
    assert float(head.scaler.std) == pytest.approx(values.std(), rel=1e-6)


def test_a_search_with_an_energy_model_reports_its_success_rates(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["optimize", "RUN", "-n", "6", "--start", "own:train", *SEARCH, "--energy-model", "ENERGY"]
    assert main([*command, "--out", "found.json", "--json", "numbers.json"]) == 0
    page = capsys.readouterr().out
    assert "evaluated by ENERGY (trained on own, mean absolute error" in page
    crystals, numbers = read("found.json"), json.loads(Path("numbers.json").read_text())
    ids = load_dataset("own")["train"].ids[:6]
    assert {crystal.id for crystal in crystals} <= {f"{id}@{step}" for id in ids for step in (0, 50, 100)}
    valid = structurally_valid(crystals) & compositionally_valid(crystals)
    assert sum(point["valid"] for point in numbers["points"]) == valid.sum() > 0
    means = [point["predicted_mean"] for point in numbers["points"]]
    assert means[0] > means[1] > means[2]
    goals = [rate["threshold"] for rate in numbers["success_rates"]]
    assert goals == [read_card("ENERGY")["property"]["quantiles"][str(p)] for p in (5, 10, 15)]

    # The prediction of the energy model for the crystals as they were written.
    energy_model = load_regressor("ENERGY", "cpu")
    candidates = [crystal for crystal, good in zip(crystals, valid, strict=True) if good]
    known = [crystal for crystal in candidates if not energy_model.unknown_elements(crystal.atomic_numbers)]
    evaluated = [
        crystal.properties["evaluated_density"] for crystal in crystals if "evaluated_density" in crystal.properties
    ]
    assert len(evaluated) == len(known)
    np.testing.assert_allclose(evaluated, predict(energy_model, table_of(known, bonded=True)), rtol=1e-4)
    reason = "valid crystals with elements that the property model was not trained on"
    assert numbers["not_evaluated"][reason] == len(candidates) - len(known)
    manifest = json.loads(Path("found.json.manifest.json").read_text())
    assert manifest["command"] == "optimize"
    assert manifest["arguments"]["energy_model"] == "ENERGY"

    assert main([*command, "--out", "again.json"]) == 0
    for ours, theirs in zip(read("again.json"), crystals, strict=True):
        assert ours.properties == theirs.properties
        assert np.array_equal(ours.frac_coords, theirs.frac_coords)


def test_a_run_that_trains_on_during_a_search_is_the_one_that_was_searched(
    here: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Report and manifests name the weights that were used, though there is a better checkpoint by now."""
    shutil.copytree(work / "RUN", here / "GOING")
    used, plain = find_model("GOING"), search.optimize

    def slow(*arguments: Any, **options: Any) -> Any:
        better = copied_with_property(here / "GOING", here / "GOING" / "checkpoints" / "better", "density")
        description = json.loads(Path(better, "config.json").read_text())
        description["facts"]["criterion"] = -1.0
        description["sha256"] = "0" * 64
        Path(better, "config.json").write_text(json.dumps(description))
        return plain(*arguments, **options)

    monkeypatch.setattr(search, "optimize", slow)
    line = ["optimize", "GOING", "-n", "3", *SEARCH, "--energy-model", "ENERGY"]
    assert main([*line, "--out", "found.json", "--json", "numbers.json"]) == 0
    assert find_model("GOING").sha256 == "0" * 64
    written = [json.loads(Path(f"{name}.manifest.json").read_text()) for name in ("found.json", "numbers.json")]
    for found in [*written, json.loads(Path("numbers.json").read_text())["settings"]]:
        assert found["model_sha256"] == used.sha256
        assert found["energy_model_sha256"] == find_model("ENERGY").sha256


def test_an_evaluation_records_the_hashes_of_all_that_it_read(here: Path) -> None:
    known = [crystal for crystal in load_dataset("own")["train"] if "density" in crystal.properties]
    write(known[:3], "some.json")
    write(known, "known.json")
    line = ["evaluate", "some.json", "--reference", "known.json", "--training", "own:train", "--energy-model", "ENERGY"]
    assert main([*line, "--baselines", "none", "--workers", "0", "--json", "numbers.json"]) == 0
    manifest = json.loads(Path("numbers.json.manifest.json").read_text())
    expected = {
        "crystals": sha256("some.json"),
        "reference": sha256("known.json"),
        "training": sha256(dataset_file("own")),
        "energy_model": find_model("ENERGY").sha256,
    }
    assert {key: manifest[f"{key}_sha256"] for key in expected} == expected
    given = {"training": "own:train", "energy_model": "ENERGY", "baselines": "none", "workers": 0, "paired": False}
    assert {key: manifest["arguments"][key] for key in given} == given


def test_a_search_without_an_energy_model_uses_the_property_head(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["optimize", "RUN", "-n", "5", "--maximize", *SEARCH, "--out", "up.extxyz", "--json", "up.json"]) == 0
    page = capsys.readouterr().out
    assert "by the model's own head: optimistic" in page
    numbers = json.loads(Path("up.json").read_text())
    means = [point["predicted_mean"] for point in numbers["points"]]
    assert means[0] < means[1] < means[2]
    quantiles = read_card("RUN")["property"]["quantiles"]
    assert [rate["threshold"] for rate in numbers["success_rates"]] == [quantiles[p] for p in ("95", "90", "85")]
    assert numbers["evaluated_by"] == "own head"
    assert all("evaluated_density" not in crystal.properties for crystal in read("up.extxyz"))


def test_line_between_a_crystal_of_the_data_and_its_file(here: Path) -> None:
    """A file is prepared as the data are: both ends are the same crystal, up to the digits of the CIF."""
    id = str(load_dataset("own")["test"].ids[3])
    (original,) = (crystal for crystal in build_prototypes() if crystal.id == id)
    write([original], "end.cif")
    assert main(["interpolate", "RUN", f"own/{id}", "end.cif", "-n", "3", "--steps", "3", "--out", "line.json"]) == 0
    line = read("line.json")
    again = ["interpolate", "RUN", f"own/{id}", "end.cif", "-n", "3", "--steps", "3"]
    assert main([*again, "--symmetrise", "0.01", "--out", "line/"]) == 0
    assert all("_symmetry_space_group_name_Hall" in path.read_text() for path in Path("line").glob("*.cif"))
    assert len(read("line/")) == 3
    assert [crystal.properties["fraction"] for crystal in line] == [0, 0.5, 1]
    predicted = [crystal.properties["predicted_density"] for crystal in line]
    assert predicted == pytest.approx([predicted[0]] * 3, rel=1e-3)
    other = f"own:train/{load_dataset('own')['train'].ids[0]}"
    assert main(f"interpolate RUN own:test/{id} {other} -n 2 --steps 3 --out other.json".split()) == 0
    assert read("other.json")[0].properties["predicted_density"] == pytest.approx(predicted[0], rel=1e-3)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on standard error of a command that ends with 2 and leaves nothing behind."""
    before = sorted(path.name for path in Path().iterdir())
    capsys.readouterr()
    assert main([*arguments, "--out", "new.extxyz"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sorted(path.name for path in Path().iterdir()) == before
    line = [line for line in captured.err.splitlines() if "reading" not in line]
    assert len(line) == 1
    return line[0]


def test_bad_input_of_a_search(here: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no property head: train one with dpcdvae train --property" in fails(capsys, "optimize", "perov-5-compact")
    assert "predicts a property (density) and makes no crystals" in fails(capsys, "optimize", "ENERGY")
    run = ("optimize", "RUN", "-n", "3")
    assert "makes crystals and predicts no property" in fails(capsys, *run, "--energy-model", "RUN")
    other = copied_with_property(here / "ENERGY", tmp_path / "OTHER", "colour")
    message = fails(capsys, *run, "--energy-model", other)
    assert "OTHER predicts 'colour', but the search is for 'density'" in message
    message = fails(capsys, *run[:2], "-n", "2", "--energy-model", "ENERGY", "--start", "foreign:train")
    assert re.search(r"ENERGY was trained without (Pa|Np|Pu)\b.*, which are in foreign:train", message)
    assert "own:val has 10 crystals, fewer than -n 11" in fails(
        capsys, "optimize", "RUN", "-n", "11", "--start", "own:val"
    )
    assert "did you mean 'test'?" in fails(capsys, *run, "--start", "own:tset")
    assert "unknown data set 'onw'" in fails(capsys, *run, "--start", "onw")
    assert "--saved must lie between 2" in fails(capsys, *run, "--gradient-steps", "5", "--saved", "6")
    assert "--lr must be above 0" in fails(capsys, *run, "--lr", "-1")
    assert "--steps must lie in 1..50" in fails(capsys, *run, "--steps", "51")
    assert main([*run, "--out", "RUN"]) == 2


def copied_with_property(model: Path, folder: Path, name: str) -> str:
    """The best checkpoint of a run, said to predict something else."""
    shutil.copytree(best_checkpoint(model), folder)
    description = json.loads((folder / "config.json").read_text())
    description["config"]["model"]["property"] = name
    (folder / "config.json").write_text(json.dumps(description))
    return str(folder)


def test_bad_input_of_an_interpolation(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [str(id) for id in load_dataset("own")["test"].ids]
    known = f"own/{ids[0]}"
    write(CRYSTALS[:2], here / "two.json")
    line = ("interpolate", "RUN", known)
    assert "two.json holds 2 crystals: give a file of one" in fails(capsys, *line, "two.json")
    message = fails(capsys, *line, f"own/{ids[1][:-1]}")
    assert re.search(rf"no crystal '{ids[1][:-1]}' among the 10 of own: did you mean '\S+'\?", message)
    assert "no such file: gone.cif" in fails(capsys, *line, "gone.cif")
    assert "no such file: own:test" in fails(capsys, *line, "own:test")
    assert "unknown data set 'onw'" in fails(capsys, *line, f"onw/{ids[0]}")
    gas = Crystal(np.array([2]), np.zeros((1, 3)), 20 * np.eye(3), "gas")
    write([gas], here / "gas.cif")
    assert "gas.cif cannot be used: atom 1 is isolated" in fails(capsys, *line, "gas.cif")
    assert "--steps must lie in" in fails(capsys, *line, known, "--steps", "51")


def test_an_end_larger_than_the_model_gets_a_note(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large = random_crystal(0, 30, 8.0)
    write([large], here / "large.json")
    id = str(load_dataset("own")["test"].ids[0])
    assert main(["interpolate", "RUN", "large.json", f"own/{id}", "-n", "2", "--steps", "2", "--out", "l.json"]) == 0
    assert re.search(r"note: 'random-0' has 30 atoms and this model decodes at most \d+", capsys.readouterr().err)


def test_columns_that_cannot_be_learnt(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = [*SMALL, "train.precision=32-true"]  # "auto" tells what it takes where it is not this one
    settings = [part for value in values for part in ("--set", value)]
    message = fails(capsys, "train", "own", "--preset", "compact", *settings, "--property", "densty")
    assert "unknown property of the data set 'densty': did you mean 'density'? choose from density, flat" in message
    assert "property 'flat' is 1.5 for every crystal" in fails(
        capsys, "train", "own", "--preset", "compact", *settings, "--property", "flat"
    )
    message = fails(capsys, "train", "foreign", "--preset", "compact", *settings, "--property", "density")
    assert "the data set has no properties, so no 'density' to learn" in message
