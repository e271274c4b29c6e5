"""``dpcdvae data``: list, get, add, info, show."""

from __future__ import annotations

import csv
import json as json_module
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpcdvae.cli.groups import argument, command, option
from dpcdvae.cli.options import Column, Overwrite, Processes, Seed, complete_datasets
from dpcdvae.errors import InputError, printable

if TYPE_CHECKING:
    from dpcdvae.datasets import Dataset
    from dpcdvae.parallel import Engine

app = typer.Typer(help="Data sets: the published ones, the built-in one, and your own.", no_args_is_help=True)

Primitive = Annotated[bool, typer.Option("--primitive", help="Primitive cells first: atoms repeat within 0.01 Å.")]


@app.command("list")
def list_() -> None:
    """The data sets known by name, and which of them are prepared.

    \b
    Example:
      dpcdvae data list
    """
    from dpcdvae.datasets import DATASETS, dataset_file, load_dataset, prepared_names

    here = prepared_names()
    names = [*DATASETS, *(name for name in here if name not in DATASETS)]
    width = max(len(name) for name in names)
    for name in names:
        title = DATASETS[name].title if name in DATASETS else ""
        state = "built on first use" if name == "prototypes" else "not here: data get"
        if name in here:
            try:
                dataset = load_dataset(name)
                state = " + ".join(str(len(table)) for table in dataset.tables.values())
                title = str(dataset.metadata.get("title", title))
            except InputError:
                state = f"broken: {dataset_file(name)}"
        print(f"{name:{width}}  {state:20}  {title}")


@app.command()
@command
def get(
    *,
    name: str = argument(..., "perov_5, carbon_24, mp_20 or prototypes.", autocompletion=complete_datasets),
    processes: Processes,
    folder: Path | None = option(None, "Folder with train, val, test .csv or .csv.gz; fetched if not given.", "--from"),
    store_as: str | None = option(None, "Another name for it, for files other than the published ones.", "--name"),
    url: str | None = option(None, "Fetch from this folder (or $DPCDVAE_DATA_URL/NAME) instead."),
    primitive: Primitive = False,
) -> None:
    """Prepare a published data set: fetch and check it, standardise, find bonds, cache.

    Prepared once, it is used again as long as files and settings stay the same. Prints the path of the
    prepared file, which trains on a machine without pymatgen. What every evaluation against the test split
    needs of it, such as fingerprints, is computed now too, if the evaluation is installed.

    \b
    Example:
      dpcdvae data get perov_5
      dpcdvae data get carbon_24 --from my/carbon_24
    """
    from dpcdvae.datasets import dataset_file, get_dataset

    with processes.engine() as engine:
        dataset = get_dataset(name, folder=folder, store_as=store_as, url=url, primitive=primitive, engine=engine)
        _warm_evaluation(dataset, engine)
    print(dataset_file(dataset.name))


def _warm_evaluation(dataset: Dataset, engine: Engine) -> None:
    """Evaluates one crystal, so that the first evaluation of the user's own is quick."""
    if find_spec("smact") is None or not len(dataset.tables.get("test", ())):
        return
    from dpcdvae.evaluation import evaluate

    evaluate([dataset["test"][0]], f"{dataset.name}:test", engine=engine, baselines=())


@app.command()
@command
def add(
    *,
    source: Path = argument(..., "A CSV with a column of CIFs, any other crystal file, or a folder."),
    name: str = option(..., "Name of the data set."),
    processes: Processes,
    split: str = option("0.8,0.1,0.1", "Fractions of train, val and test."),
    seed: Seed = 0,
    max_atoms: int = option(100, "Larger cells are left out.", min=1),
    primitive: Primitive = False,
    column: Column = None,
    overwrite: Overwrite = False,
) -> None:
    """Prepare your own crystals: a CSV, a folder of CIFs, a database of ASE, documents of the Materials Project ...

    Properties are the numbers that a file has beside its crystals. For a folder they may stand in id_prop.csv, in it
    or beside it, with the name of a file and values in each line.

    The split is random by --seed, unless a folder holds train, val and test .csv. Items that cannot be
    used are left out, and reported with row and reason.

    \b
    Example:
      dpcdvae data add my_cifs/ --name oxides --split 0.8,0.1,0.1
    """
    from dpcdvae.datasets import add_dataset, dataset_file

    with processes.engine() as engine:
        add_dataset(
            source,
            name,
            fractions=_fractions(split),
            seed=seed,
            max_atoms=max_atoms,
            primitive=primitive,
            column=column,
            engine=engine,
            overwrite=overwrite,
        )
    print(dataset_file(name))


@app.command()
@command
def info(
    name: str = argument(..., "A data set, or the path of its .npz file.", autocompletion=complete_datasets),
    failures: bool = option(False, "Print what was left out, as CSV.", "--failures"),
    json: bool = option(False, "Print everything as JSON.", "--json"),
) -> None:
    """What is in a prepared data set, and what was left out of it.

    \b
    Example:
      dpcdvae data info perov_5
    """
    from dpcdvae.datasets import load_dataset
    from dpcdvae.datasets.description import describe, lines
    from dpcdvae.io.tables import guarded

    dataset = load_dataset(name)
    if failures:
        writer = csv.DictWriter(sys.stdout, ["part", "id", "where", "reason"], lineterminator="\n")
        writer.writeheader()
        for failure in dataset.metadata.get("failures", []):
            writer.writerow({name: guarded(printable(str(text))) for name, text in failure.items()})
        return
    facts: dict[str, Any] = describe(dataset, Path(name) if name.endswith(".npz") else None)
    print(json_module.dumps(facts, indent=1) if json else "\n".join(lines(facts)))


@app.command()
@command
def show(
    split: str = argument(..., "DATASET or DATASET:split (test without).", autocompletion=complete_datasets),
    id: str = argument(..., "Id of a crystal, or # and its number in the split, from #0."),
) -> None:
    """Print one crystal of a data set: cell, atoms, properties, bonds of each atom.

    \b
    Example:
      dpcdvae data show perov_5:test 8355
      dpcdvae data show prototypes:train '#0'
    """
    from dpcdvae.datasets import load_split
    from dpcdvae.datasets.description import crystal_lines, place_of

    table = load_split(split)
    print("\n".join(crystal_lines(table, place_of(table, id, split))))


def _fractions(text: str) -> list[float]:
    from dpcdvae.structures.properties import parse_number

    fractions: list[float] = []
    for part in text.split(","):
        fraction = parse_number(part.strip())
        if fraction is None or isinstance(fraction, bool):
            raise InputError(f"--split takes three fractions such as 0.8,0.1,0.1, not '{text}'")
        fractions.append(fraction)
    return fractions
