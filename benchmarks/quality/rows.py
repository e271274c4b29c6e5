"""The rows of reproduction.toml: which model, what is done with it, and with how many crystals."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass

from dpcdvae.errors import unknown_name
from speed.record import ROOT

ROWS = ROOT / "benchmarks" / "reproduction.toml"


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
                model["training"],
                energies,
            )
    return found


def row_of(name: str) -> Row:
    known = rows()
    if name not in known:
        raise unknown_name("row", name, list(known))
    return known[name]
