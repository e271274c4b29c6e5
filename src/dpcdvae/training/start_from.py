"""A model that starts from the weights of another: what fits is taken, what is too small grows, the rest is new.

What depends on the training set is fitted to the new one: the scalers, and the outputs of the decoders of number of
atoms, lattice and composition. A model of crystals of five atoms is so sure of the five that its decoder would need
hundreds of steps to give another number the probability that it has among the new crystals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dpcdvae.checkpoints.checkpoint import PRIOR, Checkpoint
from dpcdvae.config import AnyConfig, Config, config_from_dict
from dpcdvae.config.describe import option_rows, written
from dpcdvae.errors import InputError
from dpcdvae.interfaces import Trainable
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.sampling.encoding import encoded
from dpcdvae.structures.table import CrystalTable
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.training.loader import targets_of

# Sections that do not change what the weights mean.
OF_TRAINING = ("train", "loss", "prior")
OF_DATA = ("model.max_atoms", "model.property")  # what a start may have otherwise
OF_SAMPLING = tuple(f"diffusion.{name}" for name in ("sampling_steps", "sampling_candidates", "type_count_weight"))
OF_SAMPLING += ("diffusion.options.reverse_rule",)
GROWING = ("encoder.mixer.", "stats.", "property_head.")  # perceptrons whose hidden layers may become wider
MOST_NAMED = 4


@torch.no_grad()
def start_from(model: Trainable, start: Checkpoint, table: CrystalTable) -> list[str]:
    """Copies the weights of ``start`` into ``model``, and fits scalers and outputs to the new training set ``table``.

    Taken is every tensor of the same name and shape. A table with a row for each number of atoms, from 0 to
    ``model.max_atoms``, keeps the rows that both have. Encoders that ``model`` has after those of ``start`` are new.
    What mixes them, and the decoders, may be wider: they give what they gave until they are trained or fitted.
    The prior stays that of ``model``, as it belongs to the latents of other crystals, and so do what holds the training
    set (``Trainable.of_training_set``) and what belongs to the property (``Trainable.of_property``) where it is another
    one.

    The outputs stay where the scalers do: the training set is that of ``start`` then.

    Returns:
        Lines for people: what was taken, what is new, what was fitted, which options differ.

    Raises:
        InputError: a model of another kind, or of other widths or components.
    """
    theirs, name = _config_of(start, model.config), start.source.name
    learnt, sizes = theirs.model.property, (theirs.model.max_atoms, model.config.model.max_atoms)
    encoders = tuple(f"encoder.parts.{name}." for name in _added_encoders(theirs, model.config))
    property_parts = model.of_property if learnt != model.target else ()

    def is_new(tensor: str) -> bool:
        return tensor.startswith((PRIOR, *encoders, *property_parts, *model.of_training_set))

    own = {tensor: value for tensor, value in model.state_dict().items() if not is_new(tensor)}
    given = {tensor: value for tensor, value in start.weights.items() if not is_new(tensor)}
    shared = [tensor for tensor in own if tensor in given and own[tensor].shape != given[tensor].shape]
    resized = [tensor for tensor in shared if _takes(tensor, given[tensor], own[tensor], sizes)]
    by_size = [tensor for tensor in resized if _by_size(given[tensor], own[tensor], sizes)]
    wider = [tensor for tensor in resized if tensor not in by_size]
    differing = _differing_options(theirs, model.config)
    if misfits := _misfits(own, given, resized):
        if sizes[0] != sizes[1]:
            differing = [f"model.max_atoms ({sizes[0]} there, {sizes[1]} here)", *differing]
        more = f", and {len(misfits) - 1} more" if len(misfits) > 1 else ""
        options = f"; options that differ: {_listed(differing)}" if differing else ""
        raise InputError(
            f"--init {name}: its weights do not fit this model: {misfits[0]}{more}{options}: "
            "choose the preset and the options that it was trained with"
        )
    for tensor, value in own.items():
        _copy_common(value, given[tensor])

    counted = [tensor for tensor in model.state_dict() if not tensor.startswith(PRIOR)]
    parts = [f"started from {name}: {len(own) - len(resized)} of {len(counted)} tensors"]
    if wider:
        parts.append(f"wider: {_modules(wider)}")
    if by_size:
        word = "grown" if sizes[1] > sizes[0] else "cut"
        parts.append(f"{word} from {sizes[0]} to {sizes[1]} atoms: {_modules(by_size)}")
    if of_these := [tensor for tensor in counted if tensor.startswith(model.of_training_set)]:
        parts.append(f"taken from these crystals: {_modules(of_these)}")
    if fresh := [tensor for tensor in counted if tensor not in own and tensor not in of_these]:
        parts.append(f"new: {_modules(fresh)}")
    if dropped := [t for t in start.weights if is_new(t) and not t.startswith(PRIOR) and t not in counted]:
        parts.append(f"left out: {_modules(dropped)}")
    if refitted := [tensor for tensor in _fit(model, table) if tensor in own]:
        if isinstance(model, CDVAE):
            model.stats.fit_outputs(encoded(model, table).mu, CrystalBatch.from_table(table))
            refitted += [f"stats.{head}.last" for head in ("num_atoms", "lattice", "composition")]
        parts.append(f"fitted to these crystals: {_modules(refitted)}")
    lines = ["; ".join(parts)]
    if differing:
        lines.append(f"options that differ from those of {name}: {_listed(differing)}")
    return lines


def _config_of(start: Checkpoint, config: AnyConfig) -> AnyConfig:
    """The configuration of the start; raises InputError where it is another kind of model than ``config``."""
    theirs = config_from_dict(start.source.description["config"], where=start.source.where)
    if theirs.kind != config.kind:
        preset = start.facts.get("preset")
        trained = f" (trained with --preset {preset})" if isinstance(preset, str) else ""
        raise InputError(
            f"--init {start.source.name} is a model of the kind '{theirs.kind}'{trained}, and the preset describes one "
            f"of the kind '{config.kind}': start from a model of that kind, or choose another preset"
        )
    return theirs


def _added_encoders(theirs: AnyConfig, ours: AnyConfig) -> list[str]:
    """The encoders that ours has after theirs; none where theirs are not the first of ours, or have no mixer."""
    if not isinstance(theirs, Config) or not isinstance(ours, Config):
        return []
    there, here = theirs.encoder.names, ours.encoder.names
    return list(here[len(there) :]) if len(there) > 1 and here[: len(there)] == there else []


def _copy_common(value: Tensor, given: Tensor) -> None:
    """Copies the rows and columns that both have. Inputs that are new have no weight in outputs that are not."""
    common = tuple(slice(min(pair)) for pair in zip(value.shape, given.shape, strict=True))
    if value.ndim > 1:
        value[common[0], common[1].stop :] = 0
    value[common].copy_(given[common])


def _misfits(own: Mapping[str, Tensor], given: Mapping[str, Tensor], resized: Sequence[str]) -> list[str]:
    """What is wrong with each tensor that cannot be taken."""
    shapes = [
        f"{name} is {_shape(given[name])} there and {_shape(own[name])} here"
        for name in own
        if name in given and given[name].shape != own[name].shape and name not in resized
    ]
    missing = [f"{name} is not in it" for name in own if name not in given]
    return [*shapes, *missing, *(f"{name} has no place here" for name in given if name not in own)]


def _takes(tensor: str, theirs: Tensor, ours: Tensor, sizes: tuple[int, int]) -> bool:
    """Whether ours can take theirs: axis by axis as long, longer in a perceptron that may be, or of the other size."""
    if theirs.ndim != ours.ndim or ours.ndim not in (1, 2):
        return False
    may_grow = tensor.startswith(GROWING)
    fits = [there == here or (may_grow and there < here) for there, here in zip(theirs.shape, ours.shape, strict=True)]
    return (fits[0] or _by_size(theirs, ours, sizes)) and all(fits[1:])


def _by_size(theirs: Tensor, ours: Tensor, sizes: tuple[int, int]) -> bool:
    """Whether both have a row for each number of atoms, and one more of them."""
    return sizes[0] != sizes[1] and (len(theirs), len(ours)) == (sizes[0] + 1, sizes[1] + 1)


def _fit(model: Trainable, table: CrystalTable) -> list[str]:
    """Fits the scalers to the training set; returns the names of the tensors that this changed."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.measure(CrystalBatch.from_table(table), targets_of(table, model.target))
    return [name for name, value in model.named_buffers() if not torch.allclose(value, before[name], rtol=1e-4)]


def _modules(tensors: list[str]) -> str:
    """The modules that tensors belong to, each once; the name of a tensor that belongs to the model itself."""
    return ", ".join(dict.fromkeys(name.rpartition(".")[0] or name for name in tensors))


def _differing_options(theirs: AnyConfig, ours: AnyConfig) -> list[str]:
    """Options that change what the weights mean, with both values."""
    here = {row.name: row.value for row in option_rows(ours)}
    return [
        f"{row.name} ({written(row.value)} there, {written(here[row.name]) if row.name in here else 'none'} here)"
        for row in option_rows(theirs)
        if row.name.partition(".")[0] not in OF_TRAINING and row.name not in (*OF_DATA, *OF_SAMPLING)
        if row.name not in here or here[row.name] != row.value
    ]


def _listed(options: list[str]) -> str:
    more = f" and {len(options) - MOST_NAMED} more" if len(options) > MOST_NAMED else ""
    return ", ".join(options[:MOST_NAMED]) + more


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"
