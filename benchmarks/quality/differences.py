"""How far the crystals of one system lie from their ground states, compared with those of another."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from dpcdvae.intervals import Floats, Number, bootstrap
from quality.judging import markdown_table
from quality.records import Record

BASE = "CDVAE"


def rms_difference(one: Mapping[str, float], other: Mapping[str, float]) -> Number:
    """Root mean square of ``one`` minus that of ``other``, over the crystals in both, resampled together by their ids.

    The crystals of one number have the same random numbers in all systems, so what they have in common cancels.
    """
    ids = sorted(one.keys() & other.keys())
    pairs = np.array([(one[id], other[id]) for id in ids], np.float64).reshape(-1, 2)
    return Number.of(pairs, _difference, functools.partial(bootstrap, statistic=_difference, seed=0))


def table(records: Sequence[Record]) -> str:
    """Every relaxed row beside that of CDVAE on the same data, in Markdown; a line of text while there is none."""
    relaxed = [(record.row, record.delta_energies) for record in records if record.row.task == "relax"]
    known = [(row, energies) for row, energies in relaxed if energies is not None]
    lines = []
    for dataset in dict.fromkeys(row.dataset for row, _ in known):
        base = next((found for row, found in known if (row.system, row.dataset) == (BASE, dataset)), None)
        for row, energies in known:
            if base is not None and row.dataset == dataset and row.system != BASE:
                found = rms_difference(energies, base)
                value, interval = found.shown("meV/atom")
                lines.append([row.system, value, interval, str(found.n), _verdict(found), f"`{row.name}`"])
    if not lines:
        return f"No crystals of {BASE} and of another system have been relaxed yet."
    return markdown_table(["system", f"ΔE_rms minus that of {BASE}, meV/atom", "95 %", "n", "nearer?", "row"], lines)


def _verdict(found: Number) -> str:
    if found.interval is None or found.interval[0] <= 0 <= found.interval[1]:
        return "cannot be told"
    return "yes" if found.interval[1] < 0 else "no"


def _difference(pairs: Floats) -> float:
    one, other = np.sqrt(np.mean(pairs**2, axis=0))
    return float(one - other)
