"""The rows of reproduction.toml: which model, what is done with it, and with how many crystals."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, model_validator

from dpcdvae.datasets import DATASETS
from dpcdvae.errors import unknown_name
from quality.checked import Checked, PaperData, checked_toml
from speed.record import ROOT

ROWS = ROOT / "benchmarks" / "reproduction.toml"

CEILING = "ceiling"
"""The task of no model: the match rate of the test crystals themselves."""


class Task(Checked):
    """What is done with a model, and the options of the command that does it."""

    task: Literal["reconstruct", "generate", "relax", "relax-dft"]
    options: list[str]


class Model(Checked):
    """A model and, for each of its tasks, how many crystals; reproduction.toml explains the keys."""

    name: str
    system: str
    dataset: PaperData
    training: str = ""
    energy_model: str = ""
    rows: dict[str, NonNegativeInt]


class Ceiling(Checked):
    """The data sets whose test crystals are judged themselves."""

    datasets: list[PaperData]


class Tables(Checked):
    """The whole file."""

    task: dict[str, Task]
    model: list[Model]
    ceiling: Ceiling

    @model_validator(mode="after")
    def fits(self) -> Tables:
        names = [model.name for model in self.model]
        for model in self.model:
            if names.count(model.name) > 1:
                raise ValueError(f"model '{model.name}' is there twice")
            for task in model.rows.keys() - self.task.keys():
                raise ValueError(f"model '{model.name}' has a row of task '{task}', which is not there")
        return self


class Row(Checked):
    """A task of a model. ``n``: of this many crystals; 0: of the whole test split."""

    name: str
    system: str
    model: str
    dataset: str
    task: str
    n: int
    options: list[str]
    training: str = ""
    energy_model: str = ""

    @property
    def crystals(self) -> int:
        """How many crystals it is of, with the published test split."""
        return self.n or DATASETS[self.dataset].rows["test"]


def rows() -> dict[str, Row]:
    """The rows by their names, in the order of the file; raises InputError where the file is wrong."""
    file = checked_toml(ROWS, Tables)
    found = []
    for model in file.model:
        for name, n in model.rows.items():
            how = file.task[name]
            row = Row(
                name=f"{model.name}-{name}",
                system=model.system,
                model=model.name,
                dataset=model.dataset,
                task=how.task,
                n=n,
                options=how.options,
                training=model.training,
                energy_model=model.energy_model if how.task == "generate" else "",
            )
            found.append(row)
    for dataset in file.ceiling.datasets:
        name, system = f"{dataset}-{CEILING}", "the test crystals themselves"
        found.append(Row(name=name, system=system, model="", dataset=dataset, task=CEILING, n=0, options=[]))
    return {row.name: row for row in found}


def row_of(name: str) -> Row:
    known = rows()
    if name not in known:
        raise unknown_name("row", name, list(known))
    return known[name]
