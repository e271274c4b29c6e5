"""Networks from configurations and from checkpoints, of every kind of model."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dpcdvae import model_store
from dpcdvae.arguments import checked
from dpcdvae.checkpoints.checkpoint import Checkpoint, check_shapes, load_weights, read_checkpoint
from dpcdvae.config import AnyConfig, config_from_dict
from dpcdvae.errors import InputError, reason_of
from dpcdvae.interfaces import Trainable
from dpcdvae.model_store import WEIGHTS, StoredModel

if TYPE_CHECKING:
    from dpcdvae.model.cdvae import CDVAE
    from dpcdvae.model.regressor import PropertyRegressor

NETWORKS = {
    "generative": "model.cdvae:CDVAE",
    "regressor": "model.regressor:PropertyRegressor",
    "ftcp": "ftcp.model:FTCP",
    "placement": "placement.model:PlacementModel",
}
"""Module and class of each kind of model (``config.KINDS``)."""

MAX_PARAMETERS = 250_000_000  # 1 GB in float32; the published models have 4 to 11 million


@checked
def load_model(model: str | Path | StoredModel, device: str | torch.device = "auto") -> Trainable:
    """A trained model that makes crystals: a bundled name, a run folder (its best) or a checkpoint folder.

    Example:
        >>> model = dpcdvae.load_model("perov-5")

    Args:
        device: as PyTorch names it; "auto" takes CUDA where it is, else the CPU.

    Raises:
        InputError: no such model or device, a checkpoint that cannot be used, a model that predicts properties.
    """
    return loaded_model(read_checkpoint(model_store.find_generative_model(model)), device)


def load_crystal_vae(model: str | Path | StoredModel, device: str | torch.device = "auto") -> CDVAE:
    """:func:`load_model`; raises InputError also for a model of another kind than CDVAE and DP-CDVAE."""
    from dpcdvae.model.cdvae import CDVAE

    loaded = load_model(model_store.find_crystal_vae(model), device)
    assert isinstance(loaded, CDVAE)
    return loaded


def load_regressor(model: str | Path | StoredModel, device: str | torch.device = "auto") -> PropertyRegressor:
    """A model that predicts a property of crystals; arguments and errors as :func:`load_model`."""
    from dpcdvae.model.regressor import PropertyRegressor

    loaded = loaded_model(read_checkpoint(model_store.find_property_model(model)), device)
    assert isinstance(loaded, PropertyRegressor)
    return loaded


def build_model(config: AnyConfig) -> Trainable:
    """The untrained model of a configuration of any kind.

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


def build_stored(checkpoint: Checkpoint) -> Trainable:
    """The network that a checkpoint's configuration describes, without its weights.

    The configuration is anybody's: no memory is taken for a network whose tensors are not those of the checkpoint.

    Raises:
        InputError: it describes another network, or none that can be built.
    """
    source = checkpoint.source
    config = config_from_dict(source.description["config"], where=source.where)
    try:
        check_shapes(_without_memory(config), checkpoint)
        network = _network(config)
    except InputError:
        raise
    except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{source.where} describes no model that can be built: {reason_of(error)}") from None
    network.source = source
    return network


def loaded_model(checkpoint: Checkpoint, device: str | torch.device = "auto") -> Trainable:
    """The model of a checkpoint that has been read; raises InputError as :func:`load_model`."""
    module = build_stored(checkpoint)
    load_weights(module, checkpoint)
    module.read_facts(checkpoint.facts, checkpoint.source.where)
    if (problem := module.problem()) is not None:
        raise InputError(f"{checkpoint.source.folder / WEIGHTS} is damaged or no trained model's: {problem}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).item()  # "meta" is a device too, but computes nothing
        return module.to(device).eval()
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(f"--device {device} cannot be used here: choose cpu, cuda (with a GPU) or auto") from None


def _without_memory(config: AnyConfig) -> Trainable:
    """The model of a configuration with tensors that have shapes but no numbers; draws no random numbers."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return _network(config)


def _network(config: AnyConfig) -> Trainable:
    module, _, name = NETWORKS[config.kind].partition(":")
    network: Callable[[AnyConfig], Trainable] = getattr(import_module(f"dpcdvae.{module}"), name)
    return network(config)
