"""Lightning's checkpoints as our folders: the plugin that writes and reads them, the callbacks that ask for them.

Lightning's own dictionary is what is stored; a LightningModule adds to it, in ``on_save_checkpoint``,
``dpcdvae_config`` and ``dpcdvae_facts``, and ``dpcdvae_average`` where averaged weights are the ones to use.

Lightning steps ``ReduceLROnPlateau`` after it saves an epoch's checkpoints and not again on resuming, so a
resumed run would miss one step: the module must step it itself, in ``on_train_epoch_end``.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import CheckpointIO

from dpcdvae.checkpoints.checkpoint import read_checkpoint, read_training, write_checkpoint
from dpcdvae.model_store import LAST

PREFIX = "model."  # the bare model's attribute in the LightningModule


class SafetensorsIO(CheckpointIO):
    """``Trainer(plugins=[SafetensorsIO()])``: every checkpoint is a folder of safetensors and JSON, no pickle."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes Lightning's dictionary as a checkpoint folder.

        The facts get ``epoch`` (the last one trained, counted from 0) and ``global_step``.
        """
        if storage_options is not None:
            raise TypeError("SafetensorsIO takes no storage_options")
        state = dict(checkpoint)
        config, facts = state.pop("dpcdvae_config"), state.pop("dpcdvae_facts")
        average = state.pop("dpcdvae_average", None)
        raw = state.pop("state_dict")
        weights = {name.removeprefix(PREFIX): tensor for name, tensor in raw.items() if name.startswith(PREFIX)}
        if average is None:
            raw = {name: tensor for name, tensor in raw.items() if not name.startswith(PREFIX)}
        elif unknown := average.keys() - weights.keys():
            raise ValueError(f"averaged weights that the model does not have: {sorted(unknown)}")
        training = {
            "lightning": state,
            "state_dict": raw,  # without an average, what is in the weights file is not stored twice
            "averaged": None if average is None else list(average),
        }
        facts = {"epoch": checkpoint["epoch"], "global_step": checkpoint["global_step"], **facts}
        write_checkpoint(path, weights | (average or {}), config, facts, training)
        _remove_leftovers(Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The dictionary that :meth:`save_checkpoint` was given, on the CPU.

        ``weights_only`` is Lightning's guard against pickles; there are none here.

        Raises:
            InputError: what is there is no whole checkpoint, or one without training state.
        """
        if map_location not in (None, "cpu", torch.device("cpu")):
            raise TypeError("SafetensorsIO loads to the CPU; Lightning moves the state to its device")
        saved, training = read_checkpoint(path), read_training(path)
        checkpoint: dict[str, Any] = training["lightning"]
        checkpoint["dpcdvae_config"], checkpoint["dpcdvae_facts"] = saved.config, saved.facts
        checkpoint["state_dict"] = training["state_dict"]
        if training["averaged"] is None:
            checkpoint["state_dict"] |= {PREFIX + name: tensor for name, tensor in saved.weights.items()}
        else:
            checkpoint["dpcdvae_average"] = {name: saved.weights[name] for name in training["averaged"]}
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes a checkpoint folder; one that is gone already (a killed run removed it) is no error."""
        path = Path(path)
        if path.is_dir():
            hidden = path.with_name(".removed")
            shutil.rmtree(hidden, ignore_errors=True)
            path.rename(hidden)  # so that a kill leaves no half of a checkpoint under its name
            shutil.rmtree(hidden)


def checkpoint_callbacks(folder: str | Path, monitor: str = "val/loss", keep: int = 1) -> list[ModelCheckpoint]:
    """The ``keep`` best checkpoints, ``epoch=0012``, and the last, ``last``, after every epoch.

    Two callbacks, as one with ``save_last`` writes the last only when it is among the best. In this
    order, so that the last knows which are the best.
    """
    best = ModelCheckpoint(
        folder,
        "epoch={epoch:04d}",
        monitor,
        mode="min",
        save_top_k=keep,
        enable_version_counter=False,
        auto_insert_metric_name=False,
    )
    last = ModelCheckpoint(folder, LAST, monitor=None, save_top_k=1, enable_version_counter=False)
    for callback in (best, last):
        callback.FILE_EXTENSION = ""  # folders, not .ckpt files
    return [best, last]


def _remove_leftovers(path: Path) -> None:
    """Removes what a killed write of the same checkpoint left under temporary names."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        shutil.rmtree(leftover, ignore_errors=True)
