"""Training by the names of a data set and a preset. Loads torch when it trains."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpcdvae.config import AnyConfig, RegressorConfig, load_config, override_config
from dpcdvae.datasets import Dataset, dataset_path, load_dataset
from dpcdvae.errors import InputError, listed
from dpcdvae.files import check_output, sha256
from dpcdvae.model_store import find_model


def train(
    dataset: str,
    out: str | Path,
    *,
    preset: str | Path = "compact",
    overrides: Sequence[str] = (),
    property: str = "",
    init: str | Path | None = None,
) -> Path:
    """Trains a model; returns the folder of the run, which :func:`dpcdvae.load_model` takes.

    Example:
        >>> run = dpcdvae.train("perov_5", "runs/perov", overrides=["train.max_epochs=50"])
        >>> model = dpcdvae.load_model(run)

    Args:
        dataset: a name, or the path of the ``.npz`` of a prepared one.
        out: folder of the run, which must not exist. ``dpcdvae train --resume`` continues one that was stopped.
        preset, overrides: as of :func:`dpcdvae.load_config`.
        property: column to learn; a generative model gets a head for it.
        init: a model whose weights are the start instead of random ones.

    Raises:
        InputError: an unknown name, an option that there is not, data that do not fit the model, a folder that exists.
    """
    check_output(Path(out), overwrite=None)
    learnt = [f"model.property={json.dumps(property)}"] if property else []
    config = load_config(preset, [*overrides, *learnt])
    start = None if init is None else find_model(init)
    data = load_dataset(dataset)
    config = with_property(config, data)
    from dpcdvae.training.train import train as run

    return run(data.tables, facts_of(dataset, data), config, out, preset=str(preset), init=start)


def facts_of(name: str, data: Dataset) -> dict[str, Any]:
    """What a checkpoint says of its data set: name, hash, units of columns, notes."""
    facts = {"name": name, "sha256": sha256(dataset_path(name)), "columns": dict(data.metadata.get("columns", {}))}
    notes = data.metadata.get("notes")
    return {**facts, "notes": dict(notes)} if notes else facts


def with_property(config: AnyConfig, data: Dataset) -> AnyConfig:
    """The configuration for a data set: a regressor's ``max_atoms``, and its property where none is given."""
    if not isinstance(config, RegressorConfig):
        return config
    largest = max(int(table.num_atoms.max()) for table in data.tables.values() if len(table))
    config = override_config(config, [f"model.max_atoms={max(largest, config.model.max_atoms)}"])
    if config.model.property:
        return config
    if not (energy := data.metadata.get("energy")):
        known = sorted({name for table in data.tables.values() for name in table.properties})
        choices = f"choose from {listed(known)}" if known else "and it has no properties at all"
        raise InputError(f"data set '{data.name}' does not say which column is its energy: give --property, {choices}")
    return override_config(config, [f"model.property={json.dumps(energy)}"])
