"""METRe: how many crystals of a reference any of the generated ones matches, and how well.

Match Everyone To Reference (Martirossyan et al. 2025, "All that structure matches does not glitter"): a crystal of the
reference is found if a generated one of its composition matches it; cRMSE is the mean rms displacement of the best
matches over all of the reference, where a crystal that nothing matches counts with the site tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dpcdvae.parallel import Engine
from dpcdvae.parallel.results import ResultCache
from dpcdvae.structures.candidates import NEAREST, Describe, Found, candidates, first_matches, nearest_matches
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.matching import MATCHER
from dpcdvae.structures.primitive_cells import primitive_cells


def match_reference(
    generated: Sequence[Crystal],
    reference: Sequence[Crystal],
    describe: tuple[Describe, Describe],
    *,
    engine: Engine,
    time_limit: float,
    cache: Path | None = None,
    most: int = NEAREST,
) -> Found:
    """For each crystal of the reference the generated one of the least rms displacement.

    ``time_limit`` seconds are for all comparisons of one crystal.

    Args:
        describe: gives the structure fingerprints of the generated crystals and of the reference, by indices.
        cache: folder in which results are kept between runs.
        most: generated crystals that one of the reference is compared with, see :mod:`dpcdvae.structures.candidates`.
    """
    return _match(generated, reference, describe, ResultCache(engine, time_limit, cache), most, nearest=True)


def match_training(
    generated: Sequence[Crystal],
    training: Sequence[Crystal],
    describe: tuple[Describe, Describe],
    *,
    engine: Engine,
    time_limit: float,
    cache: Path | None = None,
    most: int = NEAREST,
) -> Found:
    """For each generated crystal one of the training set that fits it; arguments as of :func:`match_reference`."""
    return _match(training, generated, (describe[1], describe[0]), ResultCache(engine, time_limit, cache), most)


def corrected_rms(found: Found) -> npt.NDArray[np.float64]:
    """(n,) rms displacement of each crystal's match, the site tolerance where it has none."""
    return np.where(np.isfinite(found.rms), found.rms, MATCHER.stol)


def _match(
    others: Sequence[Crystal],
    crystals: Sequence[Crystal],
    describe: tuple[Describe, Describe],
    results: ResultCache,
    most: int,
    *,
    nearest: bool = False,
) -> Found:
    """For each of ``crystals`` one of ``others``."""
    shared = {crystal.formula for crystal in crystals} & {other.formula for other in others}
    ours = [k for k, crystal in enumerate(crystals) if crystal.formula in shared]
    theirs = [j for j, other in enumerate(others) if other.formula in shared]
    reduced = primitive_cells([*(crystals[k] for k in ours), *(others[j] for j in theirs)], results)
    cells, pool = reduced.cells[: len(ours)], reduced.cells[len(ours) :]

    def describe_ours(chosen: Sequence[int]) -> npt.NDArray[np.float64]:
        return describe[1]([ours[n] for n in chosen])

    def describe_theirs(chosen: Sequence[int]) -> npt.NDArray[np.float64]:
        return describe[0]([theirs[n] for n in chosen])

    near = candidates(cells, pool, (describe_ours, describe_theirs), most=most)
    found = (nearest_matches if nearest else first_matches)(cells, pool, near, results, most)
    match: list[int | None] = [None] * len(crystals)
    rms = np.full(len(crystals), np.inf)
    for n, k in enumerate(ours):
        place = found.match[n]
        match[k], rms[k] = None if place is None else theirs[place], found.rms[n]
    broken = {n: reason for n, reason in reduced.reasons.items() if n < len(ours)}
    cut = {ours[n]: reason for n, reason in sorted((broken | found.cut).items())}
    lost = {theirs[n - len(ours)]: reason for n, reason in reduced.reasons.items() if n >= len(ours)}
    return Found(match, rms, found.left_out, cut, lost)
