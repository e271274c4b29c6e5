"""A model is looked up once: what it is called by, what it is, and what its weights are stay together."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dpcdvae.checkpoints.checkpoint import write_checkpoint
from dpcdvae.checkpoints.loading import load_model
from dpcdvae.cli import main
from dpcdvae.files import sha256
from dpcdvae.model_store import BUNDLED, StoredModel, find_generative_model, find_model
from dpcdvae.sampling import interpolation
from dpcdvae.sampling.distributed import generate_batch
from dpcdvae.structures.table import save_tables
from tensors import random_crystal, table_of, tiny_model

OPENED: list[str] = []
FEW = ["--steps", "2", "--workers", "0"]


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and str(arguments[0]).endswith("config.json"):
        OPENED.append(str(arguments[0]))


sys.addaudithook(_note)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with two checkpoints, of which ``good`` is the best, and a data set."""
    monkeypatch.chdir(tmp_path)
    for name, loss in (("good", 0.1), ("bad", 0.9)):
        model = tiny_model(torch.float32)
        facts = {"criterion": loss, "global_step": 1}
        write_checkpoint(tmp_path / "RUN" / "checkpoints" / name, model.state_dict(), model.config.to_dict(), facts)
    crystals = [random_crystal(k, 1 + k % 8) for k in range(5)]
    save_tables(tmp_path / "data.npz", {"train": table_of([]), "test": table_of(crystals, bonded=True)}, {})
    OPENED.clear()
    return tmp_path


def better(run: Path) -> None:
    """What a training run does when an epoch is better than those before: another best checkpoint."""
    model = tiny_model(torch.float32)
    model.mu.weight.add_(1)
    facts = {"criterion": 0.01, "global_step": 2}
    write_checkpoint(run / "checkpoints" / "better", model.state_dict(), model.config.to_dict(), facts)


def manifest(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"{out}.manifest.json").read_text())
    return found


@pytest.mark.parametrize("command", ["generate RUN -n 5", "reconstruct RUN data.npz"])
@pytest.mark.parametrize("batch_size", ["5", "2"])
def test_the_description_of_a_model_is_read_once(place: Path, command: str, batch_size: str) -> None:
    """That of each checkpoint of a run, as the best is looked for, and no other time."""
    assert main([*command.split(), *FEW, "--batch-size", batch_size, "--out", "x.json"]) == 0
    assert sorted(OPENED) == ["RUN/checkpoints/bad/config.json", "RUN/checkpoints/good/config.json"]
    assert manifest("x.json")["model_sha256"] == sha256(place / "RUN/checkpoints/good/model.safetensors")


def test_processes_elsewhere_read_no_description(place: Path) -> None:
    found = pickle.loads(pickle.dumps(find_model("RUN")))
    (found.folder / "config.json").unlink()
    part = generate_batch(found, "cpu", range(2), first=0, options={"steps": 2})
    assert len(part.crystals) + len(part.failures) == 2


def test_a_bundled_model_is_found_where_the_package_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its place on another machine may be another one."""
    shutil.copytree(BUNDLED, tmp_path / "models")
    found = find_model("perov-5-compact")
    monkeypatch.setattr("dpcdvae.model_store.BUNDLED", tmp_path / "models")
    assert found.folder == tmp_path / "models" / "perov-5-compact"


def test_a_loaded_model_says_where_it_is_from(place: Path) -> None:
    source = load_model("RUN", "cpu").source
    assert isinstance(source, StoredModel)
    assert (source.name, source.folder.name) == ("RUN", "good")
    assert find_generative_model(source) is source
    better(place / "RUN")
    assert load_model(source, "cpu").source is source
    assert find_model("RUN").folder.name == "better"


def test_a_run_that_trains_on_changes_nothing_in_what_is_under_way(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = find_model("RUN").sha256
    plain = interpolation.interpolate

    def slow(*arguments: Any, **options: Any) -> Any:
        better(place / "RUN")
        return plain(*arguments, **options)

    monkeypatch.setattr(interpolation, "interpolate", slow)
    line = ["interpolate", "RUN", "data.npz/random-1", "data.npz/random-2", "-n", "3", "--steps", "2"]
    assert main([*line, "--out", "line.json"]) == 0
    found = manifest("line.json")
    assert find_model("RUN").sha256 != used
    assert found["model_sha256"] == used
    assert (found["arguments"]["from"], found["arguments"]["to"]) == ("data.npz/random-1", "data.npz/random-2")
    assert (found["arguments"]["model"], found["arguments"]["batch_size"]) == ("RUN", 256)
    assert not {"out", "overwrite"} & set(found["arguments"])


def test_a_run_that_replaces_its_checkpoint_under_way_is_noticed(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights are read when the first batch is made, which may be hours later."""
    import dpcdvae.sampling.distributed as distributed

    plain = distributed.make_batches

    def later(*arguments: Any) -> None:
        shutil.rmtree(place / "RUN/checkpoints/good")
        plain(*arguments)

    monkeypatch.setattr(distributed, "make_batches", later)
    assert main(["generate", "RUN", "-n", "2", *FEW, "--seed", "5", "--out", "x.json"]) == 2
    assert "the model RUN is another one where the work is done: its weights are gone" in capsys.readouterr().err


def test_a_model_without_weights_is_refused_before_anything_begins(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a model of the repository that keeps its card and configuration alone."""
    (place / "RUN/checkpoints/good/model.safetensors").unlink()
    assert main(["generate", "RUN/checkpoints/good", "-n", "2", "--out", "x.json"]) == 2
    error = capsys.readouterr().err
    assert "good has no model.safetensors: copy the weights there, or train the model again" in error
    assert error.count("\n") == 1


def test_damaged_weights_are_not_called_another_model(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = place / "RUN/checkpoints/good/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert main(["generate", "RUN/checkpoints/good", "-n", "2", *FEW, "--out", "x.json"]) == 2
    error = capsys.readouterr().err
    assert "another one" not in error
    assert "model.safetensors" in error
    assert error.count("\n") == 1
