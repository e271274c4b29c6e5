"""Crystals evaluated by dpcdvae.evaluation, in this process, with the results that it keeps between runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dpcdvae.evaluation import evaluate, resolve_reference
from dpcdvae.evaluation.metrics.matching import matches, pairs
from dpcdvae.evaluation.sample import Sample
from dpcdvae.intervals import Number
from dpcdvae.io import Failure
from dpcdvae.parallel import HERE, TIME_LIMIT
from dpcdvae.parallel.results import Results, default_cache
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
    )
    return {name: number.to_json() for name, number in report.numbers}


def judge_reconstruction(
    crystals: Sequence[Crystal], failures: Sequence[Failure], reference: str, ids: Sequence[str]
) -> dict[str, Any]:
    """Match rate and mean rms distance over all pairs, and the share of crystals that are missed for each cause.

    The match alone: the gates of the whole protocol would need a fingerprint of every crystal.
    """
    against = resolve_reference(reference).only(set(ids))
    truths = against.crystals or ()
    sample = Sample(crystals, failures, against, True, Results(HERE, TIME_LIMIT, default_cache()), 0)
    paired, compared = sample.once(pairs), sample.once(matches)
    matched, n = compared.matched, len(truths)
    found = {truth.id: "not built" for truth in truths}
    for k, j, match in zip(paired.predictions, paired.truths, matched, strict=True):
        found[truths[j].id] = "" if match else cause(crystals[k], truths[j])
    causes = list(found.values())
    return {
        "match_rate": Number.rate(matched, n).to_json(),
        "match_rms": Number.mean(compared.rms[matched], seed=0).to_json(),
        "misses": {name: causes.count(name) / n for name in CAUSES},
    }


def cell(number: dict[str, Any] | None, digits: int = 3) -> str:
    """A value with its interval, for a table."""
    if number is None or number["value"] is None:
        return "-"
    value, interval = number["value"], number["interval"]
    return f"{value:.{digits}f}" + (f" ({interval[0]:.{digits}f}-{interval[1]:.{digits}f})" if interval else "")


def plain(value: float | None) -> str:
    """A value to four digits, for a table."""
    return "-" if value is None else f"{value:.4g}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
