"""How well reconstructions match their ground truths, and how much of the reference anything matches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError
from dpcdvae.evaluation.comparison_notes import THESE_CRYSTALS, bounded, joined
from dpcdvae.evaluation.crystal_columns import column
from dpcdvae.evaluation.metre import corrected_rms, match_reference
from dpcdvae.evaluation.metric import metric
from dpcdvae.evaluation.metrics.validity import counted
from dpcdvae.evaluation.pairing import Pairs, pair
from dpcdvae.evaluation.sample import Sample
from dpcdvae.evaluation.sample_fingerprints import reference_fingerprints
from dpcdvae.intervals import Number
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.match_search import Found
from dpcdvae.structures.neutrality import compositionally_valid
from dpcdvae.structures.pair_matching import Matches, match_pairs
from dpcdvae.structures.tolerances import PUBLISHED
from dpcdvae.structures.validity import structurally_valid

PREDICTION_GATE = "prediction valid"

SITE_TOLERANCES = (0.05, 0.1, 0.2, 0.3, 0.4, PUBLISHED.stol)
"""Of (V/N)^(1/3): for each of them there is a match rate; the last one is the published protocol's."""


def truths(sample: Sample) -> Sequence[Crystal]:
    """The crystals of the reference. Raises InputError where it has none."""
    if sample.reference.crystals is None:
        raise InputError(
            f"paired evaluation needs the crystals of the reference, and {sample.reference.source} "
            "has statistics only: give a data set or a file"
        )
    return sample.reference.crystals


def pairs(sample: Sample) -> Pairs:
    """Which crystal is a reconstruction of which of the reference. Raises InputError where they do not fit."""
    return pair(sample.crystals, truths(sample), [failure.id for failure in sample.failures])


def matches(sample: Sample) -> Matches:
    """Of the pairs, under all of ``SITE_TOLERANCES``."""
    found = sample.once(pairs)
    predictions = [sample.crystals[k] for k in found.predictions]
    tolerances = [replace(PUBLISHED, stol=stol) for stol in SITE_TOLERANCES]
    matched = match_pairs(predictions, [truths(sample)[k] for k in found.truths], sample.results, tolerances)
    sample.give_up("matching", predictions, matched.reasons)
    return matched


def gates(sample: Sample) -> dict[str, npt.NDArray[np.bool_]]:
    """(pairs,) which pairs may count: all (recent papers), prediction valid (CDVAE), both valid (DiffCSP)."""
    found = sample.once(pairs)
    chosen = [truths(sample)[k] for k in found.truths]
    known = sample.once_for_all(reference_fingerprints).known[found.truths]
    prediction = sample.once(counted)[found.predictions]
    return {
        "none": np.ones(len(prediction), bool),
        PREDICTION_GATE: prediction,
        "both valid": prediction & structurally_valid(chosen) & compositionally_valid(chosen) & known,
    }


@metric("match_rate", "match rate")
def _match_rate(sample: Sample) -> list[Number]:
    """Over all ground truths, those without a prediction included."""
    if not sample.paired:
        return []
    paired, found = sample.once(pairs), sample.once(matches)
    missing = f"{paired.missing} without prediction" if paired.missing else ""
    note = joined(f"paired by {paired.by}", missing)
    return [
        Number.rate(found.matched & gate, len(truths(sample)), gate=name, note=note, undecided=len(found.reasons))
        for name, gate in sample.once(gates).items()
    ]


@metric("match_rate_by_tolerance", "match rate")
def _match_rate_by_tolerance(sample: Sample) -> list[Number]:
    """Over all ground truths, each tolerance with a comparison of its own."""
    if not sample.paired:
        return []
    found = sample.once(matches)
    return [
        Number.rate(np.isfinite(rms), len(truths(sample)), gate=f"stol {stol:g}", undecided=len(found.reasons))
        for stol, rms in zip(SITE_TOLERANCES, found.by_tolerance.T, strict=True)
    ]


@metric("match_rms", "mean rms distance", "(V/N)^(1/3)")
def _match_rms(sample: Sample) -> list[Number]:
    """Over the matched pairs."""
    return [Number.mean(rms, seed=sample.seed, gate=gate) for gate, rms in _matched_rms(sample).items()]


@metric("match_rms_median", "median rms distance", "(V/N)^(1/3)")
def _match_rms_median(sample: Sample) -> list[Number]:
    """Over the matched pairs: what the mean hides where some matches are poor."""
    return [Number.median(rms, gate=gate) for gate, rms in _matched_rms(sample).items()]


def _matched_rms(sample: Sample) -> dict[str, npt.NDArray[np.float64]]:
    """The rms distances of the matched pairs under each gate; empty where nothing is paired."""
    if not sample.paired:
        return {}
    found = sample.once(matches)
    return {gate: found.rms[found.matched & passed] for gate, passed in sample.once(gates).items()}


def reference_matches(sample: Sample) -> Found:
    """For each crystal of the reference the nearest generated one; indices into ``sample.measurable``."""
    reference = sample.reference.crystals or ()
    found = match_reference(sample.measurable, reference, sample.results)
    sample.give_up("matching of the reference", reference, found.reasons)
    sample.give_up("matching the reference", sample.measurable, found.other_reasons)
    return found


@metric("metre", "reference matched (METRe)")
def _metre(sample: Sample) -> list[Number]:
    """Share of the reference that any generated crystal matches."""
    if sample.reference.crystals is None:
        return []
    found = sample.once(reference_matches)
    note = joined(THESE_CRYSTALS, _compared(found))
    return [Number.rate(np.isfinite(found.rms), len(found.rms), note=note, undecided=len(found.reasons))]


@metric("crmse", "cRMSE", "(V/N)^(1/3)")
def _crmse(sample: Sample) -> list[Number]:
    """Over all of the reference; what nothing matches counts with the tolerance."""
    if sample.reference.crystals is None:
        return []
    found = sample.once(reference_matches)
    note = joined(f"a miss counts {PUBLISHED.stol:g}", THESE_CRYSTALS, _compared(found))
    number = Number.mean(corrected_rms(found), seed=sample.seed, note=note)
    return [replace(number, undecided=len(found.reasons))]


def _compared(found: Found) -> str:
    others = f"{len(found.other_reasons)} generated crystals could not be compared" if found.other_reasons else ""
    return joined(bounded(found.left_out), others)


@column("matched", kind=bool)
def _matched(sample: Sample) -> list[bool | None]:
    """Whether it matches its ground truth; None if undecided."""
    matched: list[bool | None] = [bool(np.isfinite(rms)) for rms in _rms_to_truth(sample)]
    if sample.paired:
        for k in sample.once(matches).reasons:
            matched[int(sample.once(pairs).predictions[k])] = None
    return matched


@column("rms_to_truth", "(V/N)^(1/3)")
def _rms_to_truth(sample: Sample) -> npt.NDArray[np.float64]:
    """(crystals,) NaN without a match."""
    if not sample.paired:
        return np.zeros(0)
    rms = np.full(len(sample.crystals), np.nan)
    rms[sample.once(pairs).predictions] = sample.once(matches).rms
    return rms


@column("reference_match", kind=str)
def _reference_match(sample: Sample) -> list[str | None]:
    """Id of the crystal of the reference that it is the nearest match of; of several the nearest."""
    if sample.reference.crystals is None:
        return []
    found = sample.once(reference_matches)
    best: dict[int, int] = {}
    for k in np.argsort(found.rms, kind="stable").tolist():
        match = found.match[k]
        if match is not None:
            best.setdefault(match, k)
    ids = [sample.reference.crystals[best[n]].id if n in best else None for n in range(len(sample.measurable))]
    return sample.spread(ids)
