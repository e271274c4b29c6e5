"""A suite made concrete before anything is written: every preset resolved and built once, the crystals chosen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dpcdvae.checkpoints.loading import build_model
from dpcdvae.comparison.suite import Suite, flat
from dpcdvae.config import AnyConfig, load_config
from dpcdvae.datasets import dataset_path, load_dataset
from dpcdvae.errors import InputError
from dpcdvae.files import sha256
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.presets import merge
from dpcdvae.sampling.kinds import sampled_kind
from dpcdvae.structures.table import CrystalTable
from dpcdvae.training.train import check_data, make_trainer


@dataclass(frozen=True)
class Contender:
    """A preset with the suite's overrides, and how many parameters its model has."""

    preset: str
    config: AnyConfig
    parameters: int

    def configured(self, seed: int, epochs: int) -> AnyConfig:
        return _changed(self.config, {"train": {"seed": seed, "max_epochs": epochs}}, self.preset)


@dataclass(frozen=True, eq=False)
class Plan:
    """Data, crystals and presets that all runs of a suite share.

    Attributes:
        dataset: name and hash of the data, and which part of them is trained on.
        tables: ``train`` and ``val``, the same for every preset.
        truths: crystals of the test split to reconstruct.
        source: the test split, as a reference of the evaluation.
    """

    suite: Suite
    dataset: dict[str, Any]
    tables: dict[str, CrystalTable]
    truths: CrystalTable
    source: str
    contenders: tuple[Contender, ...]

    def recorded(self) -> dict[str, Any]:
        """The settings that must be the same when a benchmark goes on."""
        return {
            "suite": self.suite.to_dict(),
            "dataset": self.dataset,
            "presets": {contender.preset: contender.config.to_dict() for contender in self.contenders},
        }


def make_plan(suite: Suite) -> Plan:
    """Raises InputError: unknown data or preset, too many steps, a model that makes no crystals or does not fit."""
    data = load_dataset(suite.dataset)
    path = dataset_path(suite.dataset)
    seed = suite.subset.seed
    tables = {
        "train": choose(data["train"], suite.subset.train, seed),
        "val": choose(data["val"], suite.subset.val, seed),
    }
    truths = choose(data["test"], suite.sample.reconstruct, seed)
    if not len(truths):
        raise InputError(f"data set '{data.name}' has no crystals in its 'test' split: there is nothing to reconstruct")
    dataset = {
        "name": data.name,
        "sha256": sha256(path),
        "columns": dict(data.metadata.get("columns", {})),
        "part": {"seed": seed, "train": len(tables["train"]), "val": len(tables["val"])},
    }
    if notes := data.metadata.get("notes"):
        dataset["notes"] = dict(notes)
    contenders = tuple(_contender(preset, suite, tables) for preset in suite.presets)
    return Plan(suite, dataset, tables, truths, f"{suite.dataset}:test", contenders)


def choose(table: CrystalTable, count: int | None, seed: int) -> CrystalTable:
    """At most ``count`` crystals, drawn without replacement, in the order of the table; all without a count."""
    if count is None or count >= len(table):
        return table
    return table.select(np.sort(np.random.default_rng(seed).choice(len(table), count, replace=False)))


def _contender(preset: str, suite: Suite, tables: dict[str, CrystalTable]) -> Contender:
    config = load_config(preset)
    sampled_kind(config.kind, f"preset '{preset}'")
    for option, value in flat(suite.overrides).items():
        nested = value
        for part in reversed(option.split(".")):
            nested = {part: nested}
        config = _changed(config, nested, f"[set] for preset '{preset}'")
    if suite.cpu_minutes is not None:
        config = _changed(config, {"train": {"accelerator": "cpu"}}, preset)
    check_data(tables, config)
    with TemporaryDirectory() as folder:
        make_trainer(config, Path(folder))  # refuses a device that is not here before hours of work
    model = build_model(config)
    if isinstance(model, CDVAE) and suite.sample.steps > (most := model.diffusion.max_steps):
        raise InputError(f"sample.steps = {suite.sample.steps}: preset '{preset}' has {most} at most")
    return Contender(preset, config, sum(parameter.numel() for parameter in model.parameters()))


def _changed(config: AnyConfig, changes: dict[str, Any], where: str) -> AnyConfig:
    return type(config).from_dict(merge(config.to_dict(), changes), where=where)
