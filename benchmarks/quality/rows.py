"""The rows of reproduction.toml: which model, what is done with it, and with how many crystals."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass

from dpcdvae.errors import unknown_name
from dpcdvae.model_store import read_card
from queueing.state import MODELS
from speed.record import ROOT

ROWS = ROOT / "benchmarks" / "reproduction.toml"

CEILING = "ceiling"
"""The task of no model: the match rate of the test crystals themselves."""


@dataclass(frozen=True)
class Row:
    """A task of a model of reproduction.toml, where the keys are explained."""

    name: str
    system: str
    model: str
    dataset: str
    task: str
    n: int
    options: Sequence[str]
    training: str
    energy_model: str = ""


def rows() -> dict[str, Row]:
    """The rows by their names, in the order of the file."""
    file = tomllib.loads(ROWS.read_text(encoding="utf-8"))
    found = {}
    for model in file["model"]:
        for task, n in model["rows"].items():
            name = f"{model['name']}-{task}"
            how = file["task"][task]
            energies = model.get("energy_model", "") if how["task"] == "generate" else ""
            found[name] = Row(
                name,
                model["system"],
                model["name"],
                model["dataset"],
                how["task"],
                n,
                how["options"],
                model.get("training") or training(model["name"]),
                energies,
            )
    for dataset in file[CEILING]["datasets"]:
        name = f"{dataset}-{CEILING}"
        found[name] = Row(name, "the test crystals themselves", "", dataset, CEILING, 0, [], "")
    return found


def training(model: str) -> str:
    """What the card of a model of models/ says of its training; nothing where it is not there yet."""
    curve = curve_of(model)
    return "" if curve is None else f"{curve['cpu_minutes'][-1]:.0f} CPU minutes, {curve['epoch'][-1]:.0f} epochs"


def curve_of(model: str) -> dict[str, list[float]] | None:
    """The learning curve of a model of models/: epoch, CPU minutes, criterion; None where there is no such model."""
    if not model or not (MODELS / model).is_dir():
        return None
    curve: dict[str, list[float]] = read_card(MODELS / model)["curve"]
    return curve


def row_of(name: str) -> Row:
    known = rows()
    if name not in known:
        raise unknown_name("row", name, list(known))
    return known[name]
