"""``dpcdvae models``, ``dpcdvae models get``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from dpcdvae.cli.groups import argument, command, option

app = typer.Typer(help="The trained models on this machine, and more of them.", rich_markup_mode=None)


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
    from dpcdvae.model_store import bundled_models, fetched_models, find_model

    here = [*bundled_models(), *fetched_models()]
    for name in here:
        model = find_model(name)
        card = model.card()
        print(f"{name}  {card.get('summary', '')}")
        task = "makes crystals" if model.predicts is None else f"predicts {model.predicts}"
        for what, said in {"task": task, **_facts(card)}.items():
            print(f"  {what:9} {said}")
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


def _facts(card: Mapping[str, Any]) -> dict[str, str]:
    """What a card says in words, as far as it does: data, sizes, elements, scores."""
    said = {}
    data, elements, errors = card.get("dataset"), card.get("elements"), card.get("errors")
    if isinstance(data, dict) and "name" in data:
        counts = data.get("crystals")
        split = f" ({counts['train']} crystals to train)" if isinstance(counts, dict) and "train" in counts else ""
        said["data"] = f"{data['name']}{split}"
    statistics = card.get("training_statistics")
    if isinstance(statistics, dict) and (sizes := [int(size) for size in statistics.get("num_atoms", ())]):
        said["sizes"] = f"{min(sizes)} to {max(sizes)} atoms"
    if isinstance(elements, list):
        said["elements"] = f"{len(elements)}: {' '.join(map(str, elements))}"
    if isinstance(errors, dict):
        said["error"] = ", ".join(f"{split} {part['mae']:.4g}" for split, part in errors.items() if "mae" in part)
    if isinstance(scores := card.get("scores"), dict):
        said["scores"] = ", ".join(f"{name} {value}" for name, value in scores.items())
    return said
