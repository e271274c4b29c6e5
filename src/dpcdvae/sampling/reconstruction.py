"""Reconstruction with every kind of model that has an encoder: which crystals it can, and what comes back of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dpcdvae.arguments import checked
from dpcdvae.datasets.preparation import bonded_table
from dpcdvae.errors import InputError
from dpcdvae.io import Failure
from dpcdvae.sampling.decoding_settings import check_counts, check_some
from dpcdvae.sampling.kinds import module_of, sampled_kind, taken_options
from dpcdvae.sampling.shards import BATCH_SIZE
from dpcdvae.sampling.training_range import Subject

if TYPE_CHECKING:
    from dpcdvae.config import AnyConfig
    from dpcdvae.interfaces import Trainable
    from dpcdvae.io import CrystalsLike
    from dpcdvae.sampling.finished_batches import GenerationResult
    from dpcdvae.structures.table import CrystalTable


@checked
def reconstruct(
    model: Trainable,
    crystals: CrystalTable | CrystalsLike,
    *,
    seed: int = 0,
    first: int = 0,
    batch_size: int = BATCH_SIZE,
    on_progress: Callable[[float], None] | None = None,
    **options: Any,
) -> GenerationResult:
    """Crystals encoded and decoded again, under their own ids. Those that the model cannot hold are failures.

    A note on standard error says of which elements and sizes it has seen none in training.

    Example:
        >>> again = dpcdvae.reconstruct(dpcdvae.load_model("perov-5"), "SrTiO3.cif", steps=20)

    Args:
        crystals: a table with bonds (a split of a data set), or anything that :func:`~dpcdvae.io.as_crystals` takes,
            whose bonds are found.
        first: number of the first crystal, by which it gets its noise, where these are a part of others.
        options: of a crystal VAE those of :func:`dpcdvae.sampling.generation.reconstruct`: ``steps``, ``solver``,
            ``candidates``, ``force_num_atoms``, ``force_types``, ``sample_latent``.
        model: as of :func:`~dpcdvae.sampling.kinds.generate`, like ``batch_size`` and ``on_progress``.

    Raises:
        InputError: a model without encoder, no crystal that it can hold, and as
            :func:`~dpcdvae.sampling.kinds.generate`.
    """
    check_counts(seed=seed, first=first, batch_size=batch_size)
    taken = taken_options(sampled_kind(model.config.kind, "the model"), "reconstruct", options, "the model")
    table, failures = bonded_table(crystals)
    if not len(table) and failures:
        raise InputError(f"none of {len(failures)} crystals can be reconstructed: {failures[0]}")
    table, too_large = reconstructible(model.config, table, taken, Subject.loaded(model))
    shared = {"seed": seed, "first": first, "batch_size": batch_size, "on_progress": on_progress}
    result = encode_and_decode(model, table, **shared, **taken)
    return replace(result, failures=[*failures, *too_large, *result.failures])


def encode_and_decode(model: Trainable, table: CrystalTable, **options: Any) -> GenerationResult:
    """:func:`reconstruct` of crystals that are all :func:`reconstructible`, with options that are checked."""
    result: GenerationResult = module_of(sampled_kind(model.config.kind, "the model")).reconstruct(
        model, table, **options
    )
    return result


def reconstructible(
    config: AnyConfig, table: CrystalTable, options: Mapping[str, Any], subject: Subject
) -> tuple[CrystalTable, list[Failure]]:
    """The crystals that a model of ``config`` can reconstruct with these options, and why it cannot the others.

    Raises:
        InputError: no crystals, or none that it can.
    """
    check_some(table)
    wrong = misfits(config, table, options)
    if len(wrong) == len(table):
        largest = next(iter(wrong))
        raise InputError(f"none of {len(table)} crystals can be reconstructed: {table.ids[largest]} {wrong[largest]}")
    failures = [Failure(str(table.ids[row]), "reconstructing", f"it {wrong[row]}") for row in sorted(wrong)]
    if failures:
        table = table.select(np.setdiff1d(np.arange(len(table)), list(wrong)))
    subject.tell_unseen(table)
    return table, failures


def misfits(config: AnyConfig, table: CrystalTable, options: Mapping[str, Any]) -> dict[int, str]:
    """What of the crystals (by row) a model of ``config`` cannot encode, the largest first: "has 9 atoms; ..."."""
    found: dict[int, str] = module_of(sampled_kind(config.kind, "the model")).misfits(config, table, options)
    return found
