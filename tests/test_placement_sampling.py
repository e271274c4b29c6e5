"""Crystals from placement models: counted noise, masks, named failures, lattice rules, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dpcdvae.checkpoints.checkpoint import write_checkpoint
from dpcdvae.checkpoints.loading import load_model
from dpcdvae.cli import main
from dpcdvae.config import PlacementConfig
from dpcdvae.errors import InputError
from dpcdvae.io import read
from dpcdvae.placement.model import PlacementModel
from dpcdvae.sampling.placement_sampling import generate
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.elements import ATOMIC_NUMBERS, SYMBOLS
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.training.card import export
from dpcdvae.training.train import check_data, train
from tensors import cubic, random_crystal, table_of

MODEL = {"features": 8, "interactions": 1, "cutoff": 4.0, "head_layers": 1, "head_width": 8, "max_atoms": 6}
MODEL |= {"max_distance": 8.0, "bin_width": 0.1, "kept_cells": 9, "max_neighbours": 100}
FACTS = {"name": "some", "sha256": "0"}


def config(periodic: bool = True, **sampling: object) -> PlacementConfig:
    rule = {"lattice": "uniform" if periodic else "box", "inner": 0.5, "spacing": 0.3, "fine": 0.1, **sampling}
    model = {**MODEL, "periodic": periodic, "images": 3 if periodic else 1}
    return PlacementConfig.from_dict({"kind": "placement", "model": model, "sampling": rule})


def untrained(periodic: bool = True, **sampling: object) -> PlacementModel:
    torch.manual_seed(0)
    model = PlacementModel(config(periodic, **sampling))
    model.record_training_set(CrystalBatch.from_crystals([random_crystal(k, 1 + k % 5) for k in range(20)]), None)
    with torch.no_grad():  # as likely to stop as to go on
        model.type_head.layers[-1].bias[0] += 1.0
    return model.eval()


def rows(crystals: list[Crystal]) -> list[tuple[str, str, bytes, bytes]]:
    return [(c.id, c.formula, c.frac_coords.tobytes(), c.lattice.tobytes()) for c in crystals]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("placement")
    for name, periodic in (("periodic", True), ("cluster", False)):
        model = untrained(periodic)
        write_checkpoint(folder / name, model.state_dict(), model.config.to_dict(), {})
    return folder


@pytest.mark.parametrize("name", ["periodic", "cluster"])
def test_shards_and_batches_make_the_crystals_of_the_whole_run(place: Path, name: str, tmp_path: Path) -> None:
    run = ["generate", str(place / name), "--seed", "5", "-n", "14", "--batch-size", "4", "--workers", "0"]
    run += ["--device", "cpu"]
    found = []
    for shard in (None, "1/3", "2/3", "3/3"):
        out = tmp_path / f"{(shard or 'whole').replace('/', '-')}.json"
        assert main([*run, "--out", str(out), *(["--shard", shard] if shard else [])]) == 0
        found.append(rows(read(out) if out.exists() else []))
    assert found[0]
    assert found[0] == [row for part in found[1:] for row in part]
    manifest = json.loads((tmp_path / "whole.json.manifest.json").read_text())
    assert len(found[0]) + len(manifest["failures"]) == 14


def test_the_same_seed_gives_the_same_crystals_and_another_does_not(place: Path) -> None:
    model = load_model(place / "periodic", "cpu")
    assert isinstance(model, PlacementModel)
    first, again, other = (rows(generate(model, 6, seed=seed).crystals) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_crystal_k_has_the_same_atoms_and_cell_in_any_batch(place: Path) -> None:
    model = load_model(place / "periodic", "cpu")
    assert isinstance(model, PlacementModel)
    whole, parts = (generate(model, 8, seed=1, lattice="conditional", batch_size=size) for size in (8, 3))
    assert [f.id for f in whole.failures] == [f.id for f in parts.failures]
    for one, other in zip(whole.crystals, parts.crystals, strict=True):
        assert one.composition == other.composition
        assert np.array_equal(one.lattice, other.lattice)


def test_conditional_cells_get_the_atoms_of_a_training_crystal(place: Path) -> None:
    model = untrained(lattice="conditional")
    with torch.no_grad():
        model.type_head.layers[-1].bias[0] += 20.0  # would stop wherever it may
    kept = len(model.cells)
    wanted = set()
    for lattice, numbers in zip(model.cells.lattices[:kept], model.cells.numbers[:kept], strict=True):
        wanted.add((lattice.numpy().tobytes(), tuple(sorted(numbers[numbers > 0].tolist()))))
    result = generate(model, 20)
    assert result.crystals
    for crystal in result.crystals:
        atoms = tuple(sorted(crystal.atomic_numbers.tolist()))
        assert (crystal.lattice.astype(np.float32).tobytes(), atoms) in wanted


def test_placed_atoms_keep_the_least_distance(place: Path) -> None:
    for periodic in (True, False):
        result = generate(untrained(periodic, inner=0.8), 12, seed=3)
        assert result.crystals
        for crystal in result.crystals:
            if periodic and crystal.num_atoms > 1:
                apart = crystal.to_ase().get_all_distances(mic=True)
                assert apart[~np.eye(len(apart), dtype=bool)].min() > 0.8 * 2 * 0.66 - 1e-3


@pytest.mark.parametrize(
    ("stop", "reason"), [(True, "stopped before the first atom"), (False, "unfinished at the largest number of atoms")]
)
@pytest.mark.parametrize("periodic", [True, False])
def test_what_never_becomes_a_crystal_is_counted_with_its_reason(periodic: bool, stop: bool, reason: str) -> None:
    model = untrained(periodic, inner=0.1)
    model.known[:] = False
    model.known[0 if stop else 8] = True
    result = generate(model, 5)
    assert not result.crystals
    assert {failure.reason for failure in result.failures} == {reason}
    assert len(result.failures) == 5


def test_no_place_around_the_focus_is_a_failure() -> None:
    model = untrained(inner=1.99, outer=2.0, lattice="conditional")
    result = generate(model, 20)
    assert {failure.reason for failure in result.failures} == {"no place is left around the focus"}
    assert all(crystal.num_atoms == 1 for crystal in result.crystals)
    assert len(result.failures) + len(result.crystals) == 20


def test_a_broken_network_is_a_failure_too() -> None:
    model = untrained()
    torch.nn.init.constant_(model.schnet.focus, torch.nan)
    assert {failure.reason for failure in generate(model, 3).failures} == {"the prediction is no number"}


def test_a_short_training_learns_and_what_it_keeps_is_exported(tmp_path: Path) -> None:
    """One crystal in many copies: the losses fall, and the crystals that come out are that one."""
    tables = {"train": table_of([cubic("diamond", 3.57)] * 64, bonded=True)}
    tables["val"] = tables["train"].select(range(8))
    settings = config(lattice="conditional", inner=0.7, spacing=0.1, fine=0.02).to_dict()
    settings["train"] |= {"max_epochs": 12, "batch_size": 16, "lr": 1e-2, "accelerator": "cpu"}
    run = train(
        tables, {"name": "some", "sha256": "0"}, PlacementConfig.from_dict(settings), tmp_path / "run", preset="p"
    )
    losses = [float(row.split(",")[-1]) for row in (run / "metrics.csv").read_text().splitlines()[1:]]
    assert len(losses) == 12
    export(run, tmp_path / "model")
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    assert "CDVAE's adaptation" in card["about"]
    assert "the lattice rules are ours" in card["about"]
    model = load_model(tmp_path / "model", "cpu")
    assert isinstance(model, PlacementModel)
    for crystal in generate(model, 4).crystals:
        assert crystal.to_ase().get_distance(0, 1, mic=True) == pytest.approx(1.546, abs=0.15)


def refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_commands_refuse_in_one_line_what_the_kind_cannot_do(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out.json")]
    periodic, cluster = str(place / "periodic"), str(place / "cluster")
    refused(["reconstruct", periodic, "perov_5:test", *out], "has no encoder", capsys)
    refused(["generate", periodic, "--lattice", "box", *out], "choose from conditional, uniform", capsys)
    refused(["generate", cluster, "--lattice", "uniform", *out], "choose from box", capsys)
    refused(["generate", periodic, "--steps", "3", *out], "--steps has no meaning", capsys)
    refused(["generate", "perov-5-compact", "--lattice", "uniform", *out], "--lattice has no meaning", capsys)
    assert not list(tmp_path.iterdir())


def test_elements_that_were_not_seen_are_refused() -> None:
    model = untrained()
    gold = CrystalBatch.from_crystals([Crystal(np.array([79]), np.zeros((1, 3)), 3 * np.eye(3))])
    with pytest.raises(InputError, match="holds Au, which no training crystal holds"):
        model.step_losses(gold, None, torch.Generator(), 0)
    heavy = Crystal(np.array([ATOMIC_NUMBERS["Cf"], 6]), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), 4 * np.eye(3))
    with pytest.raises(InputError, match="training set holds Cf, of which no covalent radius is known"):
        model.record_training_set(CrystalBatch.from_crystals([heavy]), None)
    assert SYMBOLS[98] == "Cf"


def test_crystals_larger_than_the_model_and_options_that_do_not_fit_are_refused() -> None:
    large = table_of([random_crystal(0, 7)], bonded=True)
    with pytest.raises(InputError, match=r"has 7 atoms, more than model\.max_atoms = 6"):
        check_data({"train": large, "val": large}, config())
    for model, message in (
        ({"periodic": False, "images": 4}, "has no images"),
        ({"property": "energy"}, "learns no property"),
        ({"periodic": False}, "choose from box"),
    ):
        with pytest.raises(InputError, match=message):
            PlacementConfig.from_dict({"kind": "placement", "model": model})
    with pytest.raises(InputError, match="train it first"):
        generate(PlacementModel(config()), 1)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cells.count", 10, "cells.count is 10, of 9 cells"),
        ("cells.count", -1, "cells.count is -1"),
        ("cells.numbers", 200, "cells.numbers are no atomic numbers"),
        ("cells.numbers", 0, "cells.numbers are no atomic numbers"),
        ("cells.lattices", 0.0, "cells.lattices hold what is no cell"),
        ("cells.lattices", torch.nan, "cells.lattices hold what is no cell"),
        ("cells.lattices", 1e7, "cells.lattices hold what is no cell"),
        ("known", True, "elements without a covalent radius"),
    ],
)
def test_stored_cells_that_are_none_are_refused_when_the_model_is_loaded(
    name: str, value: float, message: str, tmp_path: Path
) -> None:
    model = untrained()
    weights = {**model.state_dict(), name: torch.full_like(model.state_dict()[name], value)}
    write_checkpoint(tmp_path / "model", weights, model.config.to_dict(), {})
    with pytest.raises(InputError, match="model.safetensors is damaged or no trained model's: .*" + message):
        load_model(tmp_path / "model", "cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling": {"inner": 1.0, "outer": 0.5}}, "inner must be less than"),
        ({"sampling": {"fine": 1e-9}}, "at least sampling.spacing / 20"),
        ({"model": {"max_distance": 0.5, "bin_width": 0.5}}, "at least two bins"),
    ],
)
def test_options_that_leave_no_place_or_no_memory_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PlacementConfig.from_dict({"kind": "placement", **options})


def of_elements(numbers: list[int], count: int, atoms: int = 3) -> list[Crystal]:
    return [random_crystal(k, atoms, elements=numbers, side=4) for k in range(count)]


def test_a_start_from_other_weights_places_the_elements_of_the_new_training_set_alone(tmp_path: Path) -> None:
    """And learns from larger cells, as no weight depends on the number of atoms."""
    first = {
        "train": table_of(of_elements([22, 38], 8), bonded=True),
        "val": table_of(of_elements([22], 2), bonded=True),
    }
    train(first, FACTS, quick(6), tmp_path / "first", preset="x")
    carbon = {split: table_of(of_elements([6], n, 8), bonded=True) for split, n in (("train", 8), ("val", 2))}
    tuned = train(carbon, FACTS, quick(8), tmp_path / "tuned", preset="x", init=tmp_path / "first")
    model = load_model(tuned)
    assert isinstance(model, PlacementModel)
    assert model.known.nonzero().flatten().tolist() == [0, 6]
    contents = model.cells.draw(torch.arange(0.05, 1, 0.1)).contents
    assert contents.sum(0).nonzero().flatten().tolist() == [6]
    assert len(model.cells) == 8


def test_validation_crystals_of_elements_that_are_in_no_training_crystal_are_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A small data set of many elements that was divided at random has some."""
    known, other = of_elements([22, 38], 8), of_elements([79], 2)
    gold = [crystal.with_id(f"gold-{k}") for k, crystal in enumerate(other)]
    tables = {"train": table_of(known, bonded=True), "val": table_of([gold[0], known[0], gold[1]], bonded=True)}
    mixed = train(tables, FACTS, quick(6), tmp_path / "mixed", preset="x")
    assert "2 of 3 crystals of 'val' left out" in (said := capsys.readouterr().err)
    assert "gold-0, gold-1" in said
    alone = train({**tables, "val": table_of(known[:1], bonded=True)}, FACTS, quick(6), tmp_path / "b", preset="x")
    assert (mixed / "metrics.csv").exists()
    assert losses_of(mixed) == losses_of(alone)
    with pytest.raises(InputError, match=r"each crystal of 'val' has elements that no training crystal holds \(gold-0"):
        train({**tables, "val": table_of(gold, bonded=True)}, FACTS, quick(6), tmp_path / "c", preset="x")
    assert not (tmp_path / "c").exists()


def quick(max_atoms: int) -> PlacementConfig:
    values = config().to_dict()
    values["model"]["max_atoms"] = max_atoms
    values["train"] |= {"max_epochs": 1, "accelerator": "cpu", "precision": "32-true"}
    return PlacementConfig.from_dict(values)


def losses_of(run: Path) -> list[str]:
    """The columns of the log that no clock decides."""
    header, *lines = (run / "metrics.csv").read_text(encoding="utf-8").splitlines()
    kept = [k for k, name in enumerate(header.split(",")) if name.startswith(("train/", "val/"))]
    assert kept
    return [line.split(",")[k] for line in lines for k in kept]
