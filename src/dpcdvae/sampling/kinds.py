"""Sampling of every kind of model: its options, and the functions that make its crystals. Needs no torch by itself."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dpcdvae.arguments import checked, checked_value
from dpcdvae.errors import InputError
from dpcdvae.model_store import StoredModel
from dpcdvae.parallel import HERE
from dpcdvae.parallel.results import Results
from dpcdvae.sampling.atom_conditions import CONDITIONS
from dpcdvae.sampling.decoding_settings import (
    check_counts,
    latent_settings,
    placement_settings,
    vae_settings,
)
from dpcdvae.sampling.filters import check_kept, select, tries_of
from dpcdvae.sampling.generate_options import SHARED_OPTIONS, GenerateOptions, checked_options
from dpcdvae.sampling.shards import BATCH_SIZE, batches_of
from dpcdvae.sampling.training_range import Subject
from dpcdvae.structures.crystal import EVALUATED

if TYPE_CHECKING:
    from dpcdvae.interfaces import Trainable
    from dpcdvae.model.regressor import PropertyRegressor
    from dpcdvae.sampling.finished_batches import GenerationResult


@dataclass(frozen=True)
class SampledKind:
    """How the models of one kind are sampled.

    Attributes:
        what: such a model in words, for messages.
        module: a module of this folder with ``generate`` and, where the kind has an encoder, ``reconstruct`` and
            ``misfits``, with the arguments of those in :mod:`dpcdvae.sampling.generation`.
        generate: the options of ``generate`` beside seed, numbers and batch size, and beside those of every kind
            (:data:`~dpcdvae.sampling.generate_options.SHARED_OPTIONS`). With ``max_latent_distance`` among them its
            crystals carry their latent distance.
        reconstruct: likewise; None where the kind has no encoder.
        settings: (stored model, task, options that were asked for) -> all options of the task, the model's own where
            none was given. Raises InputError for a wrong one.
    """

    what: str
    module: str
    generate: frozenset[str]
    reconstruct: frozenset[str] | None
    settings: Callable[[StoredModel, str, Mapping[str, Any]], dict[str, Any]]


_OPTION_KINDS = {
    **dict.fromkeys(("steps", "candidates", "max_tries"), "int | None"),
    **dict.fromkeys(("spread", "max_latent_distance"), "float | None"),
    **dict.fromkeys(("solver", "prior", "lattice", "target"), "str | None"),
    **dict.fromkeys(("neutral", "unique", "novel", "anyway"), "bool | None"),
    **dict.fromkeys(("force_num_atoms", "force_types", "sample_latent"), "bool | None"),
    "space_group": "int | str | None",
    "property_model": "str | Path | StoredModel | PropertyRegressor | None",
}
"""Of options whose values are of one kind; what conditions take is checked where they are read."""

_DECODING = frozenset({"steps", "solver", "candidates"})

# Not neutral: it may take several crystals, and a film shows one.
FILM_OPTIONS = frozenset({"prior", "like", "spread", "anyway", *CONDITIONS}) - {"neutral"}

SAMPLED_KINDS = {
    "generative": SampledKind(
        "a crystal VAE",
        "generation",
        _DECODING | {"prior", "like", "spread", "target", "max_latent_distance", *CONDITIONS},
        _DECODING | {"force_num_atoms", "force_types", "sample_latent"},
        vae_settings,
    ),
    "ftcp": SampledKind(
        "an FTCP model",
        "ftcp_sampling",
        frozenset({"prior"}),
        frozenset({"sample_latent"}),
        latent_settings,
    ),
    "placement": SampledKind(
        "a model that places atom after atom", "placement_sampling", frozenset({"lattice"}), None, placement_settings
    ),
}


def settings(model: StoredModel, task: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The options of ``task``, "generate" or "reconstruct", for a model that was looked up, before torch is loaded.

    Args:
        asked: options by name; None and False stand for those that were not given.

    Raises:
        InputError: an option that this kind of model does not have, a wrong value, a model without encoder.
    """
    kind = sampled_kind(model.kind, model.name)
    return kind.settings(model, task, taken_options(kind, task, asked, model.name))


def generate_options(model: StoredModel, asked: Mapping[str, Any]) -> GenerateOptions:
    """What is asked of a model that was looked up, before torch is loaded, with the options as :func:`settings`.

    Raises:
        InputError: as :func:`settings` and :func:`dpcdvae.sampling.generate_options.checked_options`.
    """
    kind = sampled_kind(model.kind, model.name)
    taken = taken_options(kind, "generate", asked, model.name, SHARED_OPTIONS)
    found = checked_options(kind.generate, Subject.stored(model), taken, model.name)
    return replace(found, options=kind.settings(model, "generate", found.options))


def film_options(subject: Subject, asked: Mapping[str, Any]) -> GenerateOptions:
    """What is asked of :func:`dpcdvae.sampling.film.film`, checked before torch is loaded.

    Raises:
        InputError: as :func:`generate_options`; an option that a film does not have.
    """
    given = _given(asked)
    for option in given:
        if option not in FILM_OPTIONS:
            raise InputError(
                f"--{option.replace('_', '-')} has no meaning for a film, which shows one crystal: leave it out"
            )
    return checked_options(FILM_OPTIONS, subject, given, "the model")


@checked
def generate(
    model: Trainable,
    n: int,
    *,
    seed: int = 0,
    first: int = 0,
    batch_size: int = BATCH_SIZE,
    on_progress: Callable[[float], None] | None = None,
    **options: Any,
) -> GenerationResult:
    """New crystals number ``first`` .. ``first + n - 1`` of this seed.

    Example:
        >>> crystals = dpcdvae.generate(dpcdvae.load_model("perov-5"), 10, steps=20)

    Args:
        model: from :func:`dpcdvae.load_model`.
        batch_size: crystals at a time. Crystal k gets the same noise whatever it is.
        on_progress: instead of a progress bar, called with how many crystals' worth of work is done.
        options: of a crystal VAE those of :func:`dpcdvae.sampling.generation.generate`: ``steps``, ``solver``,
            ``candidates``, ``prior``, ``num_atoms``, ``formula``, ``elements``, ``chemical_system``, ``neutral``,
            ``like`` (a crystal, a file of one, or ``DATASET/ID``), ``spread``; and ``max_latent_distance``; of a
            placement model ``lattice`` (:func:`dpcdvae.sampling.placement_sampling.generate`).
            Of every kind: ``space_group``, ``unique``, ``novel``, ``training`` (crystals, a file or a data set),
            ``target`` (``"NAME=VALUE±TOL"``), ``property_model``, ``max_tries``, ``anyway`` (``docs/generate.md``).
            With any of these, and with conditions that the model cannot keep in decoding, crystals are made and
            filtered until n are kept or ``max_tries`` were made: then the result is a
            :class:`~dpcdvae.sampling.filters.Selected`.

    Raises:
        InputError: an option that this kind of model does not have, a wrong value, none that the filters keep.
    """
    check_counts(n=n, seed=seed, first=first, batch_size=batch_size)
    kind = sampled_kind(model.config.kind, "the model")
    taken = taken_options(kind, "generate", options, "the model", SHARED_OPTIONS)
    found = checked_options(kind.generate, Subject.loaded(model), taken, "the model")
    property_model = found.property_model
    if isinstance(property_model, StoredModel):
        from dpcdvae.checkpoints.loading import load_regressor

        property_model = load_regressor(property_model, str(model.device))
    shared = {"seed": seed, "on_progress": on_progress, "property_model": property_model, **found.options}
    if not found.filters:
        return make(model, n, first=first, batch_size=batch_size, **shared)
    tries, size = tries_of(n, taken.get("max_tries")), min(batch_size, n)

    def made(batches: Sequence[range]) -> Iterator[GenerationResult]:
        return (make(model, len(some), first=first + some.start, batch_size=size, **shared) for some in batches)

    result = select(found.filters, n, batches_of(tries, size), size, made, Results(HERE, math.inf))
    check_kept(result)
    if len(result.crystals) < n:
        print(result.shortfall(), file=sys.stderr)
    return result


def make(
    model: Trainable,
    n: int,
    *,
    seed: int = 0,
    first: int = 0,
    batch_size: int = BATCH_SIZE,
    on_progress: Callable[[float], None] | None = None,
    property_model: PropertyRegressor | None = None,
    **options: Any,
) -> GenerationResult:
    """:func:`generate` without filters, with the options of :class:`GenerateOptions`.

    Args:
        property_model: crystals carry what it predicts for them, as ``evaluated_`` and the name of the property.
    """
    kind = sampled_kind(model.config.kind, "the model")
    shared = {"seed": seed, "first": first, "batch_size": batch_size, "on_progress": on_progress}
    result: GenerationResult = module_of(kind).generate(model, n, **shared, **options)
    if property_model is None:
        return result
    from dpcdvae.sampling.property_prediction import predict_crystals

    values, _ = predict_crystals(property_model, result.crystals)
    found = zip(result.crystals, values.tolist(), strict=True)
    name = f"{EVALUATED}{property_model.target}"
    crystals = [replace(c, properties={**c.properties, name: v}) if math.isfinite(v) else c for c, v in found]
    return replace(result, crystals=crystals)


def sampled_kind(kind: str, name: str) -> SampledKind:
    """How a kind of model is sampled; raises InputError, with the ``name`` of the model, if it makes no crystals."""
    if kind not in SAMPLED_KINDS:
        raise InputError(f"{name} makes no crystals: give a generative model")
    return SAMPLED_KINDS[kind]


def taken_options(
    kind: SampledKind, task: str, asked: Mapping[str, Any], name: str, more: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """The options that were given; raises InputError for one that is not the kind's nor one ``more``."""
    names: frozenset[str] | None = getattr(kind, task)
    if names is None:
        raise InputError(f"{name} is {kind.what}, which has no encoder: it can generate crystals, but not {task} them")
    given = _given(asked)
    for option in given:
        if option not in names | more:
            raise InputError(f"--{option.replace('_', '-')} has no meaning for {name}, {kind.what}: leave it out")
    return given


def _given(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, of the right types; None and False stand for those that were not."""
    values = {name: checked_value(name, value, _OPTION_KINDS.get(name, "")) for name, value in asked.items()}
    return {option: value for option, value in values.items() if value is not None and value is not False}


def module_of(kind: SampledKind) -> Any:
    return import_module(f"dpcdvae.sampling.{kind.module}")
