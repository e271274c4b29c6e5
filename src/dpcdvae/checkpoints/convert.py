"""CDVAE's published property models (Xie et al. 2022) as checkpoints of this package.

Such a model is a folder with a Lightning checkpoint, ``hparams.yaml`` and ``prop_scaler.pt``: a DimeNet++ that
predicts one standardised property of a crystal. No code from these files is run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from dpcdvae.checkpoints.checkpoint import write_checkpoint
from dpcdvae.checkpoints.public_dimenet import EMBEDDING, PREFIX, convert_encoder
from dpcdvae.config import RegressorConfig
from dpcdvae.errors import InputError, one_line
from dpcdvae.files import read_whole, refuse_device, sha256
from dpcdvae.io.torch_files import Inert, holds_its_numbers, load_torch
from dpcdvae.structures.elements import NUM_ELEMENTS

SCALER, HPARAMS = "prop_scaler.pt", "hparams.yaml"
MAX_SETTINGS, MAX_BRACKETS = 10**6, 1000  # PyYAML takes the square of the depth


@dataclass(frozen=True)
class PropertyModel:
    """A published property model in our terms.

    Attributes:
        property: the column it predicts; options: of our DimeNet++; encoder: its state dict.
        mean, std: of the property in the training set.
        known_elements: (NUM_ELEMENTS + 1,) True for the atomic numbers that it was trained on.
        facts: file name and hash of the checkpoint, and how far it was trained.
    """

    property: str
    options: dict[str, Any]
    encoder: dict[str, Tensor]
    mean: float
    std: float
    known_elements: Tensor
    facts: dict[str, Any]


def convert_property_model(source: str | Path, out: str | Path, property: str | None = None) -> Path:
    """Writes a published property model as a checkpoint folder; returns the folder.

    Args: as for :func:`read_property_model`; ``out`` is the folder to write.

    Raises:
        InputError: as :func:`read_property_model` does, or ``out`` cannot be written.
    """
    model = read_property_model(source, property)
    values = {
        "model": {"property": model.property},
        "encoder": {"names": ["dimenet++"], "options": {"dimenet++": model.options}},
    }
    weights = {PREFIX + name: tensor for name, tensor in model.encoder.items()}
    weights |= {"scaler.mean": torch.tensor(model.mean), "scaler.std": torch.tensor(model.std)}
    weights["known_elements"] = model.known_elements
    write_checkpoint(out, weights, RegressorConfig.from_dict(values).to_dict(), model.facts)
    return Path(out)


def read_property_model(source: str | Path, property: str | None = None) -> PropertyModel:
    """Reads a published property model without running any code from it.

    Args:
        source: the folder of the model, or the .ckpt file in it.
        property: the column it predicts; without it, what ``hparams.yaml`` says.

    Raises:
        InputError: a file that is missing, damaged or ambiguous, a model of another kind, or no name of the property.
    """
    path = _checkpoint_file(Path(source))
    settings = _Settings(path.with_name(HPARAMS))
    property = property or settings.get("data", "prop")
    if not isinstance(property, str) or not property:
        raise InputError(f"no {HPARAMS} beside {path} that names the property: add --property, such as heat_ref")
    for place, wanted in (("readout", "mean"), ("otf_graph", False)):
        if settings.get("model", "encoder", place) not in (None, wanted):
            raise InputError(f"{settings.path}: {place} is not {wanted}: this variant of the model is not supported")
    mean, std = _read_scaler(path.with_name(SCALER))
    content = _read_torch(path)
    state = _state_dict(content, path)
    options, encoder = convert_encoder({k.removeprefix(PREFIX): v for k, v in state.items()}, str(path))
    for name in ("cutoff", "envelope_exponent"):
        options[name] = settings.number(name, options[name])
    facts = {"converted_from": "CDVAE", "source": path.name, "source_sha256": sha256(path), "property": property}
    facts |= {key: content[key] for key in ("epoch", "global_step") if isinstance(content.get(key), int)}
    return PropertyModel(property, options, encoder, mean, std, _known_elements(content, state), facts)


def _checkpoint_file(source: Path) -> Path:
    if source.is_file():
        return source
    if not source.is_dir():
        raise InputError(f"no such folder or file: {source}")
    files = sorted(source.glob("*.ckpt"))
    if not files:
        raise InputError(f"{source} holds no .ckpt file: give the folder of a published property model")
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise InputError(f"{source} holds {len(files)} .ckpt files ({names}): give the path of the one to convert")
    return files[0]


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise InputError(f"{path} is no Lightning checkpoint: it holds no state_dict of tensors")
    if claims := next((name for name, tensor in state.items() if not holds_its_numbers(tensor)), None):
        raise InputError(f"{path} is damaged: {claims} claims more numbers than the file holds")
    if others := sorted({name.partition(".")[0] for name in state} - {"encoder"}):
        kind = "a generative CDVAE" if "decoder" in others else "another kind of model"
        raise InputError(f"{path} is {kind} (it has {', '.join(others[:4])}): a property model has an encoder alone")
    return state


def _read_torch(path: Path) -> Any:
    refuse_device(path)
    try:
        with path.open("rb") as stream:
            return load_torch(stream)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _read_scaler(path: Path) -> tuple[float, float]:
    if not path.is_file():
        raise InputError(f"{path} is missing: copy the scaler of the property beside the checkpoint")
    content = _read_torch(path)
    state = content.state if isinstance(content, Inert) else content
    values = [state.get(name) for name in ("means", "stds")] if isinstance(state, dict) else []
    numbers = [float(v) for v in values if isinstance(v, Tensor | float | int) and torch.as_tensor(v).numel() == 1]
    if len(numbers) != 2:
        raise InputError(f"{path} is no scaler of one property: it needs means and stds of one number each")
    mean, std = numbers
    if not (abs(mean) < float("inf") and 0 < std < float("inf")):
        raise InputError(f"{path} holds the mean {mean} and the spread {std}: download it again")
    return mean, std


def _known_elements(content: Mapping[str, Any], state: Mapping[str, Tensor]) -> Tensor:
    """Elements whose row of the embedding ever got a gradient, by Adam's second moments; without these, all."""
    rows, name = state[PREFIX + EMBEDDING].shape[0], PREFIX + EMBEDDING
    trained = torch.ones(rows, dtype=torch.bool)
    optimizers = content.get("optimizer_states")
    if isinstance(optimizers, list) and optimizers and isinstance(optimizers[0], dict):
        moments = optimizers[0].get("state")
        # The model has no buffers: Adam's numbers of the parameters are places in the state dict.
        own = moments.get(list(state).index(name)) if isinstance(moments, dict) else None
        second = own.get("exp_avg_sq") if isinstance(own, dict) else None
        if isinstance(second, Tensor) and second.shape == state[name].shape:
            trained = (second > 0).any(1)
    known = torch.zeros(NUM_ELEMENTS + 1, dtype=torch.bool)
    known[1:rows] = trained[1:]
    return known


class _Settings:
    """The settings of a ``hparams.yaml``, as OmegaConf writes it; none where there is no such file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = read_whole(path).decode() if path.exists() else ""
            if len(text) > MAX_SETTINGS or text.count("[") + text.count("{") > MAX_BRACKETS:
                raise InputError(f"cannot read {path}: too long or too deep for a file of settings")
            self.values = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"cannot read {path}: {one_line(error)[:200]}") from None

    def get(self, *place: str) -> Any:
        """The value at a place, or the one that it refers to as ${section.key}; None where there is none."""
        value = self._at(place)
        if isinstance(value, str) and (reference := re.fullmatch(r"\$\{([\w.]+)\}", value)):
            value = self._at(reference[1].split("."))
        return value

    def _at(self, place: Sequence[str]) -> Any:
        value = self.values
        for name in place:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def number(self, name: str, published: float) -> float:
        """A positive number of the encoder, of the type of the published one, which is taken where none is given."""
        value = self.get("model", "encoder", name)
        if value is None:
            return published
        kind = type(published)
        fits = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
        if not fits or not 0 < value < float("inf"):
            raise InputError(f"{self.path}: {name} of the encoder must be a positive {kind.__name__}, not {value!r}")
        return kind(value)
