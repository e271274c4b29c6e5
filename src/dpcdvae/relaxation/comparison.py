"""Is the relaxed crystal still the same structure? StructureMatcher with the published tolerances, in an engine."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from dpcdvae.crystal import Crystal
from dpcdvae.parallel import Engine, Lost

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher

Tolerances = tuple[float, float, float]
"""Of lengths (a fraction), of sites (of (V/N)^(1/3)), of angles (degrees)."""

PUBLISHED: Tolerances = (0.3, 0.5, 10.0)  # DP-CDVAE, Table 3, as CDVAE's
DUPLICATES: Tolerances = (0.05, 0.1, 3.0)  # after relaxation the same minimum is the same to a few hundredths


def match_distances(
    pairs: Sequence[tuple[Crystal, Crystal]], *, engine: Engine, time_limit: float
) -> list[float | Lost | None]:
    """Normalised rms displacement of each (base, other); None where they do not match, Lost where given up."""
    return engine.map(_distance, pairs, time_limit=time_limit, description="comparing")


def first_matches(
    groups: Sequence[tuple[Crystal, Sequence[Crystal]]], *, engine: Engine, time_limit: float
) -> list[int | Lost | None]:
    """Place of the first of several crystals that is the same structure; None without one."""
    return engine.map(_first, groups, time_limit=time_limit, description="comparing")


@cache
def _matcher(tolerances: Tolerances) -> StructureMatcher:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    ltol, stol, angle_tol = tolerances
    return StructureMatcher(ltol=ltol, stol=stol, angle_tol=angle_tol)


def _distance(pair: tuple[Crystal, Crystal]) -> float | Lost | None:
    base, other = pair
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = _matcher(PUBLISHED).get_rms_dist(base.to_pymatgen(), other.to_pymatgen())
    except Exception as error:  # the matcher breaks in many ways on odd cells: counted, with the reason
        return Lost(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    return None if found is None else float(found[0])


def _first(group: tuple[Crystal, Sequence[Crystal]]) -> int | Lost | None:
    crystal, others = group
    structure = crystal.to_pymatgen()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fits = (_matcher(DUPLICATES).fit(other.to_pymatgen(), structure) for other in others)
            return next((k for k, fit in enumerate(fits) if fit), None)
    except Exception as error:  # see _distance
        return Lost(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
