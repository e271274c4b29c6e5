"""How well reconstructions match their ground truths, and how much of the reference anything matches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from dpcdvae.evaluation.columns import column
from dpcdvae.evaluation.metre import corrected_rms, match_reference
from dpcdvae.evaluation.metric import metric
from dpcdvae.evaluation.metrics.notes import bounded, joined, undecided
from dpcdvae.evaluation.sample import Number, Sample
from dpcdvae.intervals import bootstrap_mean, median_interval
from dpcdvae.structures.candidates import Found
from dpcdvae.structures.matching import MATCHER, SITE_TOLERANCES


@metric("match_rate", "match rate")
def _match_rate(sample: Sample) -> list[Number]:
    """Over all ground truths, those without a prediction included."""
    if not sample.paired:
        return []
    missing = f"{sample.pairs.missing} without prediction" if sample.pairs.missing else ""
    note = joined(f"paired by {sample.pairs.by}", missing, _undecided(sample.matches.cut))
    return [
        sample.rate(np.isfinite(sample.rms) & gate, len(sample.truths), gate=name, note=note)
        for name, gate in sample.gates.items()
    ]


@metric("match_rate_by_tolerance", "match rate")
def _match_rate_by_tolerance(sample: Sample) -> list[Number]:
    """Over all ground truths, each tolerance with a comparison of its own."""
    if not sample.paired:
        return []
    return [
        sample.rate(np.isfinite(rms), len(sample.truths), gate=f"stol {stol:g}")
        for stol, rms in zip(SITE_TOLERANCES, sample.matches.by_tolerance.T, strict=True)
    ]


@metric("match_rms", "mean rms distance", "(V/N)^(1/3)")
def _match_rms(sample: Sample) -> list[Number]:
    """Over the matched pairs."""
    if not sample.paired:
        return []
    numbers = []
    for name, gate in sample.gates.items():
        rms = sample.rms[np.isfinite(sample.rms) & gate]
        value, interval = (float(rms.mean()), bootstrap_mean(rms, seed=sample.seed)) if len(rms) else (None, None)
        numbers.append(Number(value, len(rms), interval, name))
    return numbers


@metric("match_rms_median", "median rms distance", "(V/N)^(1/3)")
def _match_rms_median(sample: Sample) -> list[Number]:
    """Over the matched pairs: what the mean hides where some matches are poor."""
    if not sample.paired:
        return []
    numbers = []
    for name, gate in sample.gates.items():
        rms = sample.rms[np.isfinite(sample.rms) & gate]
        value, interval = (float(np.median(rms)), median_interval(rms)) if len(rms) else (None, None)
        numbers.append(Number(value, len(rms), interval, name))
    return numbers


def reference_matches(sample: Sample) -> Found:
    """For each crystal of the reference the nearest generated one; indices into ``sample.measurable``."""
    reference = sample.reference.crystals or ()
    possible = [k for k, crystal in enumerate(sample.crystals) if crystal.problem() is None]
    found = match_reference(
        sample.measurable,
        reference,
        (
            lambda chosen: sample.fingerprints.structure[[possible[k] for k in chosen]],
            lambda chosen: sample.reference_fingerprints.structure[chosen],
        ),
        engine=sample.engine,
        time_limit=sample.time_limit,
        cache=sample.cache,
    )
    sample.give_up("matching of the reference", reference, found.cut)
    sample.give_up("matching the reference", sample.measurable, found.lost)
    return found


@metric("metre", "reference matched (METRe)")
def _metre(sample: Sample) -> list[Number]:
    """Share of the reference that any generated crystal matches."""
    if sample.reference.crystals is None:
        return []
    found = sample.once(reference_matches)
    return [sample.rate(np.isfinite(found.rms), len(found.rms), note=_compared(found))]


@metric("crmse", "cRMSE", "(V/N)^(1/3)")
def _crmse(sample: Sample) -> list[Number]:
    """Over all of the reference; what nothing matches counts with the tolerance."""
    if sample.reference.crystals is None:
        return []
    found = sample.once(reference_matches)
    values = corrected_rms(found)
    note = joined(f"a miss counts {MATCHER.stol:g}", _compared(found))
    if len(values) == 0:
        return [Number(None, 0, note=note)]
    return [Number(float(values.mean()), len(values), bootstrap_mean(values, seed=sample.seed), note=note)]


def _compared(found: Found) -> str:
    lost = f"{len(found.lost)} generated crystals could not be compared" if found.lost else ""
    return joined(bounded(found.left_out), _undecided(found.cut), lost)


def _undecided(cut: Mapping[int, str]) -> str:
    return undecided([None] * len(cut), "matched")


@column("matched", kind=bool)
def _matched(sample: Sample) -> list[bool | None]:
    """Whether it matches its ground truth; None where the comparison was given up."""
    matched: list[bool | None] = [bool(np.isfinite(rms)) for rms in _rms_to_truth(sample)]
    if sample.paired:
        for k in sample.matches.cut:
            matched[int(sample.pairs.predictions[k])] = None
    return matched


@column("rms_to_truth", "(V/N)^(1/3)")
def _rms_to_truth(sample: Sample) -> npt.NDArray[np.float64]:
    """(crystals,) NaN without a match."""
    if not sample.paired:
        return np.zeros(0)
    rms = np.full(len(sample.crystals), np.nan)
    rms[sample.pairs.predictions] = sample.rms
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
