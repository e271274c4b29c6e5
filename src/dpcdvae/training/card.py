"""The card of a trained model: what it was trained on and how, and what its training set looks like."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dpcdvae.files import atomic_output, check_output, write_json
from dpcdvae.model.checkpoint import read_checkpoint, write_checkpoint
from dpcdvae.model_store import CARD, best_checkpoint, read_card, resolve_model
from dpcdvae.statistics import ReferenceStatistics
from dpcdvae.table import CrystalTable


def write_card(run: str | Path, tables: Mapping[str, CrystalTable]) -> Path:
    """Puts the card beside the weights of a run's best checkpoint; returns that checkpoint's folder."""
    folder = best_checkpoint(run)
    checkpoint = read_checkpoint(folder)
    facts, train = checkpoint.facts, checkpoint.config["train"]
    dataset = facts["dataset"]
    parameters = sum(tensor.numel() for tensor in checkpoint.weights.values())
    sizes = {split: len(table) for split, table in tables.items()}
    size = f"{parameters / 1e6:.2f} M parameters"
    card: dict[str, Any] = {
        "summary": f"{facts['preset']} on {dataset['name']}, {facts['epoch']} epochs, {size}",
        "dataset": {**dataset, "crystals": sizes},
        "preset": facts["preset"],
        "seed": facts["seed"],
        "init": facts.get("init"),
        "epochs": facts["epoch"],
        "batch_size": train["batch_size"],
        "losses": facts["metrics"],
        "parameters": parameters,
        "torch": torch.__version__,
        "training_statistics": ReferenceStatistics.from_crystals(
            tables["train"], source=f"{dataset['name']}:train", sha256=dataset["sha256"]
        ).to_json(),
    }
    write_json(folder / CARD, card)
    return folder


def export(model: str | Path, out: str | Path) -> Path:
    """A checkpoint without its training state: weights, configuration and card, to keep or to give away.

    Raises:
        InputError: no such model, no card yet (the run has not ended), or ``out`` exists.
    """
    out = check_output(out, overwrite=None)
    card = read_card(model)
    checkpoint = read_checkpoint(resolve_model(model))
    with atomic_output(out) as folder:
        write_checkpoint(folder, checkpoint.weights, checkpoint.config, checkpoint.facts)
        write_json(folder / CARD, card)
    return out
