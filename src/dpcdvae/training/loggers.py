"""Lightning's loggers by name. Each is imported when it is asked for, and goes on with its run after ``--resume``."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from dpcdvae.errors import InputError, one_line
from dpcdvae.files import write_json
from dpcdvae.model_store import read_json

LOGGER_FILE = "logger.json"
PROJECT = "dpcdvae"


def make_logger(name: str, folder: Path) -> tuple[Any, list[pl.Callback]]:
    """The logger of a run, and the callbacks that it needs; ``False``, which is Lightning's word for none.

    TensorBoard, csv and (without a server in ``MLFLOW_TRACKING_URI``) mlflow write into the folder of the run.

    Raises:
        InputError: its package is not installed.
    """
    if name == "none":
        return False, []
    from lightning.pytorch import loggers

    earlier = read_json(folder / LOGGER_FILE) if (folder / LOGGER_FILE).is_file() else {}
    known = earlier.get("id") if earlier.get("logger") == name else None
    try:
        if name == "tensorboard":
            return loggers.TensorBoardLogger(folder, name="tensorboard", version=""), []
        if name == "csv":
            return loggers.CSVLogger(folder, name="csv"), []  # version_N of each start: nothing is deleted
        if name == "wandb":
            run = known or uuid.uuid4().hex[:16]
            wandb = loggers.WandbLogger(name=folder.name, save_dir=folder, project=PROJECT, id=run, resume="allow")
            return wandb, [_KeepRun(folder, name, run)]
        server = os.environ.get("MLFLOW_TRACKING_URI")
        where: dict[str, Any] = {"tracking_uri": server or f"sqlite:///{(folder / 'mlflow.db').absolute()}"}
        if server is None:
            where["artifact_location"] = str((folder / "mlflow").absolute())
        mlflow = loggers.MLFlowLogger(experiment_name=PROJECT, run_name=folder.name, run_id=known, **where)
        return mlflow, [_KeepRun(folder, name, None)]
    except ImportError:
        raise InputError(f"train.logger = {name} needs a package: pip install {name}, or leave it out") from None
    except Exception as error:  # whatever a logger finds wrong with its server or its files
        raise InputError(f"train.logger = {name} cannot begin: {one_line(error)[:200]}; or leave it out") from None


class _KeepRun(pl.Callback):
    """Writes the id of the logger's run beside the run, where ``--resume`` finds it; mlflow names its own."""

    def __init__(self, folder: Path, name: str, run: str | None) -> None:
        self.folder, self.name, self.run = folder, name, run

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            run = self.run or getattr(trainer.logger, "run_id", None)
            write_json(self.folder / LOGGER_FILE, {"logger": self.name, "id": run})
