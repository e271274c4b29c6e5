"""Is this the same structure? A matcher with the protocol's tolerances, pairs, and a time limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import reason_of
from dpcdvae.parallel import Engine, Lost
from dpcdvae.parallel.results import Kind, Result, ResultCache, joint_hash
from dpcdvae.structures.content import content_hash
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.primitive_cells import primitive_cells
from dpcdvae.structures.structure_matcher import ALGORITHM, compare
from dpcdvae.structures.tolerances import PUBLISHED

Floats = npt.NDArray[np.float64]

MATCHER = PUBLISHED
TOLERANCES = asdict(MATCHER)

SITE_TOLERANCES = (0.05, 0.1, 0.2, 0.3, 0.4, MATCHER.stol)
"""Of (V/N)^(1/3): of which the share of matches is told; the last one is the protocol's."""


@dataclass(frozen=True)
class Matches:
    """Result of :func:`match_pairs`.

    Attributes:
        by_tolerance: (p, 6) rms displacement over (V/N)^(1/3) under each of :data:`SITE_TOLERANCES`; NaN where the
            pair does not match.
        cut: pair -> why it was given up; such a pair does not match.
    """

    by_tolerance: Floats
    cut: dict[int, str]

    @property
    def rms(self) -> Floats:
        """(p,) under the protocol's tolerance, the last one."""
        return self.by_tolerance[:, -1]

    @property
    def matched(self) -> npt.NDArray[np.bool_]:
        return np.isfinite(self.rms)


def match_pairs(
    predictions: Sequence[Crystal],
    truths: Sequence[Crystal],
    *,
    engine: Engine,
    time_limit: float,
    cache: Path | None = None,
) -> Matches:
    """Compares ``predictions[k]`` with ``truths[k]`` for every k, each within ``time_limit`` seconds.

    Crystals of different reduced composition are not handed to the matcher: it would say no.

    Args:
        cache: folder in which results are kept between runs.
    """
    results = ResultCache(engine, time_limit, cache)
    chosen = [k for k, (p, t) in enumerate(zip(predictions, truths, strict=True)) if p.formula == t.formula]
    reduced = primitive_cells([*(predictions[k] for k in chosen), *(truths[k] for k in chosen)], results)
    cells = dict(zip(chosen, zip(reduced.cells[: len(chosen)], reduced.cells[len(chosen) :], strict=True), strict=True))
    cut = {chosen[k % len(chosen)]: reason for k, reason in reduced.reasons.items()}
    pairs = {k: (p, t) for k, (p, t) in cells.items() if p is not None and t is not None}
    keys = [joint_hash([content_hash(p), content_hash(t)]) for p, t in pairs.values()]
    kind = Kind("pair", ALGORITHM, {**TOLERANCES, "site tolerances": str(SITE_TOLERANCES)})
    found = results.results(rms_by_tolerance, list(pairs.values()), keys, kind, "matching")
    rms = np.full((len(predictions), len(SITE_TOLERANCES)), np.nan)
    for k, result in zip(pairs, found, strict=True):
        if isinstance(result, Lost):
            cut[k] = result.reason
        elif isinstance(result, str):
            cut[k] = result
        else:
            rms[k] = np.where(np.isfinite(result), result, np.nan)
    return Matches(rms, dict(sorted(cut.items())))


def rms_by_tolerance(cells: tuple[Crystal, Crystal]) -> Result:
    """(6,) rms displacement between (prediction, truth) under each site tolerance, infinite without a match.

    Each is a comparison of its own: the tolerance also decides which mappings are looked at, so that a pair may
    have an rms displacement below it and yet not match.
    """
    prediction, truth = cells
    try:
        return np.array(
            [compare([prediction], truth, replace(MATCHER, stol=stol))[0].rms for stol in SITE_TOLERANCES], np.float64
        )
    except Exception as error:  # odd cells break it in many ways: counted, with the reason
        return reason_of(error)
