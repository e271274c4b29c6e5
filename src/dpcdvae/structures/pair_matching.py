"""Match rate: whether the two crystals of each pair are the same structure, and how far they are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import reason_of
from dpcdvae.parallel.results import Kind, Result, Results
from dpcdvae.structures.content import content_hash
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.primitive_cells import primitive_cells
from dpcdvae.structures.structure_matcher import ALGORITHM, compare
from dpcdvae.structures.tolerances import PUBLISHED, Tolerances

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Matches:
    """Result of :func:`match_pairs`.

    Attributes:
        by_tolerance: (p, t) rms displacement over (V/N)^(1/3) under each of the tolerances; NaN where the pair does
            not match.
        fits: (p,) whether even the largest displacement is within the last site tolerance, as pymatgen's ``fit`` asks.
        reasons: pair -> why it could not be compared; such a pair does not match.
    """

    by_tolerance: Floats
    fits: npt.NDArray[np.bool_]
    reasons: dict[int, str]

    @property
    def rms(self) -> Floats:
        """(p,) under the last of the tolerances."""
        return self.by_tolerance[:, -1]

    @property
    def matched(self) -> npt.NDArray[np.bool_]:
        """(p,) whether there is an rms displacement, as in the published match rates."""
        return np.isfinite(self.rms)


def match_pairs(
    firsts: Sequence[Crystal],
    seconds: Sequence[Crystal],
    results: Results,
    tolerances: Sequence[Tolerances] = (PUBLISHED,),
) -> Matches:
    """Compares ``firsts[k]`` with ``seconds[k]`` for every k, as ``get_rms_dist(first, second)`` of pymatgen's matcher.

    Crystals of different reduced composition are not handed to the matcher: it would say no. The time limit is for
    each reduction to a primitive cell, and for each pair under all tolerances.

    Args:
        tolerances: each is a comparison of its own, see :func:`distances`.
    """
    chosen = [k for k, (a, b) in enumerate(zip(firsts, seconds, strict=True)) if a.formula == b.formula]
    reduced = primitive_cells([*(firsts[k] for k in chosen), *(seconds[k] for k in chosen)], results)
    cells = dict(zip(chosen, zip(reduced.cells[: len(chosen)], reduced.cells[len(chosen) :], strict=True), strict=True))
    reasons = {chosen[k % len(chosen)]: reason for k, reason in reduced.reasons.items()}
    pairs = {k: (a, b) for k, (a, b) in cells.items() if a is not None and b is not None}
    kind = Kind("pair-distances", ALGORITHM, {"tolerances": str([asdict(one) for one in tolerances])})
    found, lacking = results.compute(
        partial(distances, tolerances),
        list(pairs.values()),
        [content_hash(*pair) for pair in pairs.values()],
        kind,
        "matching",
    )
    reasons |= {list(pairs)[n]: reason for n, reason in lacking.items()}
    of_all = np.full((len(firsts), 2, len(tolerances)), np.inf)
    for k, vector in zip(pairs, found, strict=True):
        if vector is not None:
            of_all[k] = vector.reshape(2, -1)
    rms, largest = of_all.swapaxes(0, 1)
    return Matches(np.where(np.isfinite(rms), rms, np.nan), np.isfinite(largest[:, -1]), dict(sorted(reasons.items())))


def distances(tolerances: Sequence[Tolerances], cells: tuple[Crystal, Crystal]) -> Result:
    """(2t,) rms displacement of two primitive cells under each tolerance, then the largest; infinite without a match.

    Each is a comparison of its own: the tolerance also decides which mappings are looked at, so that a pair may
    have an rms displacement below it and yet not match.
    """
    first, second = cells
    try:
        found = [compare([first], second, one)[0] for one in tolerances]
    except Exception as error:  # odd cells break it in many ways: counted, with the reason
        return reason_of(error)
    return np.array([one.rms for one in found] + [one.largest for one in found], np.float64)
