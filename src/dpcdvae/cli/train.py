"""``dpcdvae train``, ``dpcdvae export``."""

from __future__ import annotations

import json
from pathlib import Path

from dpcdvae.cli.groups import argument, option
from dpcdvae.cli.options import Out, Overrides, complete_datasets, complete_models, complete_presets
from dpcdvae.errors import InputError

DEFAULT_PRESET = "compact"


def train(
    *,
    dataset: str | None = argument(
        None, "A data set, or the .npz of a prepared one (not with --resume).", autocompletion=complete_datasets
    ),
    out: Path = option(..., "Folder of the run."),
    preset: str | None = option(
        None, "A preset's name, or a TOML file of your own.", shown=DEFAULT_PRESET, autocompletion=complete_presets
    ),
    property_: str = option(
        "", "Column to learn; a generative model gets a head for it.", "--property", shown="none, or energy"
    ),
    set_: Overrides = None,
    init: str | None = option(
        None, "Start from the weights of this model, also on other data.", autocompletion=complete_models
    ),
    resume: bool = option(False, "Continue the run in --out.", "--resume"),
) -> None:
    """Train a model; prints the folder of the run, which generate and reconstruct take as MODEL.

    A run that was stopped or killed continues with --resume after its last whole epoch, with the same
    result as without the stop. The best checkpoints by validation and the last one are kept.

    \b
    Example:
      dpcdvae train perov_5 --preset compact --set train.max_epochs=50 --out runs/perov
      dpcdvae train --resume --out runs/perov
      dpcdvae train perov_5 --preset energy --out runs/energy
      dpcdvae train mine --preset compact+fine-tune --init runs/perov --out runs/mine
    """
    from dpcdvae.config import load_config
    from dpcdvae.datasets import load_dataset
    from dpcdvae.files import check_output
    from dpcdvae.model_store import find_model
    from dpcdvae.training.by_name import facts_of, with_property
    from dpcdvae.training.first_process import is_first_process

    overrides = [*(set_ or []), *([f"model.property={json.dumps(property_)}"] if property_ else [])]
    if resume and init:
        raise InputError("--resume continues a run with its own weights: leave out --init")
    if resume and preset is not None:
        raise InputError("--resume continues a run with its own preset: leave out --preset, or change options by --set")
    if resume and property_:
        raise InputError("--resume continues a run with what it learns: leave out --property")
    if resume:
        from dpcdvae.training.train import resumed_config

        config, preset, facts = resumed_config(out, overrides)
        dataset = dataset or str(facts["name"])
    elif dataset is None:
        raise InputError("which data set? give its name (see dpcdvae data list)")
    else:
        if is_first_process():
            check_output(out, overwrite=None)
        preset = preset or DEFAULT_PRESET
        config, facts = load_config(preset, overrides), {}
    start = None if init is None else find_model(init)
    data = load_dataset(dataset)
    known, facts = facts, facts_of(dataset, data)
    if resume and known["sha256"] != facts["sha256"]:
        raise InputError(f"{out} was trained on another version of '{dataset}': a resumed run needs the same data")
    config = with_property(config, data)

    from dpcdvae.training.train import train as run

    folder = run(data.tables, facts, config, out, preset=preset, init=start, resume=resume)
    if is_first_process():
        print(folder)
        if config.train.finish:
            _print_errors(folder)


def _print_errors(folder: Path) -> None:
    """Prints the errors of a property model, in the unit of its property."""
    from dpcdvae.model_store import read_card

    card = read_card(folder)
    for split, error in card.get("errors", {}).items():
        unit, missing = card["property"]["unit"], error["without_value"]
        note = f", {missing} without a value left out" if missing else ""
        print(
            f"{split}: mean absolute error {error['mae']:.4f} ({card['property']['name']}: {unit or 'unit unknown'}; "
            f"{error['crystals']} crystals{note})"
        )


def export(
    *,
    model: str = argument(..., "A run folder (its best) or a checkpoint folder."),
    out: Out,
    half: bool = option(False, "Weights in half precision: half the size.", "--half"),
) -> None:
    """Write weights, configuration and card of a trained model to a folder of a few MB, without training state.

    \b
    Example:
      dpcdvae export runs/perov --out perov-model
    """
    from dpcdvae.files import check_output
    from dpcdvae.model_store import find_model

    check_output(out, overwrite=None)
    source = find_model(model)
    from dpcdvae.training.card import export as write

    print(write(source, out, half=half))
