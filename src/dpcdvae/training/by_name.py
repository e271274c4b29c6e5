"""Training by the names of a data set and a preset. Loads torch when it trains."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpcdvae.arguments import checked
from dpcdvae.config import AnyConfig, RegressorConfig, load_config, override_config
from dpcdvae.datasets import Dataset, dataset_path, load_dataset
from dpcdvae.errors import InputError, listed
from dpcdvae.files import check_output, sha256
from dpcdvae.model_store import find_model
from dpcdvae.training.first_process import is_first_process

DEFAULT_PRESET = "compact/dp-cdvae-stats"


@checked
def train(
    dataset: str | None,
    out: str | Path,
    *,
    preset: str | Path | None = None,
    overrides: Sequence[str] = (),
    property: str = "",
    init: str | Path | None = None,
    resume: bool = False,
) -> Path:
    """Trains a model; returns the folder of the run, which :func:`dpcdvae.load_model` takes.

    Example:
        >>> run = dpcdvae.train("perov_5", "runs/perov", overrides=["train.max_epochs=50"])
        >>> model = dpcdvae.load_model(run)

    Args:
        dataset: a name, or the path of the ``.npz`` of a prepared one; None to resume with that of the run.
        out: folder of the run, which must not exist, unless ``resume``.
        preset: by default ``compact/dp-cdvae-stats``. overrides: as of :func:`dpcdvae.load_config`.
        property: column to learn; a generative model gets a head for it.
        init: a model whose weights are the start instead of random ones.
        resume: continue the run in ``out`` with its own preset; overrides of ``train`` options are possible.

    Raises:
        InputError: an unknown name, an option that there is not, data that do not fit the model, a folder that exists
            or cannot be resumed.
    """
    learnt = [f"model.property={json.dumps(property)}"] if property else []
    known: dict[str, Any] = {}
    if resume:
        for given, what in ((init, "weights: leave out --init"), (property, "property: leave out --property")):
            if given:
                raise InputError(f"--resume continues a run with its own {what}")
        if preset is not None:
            raise InputError(
                "--resume continues a run with its own preset: leave out --preset, or change options by --set"
            )
        from dpcdvae.training.train import resumed_config

        config, preset, known = resumed_config(out, overrides)
        dataset = dataset or str(known["name"])
    elif dataset is None:
        raise InputError("which data set? give its name (see dpcdvae data list)")
    else:
        if is_first_process():
            check_output(Path(out), overwrite=None)
        preset = preset or DEFAULT_PRESET
        config = load_config(preset, [*overrides, *learnt])
    start = None if init is None else find_model(init)
    data = load_dataset(dataset)
    facts = facts_of(dataset, data)
    if resume and known["sha256"] != facts["sha256"]:
        raise InputError(f"{out} was trained on another version of '{dataset}': a resumed run needs the same data")
    config = with_property(config, data)
    from dpcdvae.training.train import train as run

    return run(data.tables, facts, config, out, preset=str(preset), init=start, resume=resume)


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
