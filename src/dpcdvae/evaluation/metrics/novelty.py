"""How many of the crystals are not of the training set."""

from __future__ import annotations

from dpcdvae.evaluation.comparison_notes import bounded, joined, undecided
from dpcdvae.evaluation.crystal_columns import column
from dpcdvae.evaluation.metre import match_training
from dpcdvae.evaluation.metric import metric
from dpcdvae.evaluation.metrics.uniqueness import compared, first_of, unique
from dpcdvae.evaluation.sample import Sample
from dpcdvae.intervals import Number
from dpcdvae.structures.match_search import Found


def training_matches(sample: Sample) -> Found | None:
    """For each crystal of :func:`compared` one of the training set that fits it; None without a training set."""
    if sample.training is None or sample.training.crystals is None:
        return None
    training = sample.training.crystals
    found = match_training(compared(sample), training, sample.results)
    sample.give_up("novelty", compared(sample), found.reasons)
    sample.give_up("novelty, crystals of the training set", training, found.other_reasons)
    return found


def novel(sample: Sample) -> list[bool | None] | None:
    """For each crystal of :func:`compared` whether no crystal of the training set fits it; None without a training set.

    None too for a crystal whose comparison was given up. Nothing is known of crystals beyond: the list is as long as
    :func:`compared`.
    """
    found = sample.once(training_matches)
    if found is None:
        return None
    return [None if k in found.reasons else match is None for k, match in enumerate(found.match)]


@metric("novelty", "novelty")
def _novelty(sample: Sample) -> list[Number]:
    """Share that no crystal of the training set fits, among the crystals of uniqueness."""
    return _rate(sample, sample.once(novel), "novel")


@metric("unique_and_novel", "unique and novel")
def _unique_and_novel(sample: Sample) -> list[Number]:
    new = sample.once(novel)
    if new is None:
        return []
    return _rate(sample, [_both(*two) for two in zip(sample.once(unique), new, strict=True)], "unique and novel")


def _both(one: bool | None, other: bool | None) -> bool | None:
    if one is False or other is False:
        return False
    return None if one is None or other is None else True


def _rate(sample: Sample, good: list[bool | None] | None, what: str) -> list[Number]:
    found = sample.once(training_matches)
    if good is None or found is None or sample.training is None:
        return []
    note = joined(
        f"training set {sample.training.source}",
        f"{len(found.other_reasons)} of its crystals could not be compared" if found.other_reasons else "",
        first_of(sample),
        bounded(found.left_out),
        undecided(good, what),
    )
    return [Number.rate([one is True for one in good], len(good), note=note)]


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
