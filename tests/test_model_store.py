"""Models by name, folder or run: the best and the last are found, and what is none is refused in one line."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dpcdvae import model_store
from dpcdvae.checkpoints.checkpoint import write_checkpoint
from test_checkpoint import refusal


def make_run(run: Path, **checkpoints: dict[str, Any]) -> Path:
    for name, facts in checkpoints.items():
        write_checkpoint(run / "checkpoints" / name, {}, {}, facts, {"of": name})
    return run


@pytest.mark.parametrize("criterion", ["criterion", "val_loss"])  # now and in earlier checkpoints
def test_the_best_and_the_last_are_read_from_the_facts(criterion: str, tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run",
        zebra={"global_step": 10, criterion: 0.1},
        aardvark={"global_step": 20, criterion: 0.5},
        diverged={"global_step": 25, criterion: math.nan},
        last={"global_step": 30, criterion: 0.3},
    )
    assert model_store.best_checkpoint(run).name == "zebra"
    assert model_store.find_model(run).folder.name == "zebra"
    assert model_store.find_model(str(run / "checkpoints" / "last")).folder.name == "last"
    assert model_store.last_checkpoint(run).name == "last"


def test_without_a_criterion_the_last_is_the_best(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", b={"global_step": 10}, a={"global_step": 20, "criterion": math.inf})
    assert model_store.best_checkpoint(run).name == "a"


def test_a_swap_cut_short_is_found_again(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", best={"global_step": 10, "criterion": 0.1}, last={"global_step": 20})
    checkpoints = run / "checkpoints"
    (checkpoints / ".last.12345678").mkdir()
    (checkpoints / ".last.12345678" / "model.safetensors").write_bytes(b"half")
    assert model_store.last_checkpoint(run).name == "last"
    (checkpoints / "last").rename(checkpoints / ".last.87654321.old")
    assert model_store.last_checkpoint(run).name == ".last.87654321.old"
    assert model_store.best_checkpoint(run).name == "best"


def test_runs_without_checkpoints_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "is no model" in refusal(model_store.find_model, tmp_path / "empty")
    (tmp_path / "empty" / "checkpoints").mkdir()
    for find in (model_store.find_model, model_store.last_checkpoint):
        assert "no checkpoint in" in refusal(find, tmp_path / "empty")
    write_checkpoint(tmp_path / "run" / "checkpoints" / "bare", {}, {}, {"global_step": 1})
    assert "hold no training state" in refusal(model_store.last_checkpoint, tmp_path / "run")


def test_unknown_models_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_store, "BUNDLED", tmp_path / "models")
    assert model_store.bundled_models() == []
    assert "no model 'perov'" in refusal(model_store.find_model, "perov")
    for name in ("perov_5", "carbon_24"):
        write_checkpoint(tmp_path / "models" / name, {}, {}, {})
    assert model_store.bundled_models() == ["carbon_24", "perov_5"]
    assert model_store.find_model("perov_5").folder == tmp_path / "models" / "perov_5"
    message = refusal(model_store.find_model, "perov5")
    assert "did you mean 'perov_5'" in message
    assert "carbon_24, perov_5" in message
    assert "no such folder" in refusal(model_store.find_model, "./perov_5")
    assert "no such folder" in refusal(model_store.find_model, tmp_path / "run")
    (tmp_path / "note.txt").write_text("hello, this is text")
    assert "is a file: give the checkpoint folder" in refusal(model_store.find_model, tmp_path / "note.txt")


def test_bad_cards_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_store, "BUNDLED", tmp_path)
    write_checkpoint(tmp_path / "m", {}, {}, {})
    assert "has no card.json" in refusal(model_store.read_card, "m")
    (tmp_path / "m" / "card.json").write_text('{"seed": 0}')
    assert model_store.read_card("m") == {"seed": 0}
    (tmp_path / "m" / "card.json").write_text('{"seed": 0')
    assert "cut off" in refusal(model_store.read_card, "m")


def test_names_are_resolved_without_torch(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    write_checkpoint(folder, {}, {}, {})
    program = (
        "import sys; from dpcdvae import model_store; print(model_store.find_model(sys.argv[1]).folder)\n"
        "assert 'torch' not in sys.modules and 'pymatgen' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(folder)
