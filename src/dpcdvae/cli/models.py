"""``dpcdvae models``, ``dpcdvae models get``, ``dpcdvae models score``."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from dpcdvae.cli.groups import argument, command, option
from dpcdvae.errors import InputError, printable

MOST_ELEMENTS = 118

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def list_models(context: typer.Context) -> None:
    """The models on this machine, and what each is good for; get fetches more.

    \b
    Example:
      dpcdvae models
    """
    if context.invoked_subcommand is not None:
        return
    from dpcdvae.model_fetch import known_models
    from dpcdvae.model_scores import lines
    from dpcdvae.model_store import find_model, named_models

    here = named_models()
    for name in here:
        try:
            model = find_model(name)
            card = model.card()
        except InputError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        print(f"{name}  {printable(str(card.get('summary', '')))}")
        task = "makes crystals" if model.predicts is None else f"predicts {model.predicts}"
        for what, said in {"task": task, **_facts(card)}.items():
            print(f"  {what:9} {said}")
        for said in lines(card):
            print(f"  {'score':9} {printable(said)}")
    for name in sorted({*known_models()} - {*here}):
        print(f"{name}  not here yet: dpcdvae models get {name}")


@app.command()
@command
def get(
    source: str = argument(..., "A name of the index, or the address of a zip archive of an exported model."),
    sha256: str | None = option(None, "Checksum of the archive; an address needs it."),
    name: str | None = option(None, "Name of the model here.", shown="that of the index or the archive"),
) -> None:
    """Fetch a model, check it, and keep it in the cache folder; then its name works in every command.

    \b
    Example:
      dpcdvae models get https://example.org/oxides.zip --sha256 CHECKSUM
    """
    from dpcdvae.model_fetch import get_model

    found = get_model(source, checksum=sha256, name=name)
    print(f"{found.name} is in {found.folder}")


@app.command()
@command
def score(
    model: str = argument(..., "A run folder or the folder of an exported model."),
    reports: list[Path] = argument(..., "JSON of evaluate, about crystals that this model made."),
) -> None:
    """Put the numbers of evaluations into a model's card; models shows them.

    The manifests beside the report and the crystals show that the crystals are this model's.

    \b
    Example:
      dpcdvae models score my-model reconstructed.json generated.json
    """
    from dpcdvae.model_scores import add_scores
    from dpcdvae.model_store import find_model

    found = find_model(model)
    for report, entry in zip(reports, add_scores(found, reports), strict=True):
        print(f"{found.name}: {len(entry['numbers'])} numbers of {report}")


def _facts(card: Mapping[str, Any]) -> dict[str, str]:
    """What a card says in words of data, sizes, elements and errors. What is of another type is left out."""
    from dpcdvae.intervals import MOST_COUNTED
    from dpcdvae.structures.properties import plain_number

    said = {}
    data, statistics = _table(card, "dataset"), _table(card, "training_statistics")
    if "name" in data:
        count = _table(data, "crystals").get("train")
        said["data"] = f"{data['name']}" + (
            f" ({count} crystals to train)" if type(count) is int and 0 <= count <= MOST_COUNTED else ""
        )
    if sizes := sorted(int(size) for size in _table(statistics, "num_atoms") if re.fullmatch(r"[0-9]{1,9}", size)):
        said["sizes"] = f"{sizes[0]} atoms" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} atoms"
    if isinstance(elements := card.get("elements"), list):
        said["elements"] = f"{len(elements)}: {' '.join(map(str, elements[:MOST_ELEMENTS]))}"
    errors = {split: part.get("mae") for split, part in _table(card, "errors").items() if isinstance(part, dict)}
    numbers = {split: plain_number(mae) for split, mae in errors.items()}
    if known := [f"{split} {mae:.4g}" for split, mae in numbers.items() if mae is not None]:
        said["error"] = ", ".join(known)
    return {what: printable(text) for what, text in said.items()}


def _table(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = values.get(key)
    return found if isinstance(found, dict) else {}
