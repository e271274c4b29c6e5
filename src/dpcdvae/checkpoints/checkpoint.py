"""Checkpoints: safetensors and JSON in a folder, written by a rename, loaded without running any code from it.

The layout is described in :mod:`dpcdvae.model_store`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from dpcdvae import __version__, model_store, pickles
from dpcdvae.checkpoints.tensor_json import compact, join, split
from dpcdvae.errors import InputError, one_line
from dpcdvae.files import atomic_output, refuse_device
from dpcdvae.model_store import CONFIG, FORMAT, TRAINING, TRAINING_TENSORS, WEIGHTS, StoredModel

PRIOR = "prior."  # names of the weights of a model's prior begin so


@dataclass(frozen=True)
class Checkpoint:
    """weights: by the bare model's parameter and buffer names, on the CPU; config: as ``Config.to_dict`` gives it."""

    weights: dict[str, Tensor]
    config: dict[str, Any]
    facts: dict[str, Any]
    source: StoredModel


def write_checkpoint(
    folder: str | Path,
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
    training: Mapping[str, Any] | None = None,
) -> None:
    """Writes a checkpoint folder; an old one in its place survives any exception on the way.

    Args:
        weights: the weights to use, named as the bare model names them.
        config: what the model is built from.
        facts: about the training; ``criterion`` and ``global_step`` decide which is the best and the last of a run.
        training: all that is needed to go on: any nesting that :func:`dpcdvae.checkpoints.tensor_json.split` takes.

    Raises:
        TypeError: a value that cannot be stored, with its path.
        InputError: the folder cannot be written.
    """
    description = {
        "format": FORMAT,
        "dpcdvae": __version__,
        "config": _without_tensors(config, "config"),
        "facts": _without_tensors(facts, "facts"),
    }
    tensors = {name: compact(tensor, f"weights.{name}") for name, tensor in weights.items()}
    state, state_tensors = split(training, "training")
    with atomic_output(folder) as temporary:
        temporary.mkdir()
        if training is not None:
            digest = _write_tensors(temporary / TRAINING_TENSORS, state_tensors)
            _write_json(temporary / TRAINING, {"format": FORMAT, "state": state, "sha256": digest})
        description["sha256"] = _write_tensors(temporary / WEIGHTS, tensors)
        _write_json(temporary / CONFIG, description)  # the last: a folder that has it is complete


def read_checkpoint(model: str | Path | StoredModel) -> Checkpoint:
    """The weights, configuration and facts of a checkpoint folder, or of a model that was looked up before.

    Raises:
        InputError: missing, damaged or mixed-up files, a newer format, a pickle in the place of the weights.
    """
    source = model if isinstance(model, StoredModel) else model_store.stored_in(_existing(model))
    return Checkpoint(
        weights=_read_tensors(source.folder / WEIGHTS, source.sha256, CONFIG),
        config=_join(source.description["config"], {}, source.where),
        facts=_join(source.description["facts"], {}, source.where),
        source=source,
    )


def read_training(folder: str | Path) -> dict[str, Any]:
    """The training state of a checkpoint folder, as it was given to :func:`write_checkpoint`.

    Raises:
        InputError: as for :func:`read_checkpoint`, or the checkpoint holds weights only.
    """
    folder = _existing(folder)
    model_store.read_description(folder)  # refuses a newer format
    if not (folder / TRAINING).exists():
        raise InputError(f"{folder} holds weights only, no training state: training cannot go on from it")
    document = model_store.read_json(folder / TRAINING)
    tensors = _read_tensors(folder / TRAINING_TENSORS, document.get("sha256", ""), TRAINING)
    return _join(document.get("state"), tensors, str(folder / TRAINING))


def load_weights(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Copies the weights into a module built from the same configuration, in the precision of the module.

    Raises:
        InputError: missing, unexpected or misshapen tensors, with the first of their names.
    """
    check_shapes(module, checkpoint)
    module.load_state_dict(checkpoint.weights)


def check_shapes(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Raises InputError as :func:`load_weights`; reads no number of either."""
    shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.weights.items()}
    own = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    different = [(name, shape) for name, shape in shapes.items() if own.get(name, shape) != shape]
    problems = [
        ("missing", sorted(own.keys() - shapes.keys())),
        ("unexpected", sorted(shapes.keys() - own.keys())),
        ("misshapen", [f"{name} {shape} instead of {own[name]}" for name, shape in different]),
    ]
    if found := [f"{len(names)} {kind} ({_first(names)})" for kind, names in problems if names]:
        raise InputError(
            f"{checkpoint.source.folder / WEIGHTS} does not fit the model that its {CONFIG} describes: "
            f"{'; '.join(found)} tensors; use the dpcdvae that wrote it or train again"
        )


def _without_tensors(value: Mapping[str, Any], name: str) -> Any:
    encoded, tensors = split(value, name)
    if tensors:
        raise TypeError(f"{next(iter(tensors))}: a tensor has no place in {CONFIG}; give a number")
    return encoded


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> str:
    """Writes a safetensors file; returns its hash."""
    content = safetensors.torch.save(tensors)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _read_tensors(path: Path, digest: str, stated_in: str) -> dict[str, Tensor]:
    with _readable(path):
        content = path.read_bytes()
        tensors = safetensors.torch.load(content)
    if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"{path} is damaged or of another checkpoint: its hash is not the one in {stated_in}")
    return tensors


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Around reading a safetensors file: whatever is wrong with it becomes an InputError."""
    try:
        refuse_device(path)
        if pickles.is_pickle(path):
            raise pickles.pickle_refused(path)
        yield
    except FileNotFoundError:
        raise InputError(f"{path.parent} is not a whole checkpoint: {path.name} is missing; copy it again") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except (SafetensorError, KeyError) as error:  # KeyError: a dtype that this safetensors does not know
        raise InputError(f"{path} is cut off or no safetensors file ({error}): copy the checkpoint again") from None


def _join(value: Any, tensors: Mapping[str, Tensor], path: str) -> dict[str, Any]:
    try:
        joined = join(value, tensors)
    except (AttributeError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"{path} is damaged or of another checkpoint ({one_line(error)}): copy the checkpoint again"
        ) from None
    if not isinstance(joined, dict):
        raise InputError(f"{path} is damaged: it holds no state; copy the checkpoint again")
    return joined


def _existing(folder: str | Path) -> Path:
    folder = Path(folder)
    if not folder.exists():
        raise InputError(f"no such checkpoint folder: {folder}")
    if not folder.is_dir():
        model_store.find_model(folder)  # says why a file is none
    return folder


def _first(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
