"""The card of a trained model: what it was trained on and how, and what its training set looks like."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpcdvae.checkpoints.checkpoint import PRIOR, Checkpoint, read_checkpoint, write_checkpoint
from dpcdvae.checkpoints.loading import build_stored, loaded_model
from dpcdvae.datasets.catalogue import DATASETS
from dpcdvae.datasets.origin import noted
from dpcdvae.errors import InputError
from dpcdvae.files import atomic_output, check_output, write_json
from dpcdvae.model.regressor import PropertyRegressor
from dpcdvae.model_scores import SCORES
from dpcdvae.model_store import CARD, StoredModel, best_checkpoint, find_model
from dpcdvae.run_log import read_run
from dpcdvae.sampling.property_prediction import mean_absolute_error
from dpcdvae.structures.elements import SYMBOLS
from dpcdvae.structures.summary import ReferenceStatistics
from dpcdvae.structures.table import CrystalTable

QUANTILES = (5, 10, 15, 50, 85, 90, 95)
MOST_POINTS = 100  # of a learning curve


def write_card(run: str | Path, tables: Mapping[str, CrystalTable]) -> Path:
    """Puts the card beside the weights of a run's best checkpoint; returns that checkpoint's folder."""
    folder = best_checkpoint(run)
    checkpoint = read_checkpoint(folder)
    facts, train = checkpoint.facts, checkpoint.config["train"]
    dataset = facts["dataset"]
    # Of the networks; the parameters of a prior are counted separately.
    of_prior = {name for name in checkpoint.weights if name.startswith(PRIOR)}
    network = build_stored(checkpoint)
    parameters = sum(tensor.numel() for name, tensor in network.named_parameters() if name not in of_prior)
    sizes = {split: len(table) for split, table in tables.items()}
    size = f"{parameters / 1e6:.2f} M parameters"
    target = checkpoint.config["model"]["property"]
    note = dataset.get("notes", {}).get("train")
    card: dict[str, Any] = {
        "summary": f"{facts['preset']} on {noted(dataset)}, {facts['epoch']} epochs, {size}",
        "dataset": {**dataset, "crystals": sizes},
        "preset": facts["preset"],
        "seed": facts["seed"],
        "init": facts.get("init"),
        "epochs": facts["epoch"],
        "batch_size": train["batch_size"],
        "precision": facts.get("precision", train["precision"]),
        "losses": facts["metrics"],
        "curve": _curve(Path(run)),
        "parameters": parameters,
        "prior_parameters": sum(checkpoint.weights[name].numel() for name in of_prior),
        "torch": torch.__version__,
        "elements": [SYMBOLS[z] for z in np.unique(tables["train"].atomic_numbers)],
        "training_statistics": ReferenceStatistics.from_crystals(
            tables["train"],
            source=f"{dataset['name']}:train" + (f" ({note})" if note else ""),
            sha256=dataset["sha256"],
        ).to_json(),
    }
    if dataset["name"] in DATASETS:  # the licence of the weights is for their owner to say
        card["licence"] = {"data": DATASETS[dataset["name"]].licence}
    if atoms := train.get("batch_atoms"):
        card["batch_atoms"] = atoms
    if network.about:
        card["about"] = network.about
    if target:
        card["property"] = _property_facts(target, tables["train"], dataset)
    if checkpoint.config["kind"] == "regressor":
        card["errors"] = errors = _errors(checkpoint, tables)
        best = errors.get("test", errors["val"])["mae"]
        card["summary"] = f"{target} of {noted(dataset)}: mean absolute error {best:.4f}; {card['summary']}"
    write_json(folder / CARD, card)
    return folder


def _curve(run: Path) -> dict[str, list[float]]:
    """Validation criterion against epochs and CPU minutes: of all epochs, or of ``MOST_POINTS`` of them."""
    log = read_run(run)
    epochs, criterion = log.curve("val/criterion")
    minutes = np.interp(epochs, log.epochs, np.cumsum(np.nan_to_num(log.columns["cpu_seconds"])) / 60)
    chosen = np.unique(np.linspace(0, len(epochs) - 1, MOST_POINTS).round().astype(int))
    columns = {"epoch": epochs, "cpu_minutes": minutes, "criterion": criterion}
    return {name: [float(f"{value:.5g}") for value in values[chosen]] for name, values in columns.items()}


def _property_facts(name: str, table: CrystalTable, dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Unit, coverage, extremes and quantiles in the training set; those at 5, 10, 15 % are goals of a search."""
    known = table.properties[name][np.isfinite(table.properties[name])]
    return {
        "name": name,
        "unit": dataset.get("columns", {}).get(name, ""),
        "known": len(known),
        "range": [float(f"{end:.7g}") for end in (known.min(), known.max())],
        "quantiles": {str(p): float(f"{np.percentile(known, p):.7g}") for p in QUANTILES},
    }


def _errors(checkpoint: Checkpoint, tables: Mapping[str, CrystalTable]) -> dict[str, Any]:
    """Mean absolute error on validation and test set, with the crystals behind it and those without a value."""
    model = loaded_model(checkpoint)
    assert isinstance(model, PropertyRegressor)
    errors = {}
    for split in ("val", "test"):
        if split in tables and len(tables[split]):
            mae, known, unknown = mean_absolute_error(model, tables[split])
            if known:
                errors[split] = {"mae": mae, "crystals": known, "without_value": unknown}
    return errors


def export(model: str | Path | StoredModel, out: str | Path, *, half: bool = False) -> Path:
    """A checkpoint without its training state: weights, configuration and card, to keep or to give away.

    Args:
        half: parameters in half precision, for half the size; the card says so.

    Raises:
        InputError: no such model, no card yet (the run has not ended), ``out`` exists, or a weight is beyond ``half``.
    """
    out = check_output(out, overwrite=None)
    checkpoint = read_checkpoint(find_model(model))
    card = checkpoint.source.card()
    weights = checkpoint.weights
    if half:
        weights = half_weights(checkpoint)
        # Scores belong to the weights that were evaluated.
        card = {name: value for name, value in card.items() if name != SCORES} | {"weights": "float16"}
    with atomic_output(out) as folder:
        write_checkpoint(folder, weights, checkpoint.config, checkpoint.facts)
        write_json(folder / CARD, card)
    return out


def half_weights(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The weights with every parameter as float16; buffers (scalers, scale factors) stay as they are.

    Loading them gives a model in its own precision again (:func:`dpcdvae.checkpoints.checkpoint.load_weights` copies).

    Raises:
        InputError: a value is beyond the range of float16, 65504.
    """
    model = build_stored(checkpoint)
    parameters = {name for name, _ in model.named_parameters()}
    halves = {name: value.half() if name in parameters else value for name, value in checkpoint.weights.items()}
    for name, value in halves.items():
        if not torch.equal(value.isfinite(), checkpoint.weights[name].isfinite()):
            raise InputError(
                f"{checkpoint.source.folder}: {name} has values beyond half precision (65504): keep it in full"
            )
    return halves
