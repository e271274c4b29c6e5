"""How many of the crystals are not of the training set."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dpcdvae.evaluation.comparison_notes import bounded, joined
from dpcdvae.evaluation.crystal_columns import column
from dpcdvae.evaluation.metric import metric
from dpcdvae.evaluation.metrics.uniqueness import same_structures
from dpcdvae.evaluation.metrics.validity import valid
from dpcdvae.evaluation.sample import Sample
from dpcdvae.intervals import Number
from dpcdvae.structures.match_search import Found
from dpcdvae.structures.match_sets import match_training


def training_matches(sample: Sample) -> Found | None:
    """For each of ``sample.measurable`` one of the training set that fits it; None without a training set."""
    if sample.training is None or sample.training.crystals is None:
        return None
    training = sample.training.crystals
    found = match_training(sample.measurable, training, sample.results)
    sample.give_up("novelty", sample.measurable, found.reasons)
    sample.give_up("novelty, crystals of the training set", training, found.other_reasons)
    return found


def novel(sample: Sample) -> list[bool | None] | None:
    """For each of ``sample.measurable`` whether no crystal of the training set fits it; None without a training set.

    None too for an undecided crystal.
    """
    found = sample.once(training_matches)
    if found is None:
        return None
    return [None if k in found.reasons else match is None for k, match in enumerate(found.match)]


@metric("novelty", "novelty")
def _novelty(sample: Sample) -> list[Number]:
    """Share that no crystal of the training set fits, among the crystals of uniqueness."""
    new = sample.once(novel)
    return [] if new is None else _rate(sample, [one is True for one in new], sum(one is None for one in new))


@metric("unique_and_novel", "unique and novel")
def _unique_and_novel(sample: Sample) -> list[Number]:
    """Different structures that no crystal of the training set fits, over crystals."""
    new, same = sample.once(novel), sample.once(same_structures)
    if new is None:
        return []
    weights = same.weights * np.array([one is True for one in new], bool)
    unknown = sum(one is None or (one and k in same.reasons) for k, one in enumerate(new))
    return _rate(sample, weights, unknown)


@metric("vun", "valid, unique and novel (V.U.N.)")
def _vun(sample: Sample) -> list[Number]:
    """Different structures that are valid and that no crystal of the training set fits, over all generated."""
    new, same = sample.once(novel), sample.once(same_structures)
    if new is None:
        return []
    measurable = np.array([crystal.problem() is None for crystal in sample.crystals], bool)
    good = sample.once(valid)[measurable]
    unknown = sum(bool(good[k]) and (one is None or (one and k in same.reasons)) for k, one in enumerate(new))
    weights = same.weights * good * np.array([one is True for one in new], bool)
    return _rate(sample, weights, unknown, sample.generated)


def _rate(sample: Sample, good: npt.ArrayLike, undecided: int, n: int | None = None) -> list[Number]:
    """Over ``n`` crystals, by default those of uniqueness."""
    found = sample.once(training_matches)
    if found is None or sample.training is None:
        return []
    note = joined(
        f"training set {sample.training.source}",
        f"{len(found.other_reasons)} of its crystals could not be compared" if found.other_reasons else "",
        bounded(found.left_out),
    )
    return [Number.rate(good, len(found.match) if n is None else n, note=note, undecided=undecided)]


@column("novel", kind=bool)
def _novel(sample: Sample) -> list[bool | None]:
    new = sample.once(novel)
    return [] if new is None else [*sample.spread(new)]


@column("training_match", kind=str)
def _training_match(sample: Sample) -> list[str | None]:
    """Id of a crystal of the training set that fits."""
    found = sample.once(training_matches)
    if found is None or sample.training is None or sample.training.crystals is None:
        return []
    training = sample.training.crystals
    return sample.spread([None if j is None else training[j].id for j in found.match])
