"""``dpcdvae train``, ``dpcdvae export``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from dpcdvae.cli.groups import argument, option
from dpcdvae.cli.options import Out, Overrides, complete_datasets, complete_models, complete_presets


def train(
    *,
    dataset: str | None = argument(
        None, "A data set, or the .npz of a prepared one (not with --resume).", autocompletion=complete_datasets
    ),
    out: Path = option(..., "Folder of the run."),
    preset: str | None = option(
        None,
        "A preset's name, or a TOML file of your own.",
        shown="compact/dp-cdvae-stats",
        autocompletion=complete_presets,
    ),
    property_: str = option(
        "", "Column to learn; a generative model gets a head for it.", "--property", shown="none, or energy"
    ),
    set_: Overrides = None,
    init: str | None = option(
        None, "Start from the weights of this model, also on other data.", autocompletion=complete_models
    ),
    resume: bool = option(False, "Continue the run in --out.", "--resume"),
    logger: str | None = option(None, "Log there too: wandb, tensorboard, csv or mlflow.", shown="the run's"),
) -> None:
    """Train a model; prints the folder of the run, which generate and reconstruct take as MODEL.

    A run that was stopped or killed continues with --resume after its last whole epoch, with the same
    result as without the stop. The best checkpoints by validation and the last one are kept.

    \b
    Example:
      dpcdvae train perov_5 --set train.max_epochs=50 --out runs/perov
      dpcdvae train --resume --out runs/perov
      dpcdvae train perov_5 --preset energy --out runs/energy
      dpcdvae train mine --preset compact/dp-cdvae-stats+fine-tune --init runs/perov --out runs/mine
    """
    from dpcdvae.model_store import has_checkpoint
    from dpcdvae.run_log import RUN_FILE
    from dpcdvae.training.by_name import train as run
    from dpcdvae.training.first_process import is_first_process

    overrides = [*(set_ or ()), *([] if logger is None else [f"train.logger={logger}"])]
    try:
        folder = run(dataset, out, preset=preset, overrides=overrides, property=property_, init=init, resume=resume)
    except KeyboardInterrupt:
        if is_first_process() and (out / RUN_FILE).is_file():
            after = "after its last whole epoch" if has_checkpoint(out) else "from the beginning: no epoch was finished"
            print(f"dpcdvae train --resume --out {shlex.quote(str(out))} goes on {after}", file=sys.stderr)
        raise
    if is_first_process():
        print(folder)
        _print_errors(folder)


def _print_errors(folder: Path) -> None:
    """Prints the errors of a property model, in the unit of its property."""
    from dpcdvae.model_store import CARD, best_checkpoint, read_card

    if not (best_checkpoint(folder) / CARD).is_file():
        return  # train.finish=false
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
