"""How far the crystals of one system lie from their ground states, compared with those of another."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpcdvae.intervals import Floats, Number, bootstrap
from quality.judging import markdown_table

BASE = "CDVAE"


def rms_difference(one: Mapping[str, float], other: Mapping[str, float]) -> Number:
    """Root mean square of ``one`` minus that of ``other``, over the crystals in both, resampled together by their ids.

    The crystals of one number have the same random numbers in all systems, so what they have in common cancels.
    """
    ids = sorted(one.keys() & other.keys())
    pairs = np.array([(one[id], other[id]) for id in ids], np.float64).reshape(-1, 2)
    return Number.of(pairs, _difference, functools.partial(bootstrap, statistic=_difference, seed=0))


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Every relaxed row beside the first of CDVAE, in Markdown; one line of text while that has not been relaxed."""
    relaxed = [record for record in records if record["row"]["task"] == "relax" and "delta_energies" in record]
    base = next((record["delta_energies"] for record in relaxed if record["row"]["system"] == BASE), None)
    if base is None:
        return f"No crystals of {BASE} have been relaxed yet."
    rows = []
    for record in relaxed:
        system, name = record["row"]["system"], record["row"]["name"]
        if system != BASE:
            found = rms_difference(record["delta_energies"], base)
            value, interval = found.shown("meV/atom")
            rows.append([system, value, interval, str(found.n), _verdict(found), f"`{name}`"])
    return markdown_table(["system", f"ΔE_rms minus that of {BASE}, meV/atom", "95 %", "n", "nearer?", "row"], rows)


def _verdict(found: Number) -> str:
    if found.interval is None or found.interval[0] <= 0 <= found.interval[1]:
        return "cannot be told"
    return "yes" if found.interval[1] < 0 else "no"


def _difference(pairs: Floats) -> float:
    one, other = np.sqrt(np.mean(pairs**2, axis=0))
    return float(one - other)
