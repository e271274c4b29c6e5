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
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from dpcdvae import __version__, model_store
from dpcdvae.checkpoints.tensor_json import compact, join, split
from dpcdvae.config import AnyConfig, config_from_dict
from dpcdvae.errors import InputError, one_line, reason_of
from dpcdvae.files import atomic_output
from dpcdvae.model.agreement import Agreement
from dpcdvae.model_store import CONFIG, FORMAT, TRAINING, TRAINING_TENSORS, WEIGHTS, StoredModel

if TYPE_CHECKING:
    from dpcdvae.model.cdvae import CDVAE
    from dpcdvae.model.regressor import PropertyRegressor

MAX_PARAMETERS = 250_000_000  # 1 GB in float32; the published models have 4 to 11 million
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
        facts: about the training; ``val_loss`` and ``global_step`` decide which is the best and the last of a run.
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
    _check_shapes(module, checkpoint)
    module.load_state_dict(checkpoint.weights)


def load_model(model: str | Path | StoredModel, device: str | torch.device = "auto") -> CDVAE:
    """A trained generative model, ready for sampling: a bundled name, a run folder (its best) or a checkpoint folder.

    Args:
        device: as PyTorch names it; "auto" takes CUDA where it is, else the CPU.

    Raises:
        InputError: no such model or device, a checkpoint that cannot be used, a model that predicts properties.
    """
    from dpcdvae.model.cdvae import CDVAE

    loaded = loaded_model(read_checkpoint(model_store.find_generative_model(model)), device)
    assert isinstance(loaded, CDVAE)
    return loaded


def load_regressor(model: str | Path | StoredModel, device: str | torch.device = "auto") -> PropertyRegressor:
    """A model that predicts a property of crystals; arguments and errors as :func:`load_model`."""
    from dpcdvae.model.regressor import PropertyRegressor

    loaded = loaded_model(read_checkpoint(model_store.find_property_model(model)), device)
    assert isinstance(loaded, PropertyRegressor)
    return loaded


def build_model(config: AnyConfig) -> CDVAE | PropertyRegressor:
    """The untrained model of a configuration of either kind.

    Raises:
        InputError: it has more than ``MAX_PARAMETERS``: each width has a bound, but their products have none.
    """
    count = sum(parameter.numel() for parameter in _without_memory(config).parameters())
    if count > MAX_PARAMETERS:
        raise InputError(
            f"the configuration describes a model of {count / 1e6:,.0f} million parameters, more than "
            f"{MAX_PARAMETERS / 1e6:.0f} million: choose smaller widths or fewer layers"
        )
    return _network(config)


def build_stored(checkpoint: Checkpoint) -> CDVAE | PropertyRegressor:
    """The network that a checkpoint's configuration describes, without its weights.

    The configuration is anybody's: no memory is taken for a network whose tensors are not those of the checkpoint.

    Raises:
        InputError: it describes another network, or none that can be built.
    """
    source = checkpoint.source
    config = config_from_dict(source.description["config"], where=source.where)
    try:
        _check_shapes(_without_memory(config), checkpoint)
        network = _network(config)
    except InputError:
        raise
    except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{source.where} describes no model that can be built: {reason_of(error)}") from None
    network.source = source
    return network


def _without_memory(config: AnyConfig) -> CDVAE | PropertyRegressor:
    """The model of a configuration with tensors that have shapes but no numbers; draws no random numbers."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return _network(config)


def _network(config: AnyConfig) -> CDVAE | PropertyRegressor:
    from dpcdvae.config import Config, RegressorConfig
    from dpcdvae.model.cdvae import CDVAE
    from dpcdvae.model.regressor import PropertyRegressor

    if isinstance(config, RegressorConfig):
        return PropertyRegressor(config)
    assert isinstance(config, Config)
    return CDVAE(config)


def loaded_model(checkpoint: Checkpoint, device: str | torch.device = "auto") -> CDVAE | PropertyRegressor:
    """The model of a checkpoint that has been read; raises InputError as :func:`load_model`."""
    from dpcdvae.model.cdvae import CDVAE

    module = build_stored(checkpoint)
    module.load_state_dict(checkpoint.weights)
    if isinstance(module, CDVAE):
        module.agreement = Agreement.of_checkpoint(checkpoint.facts, checkpoint.source.where)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).item()  # "meta" is a device too, but computes nothing
        return module.to(device).eval()
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(f"--device {device} cannot be used here: choose cpu, cuda (with a GPU) or auto") from None


def _check_shapes(module: nn.Module, checkpoint: Checkpoint) -> None:
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
        model_store.check_regular(path)
        if model_store.is_pickle(path):
            raise model_store.pickle_refused(path)
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
