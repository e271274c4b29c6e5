"""Matches between two sets of crystals: the training set's of generated ones, the generated ones' of a reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dpcdvae.parallel.results import Results
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.fingerprints import structure_fingerprints
from dpcdvae.structures.match_candidates import candidates
from dpcdvae.structures.match_search import Found, first_matches, nearest_matches
from dpcdvae.structures.primitive_cells import primitive_cells


def match_training(generated: Sequence[Crystal], training: Sequence[Crystal], results: Results) -> Found:
    """For each generated crystal one of the training set that fits it; the time limit is for all its comparisons."""
    return match_sets(training, generated, results, nearest=False)


def match_sets(others: Sequence[Crystal], crystals: Sequence[Crystal], results: Results, *, nearest: bool) -> Found:
    """For each of ``crystals`` one of ``others`` that matches it: the nearest, or the first that fits."""
    shared = {crystal.formula for crystal in crystals} & {other.formula for other in others}
    ours = [k for k, crystal in enumerate(crystals) if crystal.formula in shared]
    theirs = [j for j, other in enumerate(others) if other.formula in shared]
    reduced = primitive_cells([*(crystals[k] for k in ours), *(others[j] for j in theirs)], results)
    cells, pool = reduced.cells[: len(ours)], reduced.cells[len(ours) :]

    def describe_ours(chosen: Sequence[int]) -> npt.NDArray[np.float64]:
        return structure_fingerprints([crystals[ours[n]] for n in chosen], results)[0]

    def describe_theirs(chosen: Sequence[int]) -> npt.NDArray[np.float64]:
        return structure_fingerprints([others[theirs[n]] for n in chosen], results)[0]

    near = candidates(cells, pool, (describe_ours, describe_theirs))
    found = (nearest_matches if nearest else first_matches)(cells, pool, near, results)
    match: list[int | None] = [None] * len(crystals)
    rms = np.full(len(crystals), np.inf)
    for n, k in enumerate(ours):
        place = found.match[n]
        match[k], rms[k] = None if place is None else theirs[place], found.rms[n]
    broken = {n: reason for n, reason in reduced.reasons.items() if n < len(ours)}
    reasons = {ours[n]: reason for n, reason in sorted((broken | found.reasons).items())}
    other_reasons = {theirs[n - len(ours)]: reason for n, reason in reduced.reasons.items() if n >= len(ours)}
    return Found(match, rms, found.left_out, reasons, other_reasons)
