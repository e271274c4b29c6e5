"""A training run: a folder with its configuration, metrics and checkpoints, started or resumed."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from dpcdvae.checkpoints.checkpoint import read_checkpoint
from dpcdvae.checkpoints.lightning_io import SafetensorsIO, checkpoint_callbacks
from dpcdvae.checkpoints.loading import build_model
from dpcdvae.config import AnyConfig, config_from_dict, override_config
from dpcdvae.errors import InputError, unknown_name
from dpcdvae.files import check_output, write_json
from dpcdvae.interfaces import Trainable
from dpcdvae.locks import lock
from dpcdvae.model_store import (
    CHECKPOINTS,
    StoredModel,
    find_model,
    has_checkpoint,
    last_checkpoint,
    read_description,
    read_json,
)
from dpcdvae.nn.layers import fit_scale_factors
from dpcdvae.run_log import RUN_FILE
from dpcdvae.sampling.kinds import SAMPLED_KINDS
from dpcdvae.sampling.reconstruction import misfits
from dpcdvae.structures.table import CrystalTable
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.training.card import write_card
from dpcdvae.training.choose_precision import resolve_precision
from dpcdvae.training.epoch_log import EpochLog, TimeLimit
from dpcdvae.training.first_process import is_first_process
from dpcdvae.training.fit_prior_and_threshold import fit_prior_and_threshold
from dpcdvae.training.lightning_module import TrainingModule
from dpcdvae.training.loader import of_known_elements, targets_of
from dpcdvae.training.loggers import make_logger
from dpcdvae.training.start_from import start_from

# What is fitted to the best checkpoint when a run ends, by the kind of the model.
AFTER_TRAINING = {"generative": fit_prior_and_threshold, "ftcp": fit_prior_and_threshold}
IN_USE = "wait for it, or name another folder"


def train(
    tables: Mapping[str, CrystalTable],
    dataset: dict[str, Any],
    config: AnyConfig,
    folder: str | Path,
    *,
    preset: str,
    init: str | Path | StoredModel | None = None,
    resume: bool = False,
) -> Path:
    """Trains on ``tables["train"]``, keeps the best by ``tables["val"]``; returns the run's folder.

    Args:
        dataset: what is known of the data (name, hash), stored with every checkpoint.
        folder: ``run.json``, ``metrics.csv``, ``checkpoints/``; must be new, unless ``resume``.
        init: a model whose weights are the start instead of random ones (:mod:`dpcdvae.training.start_from`).
        resume: continue the run in ``folder`` from the end of its last complete epoch; one that was killed in its first
            epoch begins again, with the same start.

    Raises:
        InputError: the data do not fit the model, the folder exists or cannot be resumed,
            the loss stops being finite, another process trains in the folder.
    """
    with ExitStack() as held:
        return _train(tables, dataset, config, Path(folder), preset, init, resume, held)


def _train(
    tables: Mapping[str, CrystalTable],
    dataset: dict[str, Any],
    config: AnyConfig,
    folder: Path,
    preset: str,
    init: str | Path | StoredModel | None,
    resume: bool,
    held: ExitStack,
) -> Path:
    """:func:`train`, which closes ``held``: the lock of the folder."""
    check_data(tables, config)
    going_on = resume and has_checkpoint(folder)
    started_from = read_json(folder / RUN_FILE).get("init") if resume else _place(init)
    if resume:
        if going_on:
            last_checkpoint(folder)
        else:
            init = started_from
        if is_first_process():
            held.enter_context(lock(folder, IN_USE))
    elif is_first_process():
        check_output(folder, overwrite=None)
    torch.set_float32_matmul_precision(config.train.matmul_precision)
    pl.seed_everything(config.train.seed, verbose=False)
    # Both refuse what they do not know before anything is written.
    model = build_model(config)
    trainer = make_trainer(config, folder)
    if model.only_known_elements:
        tables = {**tables, "val": of_known_elements(tables["val"], tables["train"])}
    if config.train.freeze_encoder_epochs and not model.encoder_parameters():
        raise InputError(
            f"train.freeze_encoder_epochs: a model of the kind '{config.kind}' has no encoder apart from the rest: "
            "leave it at 0"
        )
    facts = {"preset": preset, "dataset": dataset, "seed": config.train.seed}
    facts["precision"] = precision = resolve_precision(config.train)
    if config.train.precision != precision and is_first_process():
        print(f"train.precision {config.train.precision}: {precision} here", file=sys.stderr)
    if init is not None:
        start = read_checkpoint(find_model(init))
        lines = start_from(model, start, tables["train"])
        model.record_training_set(CrystalBatch.from_table(tables["train"]), targets_of(tables["train"], model.target))
        if is_first_process():
            print("\n".join(lines), file=sys.stderr)
        facts["init"] = start.facts
    elif going_on:
        earlier = read_description(last_checkpoint(folder))["facts"]
        facts |= {"init": earlier["init"]} if "init" in earlier else {}
    else:
        prepare(model, tables["train"])
    if is_first_process():
        if not resume:
            folder.mkdir(parents=True, exist_ok=True)  # by another run that began just now, which has the lock
            held.enter_context(lock(folder, IN_USE))
            check_output(folder / RUN_FILE, overwrite=None)
        begun = {"preset": preset, "dataset": dataset, "config": config.to_dict(), "init": started_from}
        write_json(folder / RUN_FILE, begun)  # with what --resume --set has changed, for the next --resume
    module = TrainingModule(model, tables["train"], tables["val"], facts)
    _run(trainer, module, str(last_checkpoint(folder)) if going_on else None)
    if trainer.is_global_zero and config.train.finish:
        if fit := AFTER_TRAINING.get(config.kind):
            fit(folder, tables, trainer.strategy.root_device)
        write_card(folder, tables)
    return folder


def _place(init: str | Path | StoredModel | None) -> str | None:
    """Where the weights lie that a run starts from: all that is needed to start it again."""
    return None if init is None else find_model(init).place


def resumed_config(folder: str | Path, overrides: Sequence[str] = ()) -> tuple[AnyConfig, str, dict[str, Any]]:
    """Configuration (with overrides of ``train`` options only), preset and data set of an earlier run.

    Raises:
        InputError: no such run, or its checkpoints hold no training state.
    """
    folder = Path(folder)
    if not (folder / RUN_FILE).is_file():
        raise InputError(f"{folder} is no run that could be resumed: it has no {RUN_FILE}")
    stored = read_json(folder / RUN_FILE)
    if has_checkpoint(folder):
        last_checkpoint(folder)
    for override in overrides:
        if not override.strip().startswith("train."):
            raise InputError(f"--set {override}: a resumed run keeps its model; only train.* options can change")
    config = config_from_dict(stored["config"], where=f"{folder}/{RUN_FILE}")
    return override_config(config, overrides), stored["preset"], stored["dataset"]


def check_data(tables: Mapping[str, CrystalTable], config: AnyConfig) -> None:
    """Raises InputError when a split is missing or empty, has no bonds, or lacks what the model learns from it."""
    for split in ("train", "val"):
        table = tables.get(split)
        if table is None or not len(table):
            raise InputError(f"the data set has no crystals in its '{split}' split: training needs some")
        largest = int(table.num_atoms.max())
        max_atoms = config.model.max_atoms
        if largest > max_atoms:
            raise InputError(
                f"a crystal of '{split}' has {largest} atoms, more than model.max_atoms = {max_atoms}: "
                f"raise it with --set model.max_atoms={largest}"
            )
        if (table.num_bonds == 0).any():
            raise InputError(f"crystals of '{split}' have no bonds: prepare the data set again (dpcdvae data get)")
        if config.kind in SAMPLED_KINDS and SAMPLED_KINDS[config.kind].reconstruct is not None:
            for row, wrong in misfits(config, table, {}).items():
                raise InputError(f"crystal {table.ids[row]} of '{split}' {wrong}")
        if name := config.model.property:
            _check_property(table, split, name)


def _check_property(table: CrystalTable, split: str, name: str) -> None:
    if name not in table.properties:
        if not table.properties:
            raise InputError(f"the data set has no properties, so no '{name}' to learn")
        raise unknown_name("property of the data set", name, table.properties)
    known = int(np.isfinite(table.properties[name]).sum())
    if not known:
        raise InputError(f"property '{name}' has no value in the '{split}' split: there is nothing to learn from")
    if known < len(table):
        print(
            f"{name}: known for {known} of {len(table)} crystals of '{split}'; the others do not count for it",
            file=sys.stderr,
        )


@torch.no_grad()
def prepare(model: Trainable, table: CrystalTable) -> None:
    """What is measured before the first step: scalers, first outputs, and the scale factors of the networks."""
    targets = targets_of(table, model.target)
    everything = CrystalBatch.from_table(table)
    model.measure(everything, targets)
    model.record_training_set(everything, targets)
    model.set_first_outputs(everything)
    generator = torch.Generator().manual_seed(model.config.train.seed)
    chosen = torch.randperm(len(table), generator=generator)[: model.config.train.batch_size]
    batch = CrystalBatch.from_table(table, chosen.numpy())
    with fit_scale_factors(model):
        some = None if targets is None else targets[chosen].to(model.dtype)
        model.step_losses(batch, some, generator, 0)


def make_trainer(config: AnyConfig, folder: Path) -> pl.Trainer:
    """Lightning's trainer, with its devices, nodes, strategies and precisions as ``config.train`` names them.

    Raises:
        InputError: Lightning does not know one of them or cannot use it here.
    """
    train = config.train
    callbacks: list[pl.Callback] = [
        EpochLog(folder),
        *checkpoint_callbacks(folder / CHECKPOINTS, "val/criterion", train.save_top_k),
    ]
    if train.max_minutes:
        callbacks.append(TimeLimit(train.max_minutes))
    if train.early_stopping_patience:
        callbacks.append(EarlyStopping("val/criterion", patience=train.early_stopping_patience))
    logger, of_logger = make_logger(train.logger, folder)
    callbacks += of_logger
    _quieten()
    try:
        return pl.Trainer(
            max_epochs=train.max_epochs,
            accelerator=train.accelerator,
            devices=train.devices,
            num_nodes=train.num_nodes,
            strategy=train.strategy,
            precision=resolve_precision(train),  # type: ignore[arg-type]
            callbacks=callbacks,
            plugins=[SafetensorsIO()],
            logger=logger,
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
    except (ValueError, MisconfigurationException, ImportError) as error:
        raise InputError(f"train.accelerator, devices, strategy or precision cannot be used here: {error}") from None


def _run(trainer: pl.Trainer, module: TrainingModule, checkpoint: str | None) -> None:
    """``fit``; a Ctrl-C, which Lightning turns into an exit, is one again, and is heard afterwards too."""
    heard = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, ckpt_path=checkpoint)
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, heard)  # Lightning leaves it ignored after a Ctrl-C


def _quieten() -> None:
    """Lightning's advice is for its developers; ours is in the lines of each epoch."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*treespec.*")
