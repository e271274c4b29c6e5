"""Where trained models lie: names, run folders and checkpoint folders, without torch.

A checkpoint is a folder: ``model.safetensors`` (the weights to use), ``config.json`` (what the model is
built from, facts about its training, the hash of the weights), and, where training can go on,
``training.safetensors`` with ``training.json``. A bundled model has a ``card.json`` too.
A run folder holds checkpoints in ``checkpoints/``; which is the best and which the last is read from
their ``config.json``, never from their names.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from dpcdvae.errors import InputError, unknown_name

FORMAT = 1
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
TRAINING_TENSORS = "training.safetensors"
TRAINING = "training.json"
CARD = "card.json"
CHECKPOINTS = "checkpoints"
LAST = "last"
PICKLE_SUFFIXES = {".ckpt", ".pt", ".pth", ".pkl", ".bin"}

BUNDLED = Path(__file__).parent / "models"


def bundled_models() -> list[str]:
    """Names of the models that come with this package."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{CONFIG}"))


def resolve_model(model: str | Path) -> Path:
    """The checkpoint folder that a bundled name, a run folder (its best) or a checkpoint folder stands for.

    A bundled name wins over a folder of the same name: write ``./name`` for the folder.

    Raises:
        InputError: no such name or folder, a folder without a checkpoint, or a file (a pickle is refused).
    """
    if isinstance(model, str) and model in bundled_models():
        return BUNDLED / model
    path = Path(model)
    if path.is_dir():
        if (path / CONFIG).is_file():
            return path
        if (path / CHECKPOINTS).is_dir():
            return best_checkpoint(path)
        for file in sorted(path.iterdir()):
            if file.suffix in PICKLE_SUFFIXES:
                raise pickle_refused(file)
        raise InputError(f"{path} is no model: neither {CONFIG} (a checkpoint) nor {CHECKPOINTS}/ (a run) is in it")
    if path.exists():
        if path.suffix in PICKLE_SUFFIXES or is_pickle(path):
            raise pickle_refused(path)
        raise InputError(f"{path} is a file: give the checkpoint folder, the one that holds {WEIGHTS} and {CONFIG}")
    if path.name != str(model):
        raise InputError(f"no such folder: {path}; give a bundled model, a run folder or a checkpoint folder")
    if not bundled_models():
        raise InputError(f"no model '{model}': give a run folder or a checkpoint folder")
    raise InputError(f"{unknown_name('model', str(model), bundled_models())}, or give a run or checkpoint folder")


def best_checkpoint(run: str | Path) -> Path:
    """The checkpoint of a run with the lowest ``val_loss`` among its facts; without any, the last one.

    Raises:
        InputError: the run holds no checkpoint, or a ``config.json`` that cannot be read.
    """
    folders = _checkpoints(Path(run))
    best = min(folders, key=lambda folder: (_val_loss(folder), -_step(folder), folder.name))
    return best if math.isfinite(_val_loss(best)) else max(folders, key=_step)


def last_checkpoint(run: str | Path) -> Path:
    """The checkpoint from which a run goes on: the one of the highest ``global_step`` with training state.

    Raises:
        InputError: no checkpoint of the run has training state, or a ``config.json`` cannot be read.
    """
    run = Path(run)
    folders = [folder for folder in _checkpoints(run) if (folder / TRAINING).is_file()]
    if not (run / CHECKPOINTS / LAST).is_dir():
        # A kill between the two renames that replace `last` leaves it only under its temporary names.
        folders += _interrupted_swap(run / CHECKPOINTS)
    if not folders:
        raise InputError(f"{run} cannot be resumed: its checkpoints hold no training state; start a new run")
    return max(folders, key=lambda folder: (_step(folder), folder.name == LAST))


def read_description(folder: str | Path) -> dict[str, Any]:
    """``config.json`` of a checkpoint: format, dpcdvae (version), config, facts, sha256 (of the weights).

    Raises:
        InputError: missing, cut off, not a checkpoint's, or of a newer format.
    """
    path = Path(folder) / CONFIG
    description = read_json(path)
    if not isinstance(description.get("format"), int):
        raise InputError(f"{path} is not that of a dpcdvae checkpoint: it states no format")
    if description["format"] > FORMAT:
        version = description.get("dpcdvae", "unknown")
        raise InputError(
            f"{path} has format {description['format']}, written by a newer dpcdvae ({version}): upgrade dpcdvae "
            f"(this one reads up to format {FORMAT})"
        )
    for key, kind in (("config", dict), ("facts", dict), ("sha256", str)):
        if not isinstance(description.get(key), kind):
            raise InputError(f"{path} is damaged: it has no '{key}'; copy the checkpoint again")
    return description


def read_card(model: str | Path) -> dict[str, Any]:
    """The model card of a bundled name, run folder or checkpoint folder.

    Raises:
        InputError: no such model, or it has no card.
    """
    folder = resolve_model(model)
    if not (folder / CARD).is_file():
        raise InputError(f"{folder} has no {CARD}: its training-set statistics are unknown")
    return read_json(folder / CARD)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; InputError where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"no checkpoint in {path.parent}: {path.name} is missing") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not JSON: it is no text") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON or cut off ({error}): copy the checkpoint again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is not that of a checkpoint: it holds no JSON object")
    return value


def is_pickle(path: Path) -> bool:
    """True for a file that begins like a pickle (protocol 2 or later) or like torch.save's zip."""
    try:
        with path.open("rb") as stream:
            head = stream.read(9)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    # A safetensors file may begin with 0x80 too: its header length, 8 bytes, then a brace.
    return head[:4] == b"PK\x03\x04" or (head[:1] == b"\x80" and head[8:9] != b"{")


def pickle_refused(path: Path) -> InputError:
    return InputError(f"{path} is a pickle: refused, dpcdvae loads only safetensors, as a pickle can run any code")


def _checkpoints(run: Path) -> list[Path]:
    folders = sorted(path.parent for path in (run / CHECKPOINTS).glob(f"*/{CONFIG}") if path.parent.name[0] != ".")
    if not folders:
        raise InputError(f"no checkpoint in {run / CHECKPOINTS}: the run has not finished an epoch")
    return folders


def _interrupted_swap(folder: Path) -> list[Path]:
    found = []
    for path in sorted(folder.glob(f".{LAST}.*")):
        try:
            read_description(path)
        except InputError:
            continue  # config.json is written last: this one was never complete
        if (path / TRAINING).is_file():
            found.append(path)
    return found


def _val_loss(folder: Path) -> float:
    value = read_description(folder)["facts"].get("val_loss")
    return float(value) if isinstance(value, int | float) else math.inf


def _step(folder: Path) -> int:
    return int(read_description(folder)["facts"].get("global_step", 0))
