"""Is the relaxed crystal still the same structure? Are two minima one? pymatgen's StructureMatcher, in an engine."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING

from dpcdvae.crystal import Crystal
from dpcdvae.errors import reason_of
from dpcdvae.parallel import Engine, Lost
from dpcdvae.tolerances import PUBLISHED, Tolerances

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher

# After relaxation the same minimum is the same to a few hundredths.
DUPLICATES = Tolerances(ltol=0.05, stol=0.1, angle_tol=3.0)


def match_distances(
    pairs: Sequence[tuple[Crystal, Crystal]], *, engine: Engine, time_limit: float
) -> list[float | Lost | None]:
    """Normalised rms displacement of each (base, other); None where they do not match, Lost where given up."""
    return engine.map(_distance, pairs, time_limit=time_limit, description="comparing")


@cache
def _matcher(tolerances: Tolerances) -> StructureMatcher:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(**asdict(tolerances))


def _distance(pair: tuple[Crystal, Crystal]) -> float | Lost | None:
    base, other = pair
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = _matcher(PUBLISHED).get_rms_dist(base.to_pymatgen(), other.to_pymatgen())
    except Exception as error:  # the matcher breaks in many ways on odd cells: counted, with the reason
        return Lost(reason_of(error))
    return None if found is None else float(found[0])


def same_minimum(pair: tuple[Crystal, Crystal]) -> bool | Lost:
    """Whether two relaxed crystals are one structure within ``DUPLICATES``; Lost where that cannot be told."""
    first, second = pair
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bool(_matcher(DUPLICATES).fit(first.to_pymatgen(), second.to_pymatgen()))
    except Exception as error:  # see _distance
        return Lost(reason_of(error))
