"""Crystals judged by dpcdvae.evaluation, in this process, with the results that it keeps between runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dpcdvae.evaluation import evaluate, resolve_reference
from dpcdvae.evaluation.sample import Number, Sample
from dpcdvae.evaluation.scoring import TIME_LIMIT
from dpcdvae.intervals import bootstrap_mean
from dpcdvae.io import Failure
from dpcdvae.parallel import engine_for
from dpcdvae.structures.crystal import Crystal
from quality.misses import CAUSES, cause


def judge(
    crystals: Sequence[Crystal], failures: Sequence[Failure], reference: str, protocol: str, ids: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Value, interval and n of every metric of a protocol; with ``ids`` paired with these crystals of the reference."""
    against = resolve_reference(reference)
    if ids:
        against = against.only(set(ids))
    report = evaluate(
        crystals, against, paired=bool(ids), failures=failures, protocol=protocol, baselines=(), workers=0
    )  # fmt: skip
    return {name: as_json(number) for name, number in report.numbers}


def judge_reconstruction(
    crystals: Sequence[Crystal], failures: Sequence[Failure], reference: str, ids: Sequence[str]
) -> dict[str, Any]:
    """Match rate and mean rms distance over all pairs, and the share of crystals that are missed for each cause.

    The match alone: the gates of the whole protocol would need a fingerprint of every crystal.
    """
    against = resolve_reference(reference).only(set(ids))
    sample = Sample(crystals, failures, against, True, engine_for(0), 0, TIME_LIMIT)
    matched = sample.matches.matched
    rms, n = sample.rms[matched], len(sample.truths)
    found = {truth.id: "not built" for truth in sample.truths}
    for k, j, match in zip(sample.pairs.predictions, sample.pairs.truths, matched, strict=True):
        found[sample.truths[j].id] = "" if match else cause(crystals[k], sample.truths[j])
    causes = list(found.values())
    return {
        "match_rate": as_json(sample.rate(matched, n)),
        "match_rms": as_json(
            Number(float(rms.mean()), len(rms), bootstrap_mean(rms, seed=0)) if len(rms) else Number(None, 0)
        ),
        "misses": {name: causes.count(name) / n for name in CAUSES},
    }


def as_json(number: Number) -> dict[str, Any]:
    return {"value": number.value, "interval": number.interval, "n": number.n}


def cell(number: dict[str, Any] | None, digits: int = 3) -> str:
    """A value with its interval, for a table."""
    if number is None or number["value"] is None:
        return "-"
    value, interval = number["value"], number["interval"]
    return f"{value:.{digits}f}" + (f" ({interval[0]:.{digits}f}-{interval[1]:.{digits}f})" if interval else "")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
