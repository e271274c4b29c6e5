"""How many of the crystals are new among themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dpcdvae.parallel import Engine
from dpcdvae.parallel.results import ResultCache
from dpcdvae.structures.candidates import NEAREST, candidates, first_matches
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.fingerprints import fingerprint_crystals
from dpcdvae.structures.primitive_cells import primitive_cells


@dataclass(frozen=True)
class Duplicates:
    """Result of :func:`find_duplicates`.

    Attributes:
        duplicate_of: for each crystal an earlier one that has the same structure, None without one.
        left_out: crystals that were compared with only some of the earlier ones.
        cut: crystal -> why its comparison was given up; whether it is a duplicate is not known.
    """

    duplicate_of: list[int | None]
    left_out: int
    cut: dict[int, str]

    @property
    def duplicate(self) -> npt.NDArray[np.bool_]:
        """(n,) True where an earlier crystal has the same structure."""
        return np.array([earlier is not None for earlier in self.duplicate_of], bool)


def find_duplicates(
    crystals: Sequence[Crystal], *, engine: Engine, time_limit: float, cache: Path | None = None, most: int = NEAREST
) -> Duplicates:
    """Compares each crystal with the earlier ones of its composition: a matcher's ``fit``, protocol tolerances.

    Crystals are reduced to primitive cells first, once; different compositions or numbers of atoms in
    the primitive cell need no comparison. ``time_limit`` seconds are for all comparisons of one crystal.

    Args:
        cache: folder in which results are kept between runs.
        most: earlier crystals that one is compared with: the nearest in the structure fingerprint.
    """
    results = ResultCache(engine, time_limit, cache)
    times = Counter(crystal.formula for crystal in crystals)
    several = [k for k, crystal in enumerate(crystals) if times[crystal.formula] > 1]
    reduced = primitive_cells([crystals[k] for k in several], results)

    def describe(indices: Sequence[int]) -> npt.NDArray[np.float64]:
        chosen = [crystals[several[n]] for n in indices]
        return fingerprint_crystals(chosen, engine=engine, time_limit=time_limit, cache=cache).structure

    near = candidates(reduced.cells, reduced.cells, (describe, describe), most=most, earlier=True)
    found = first_matches(reduced.cells, reduced.cells, near, results, most)
    duplicate_of: list[int | None] = [None] * len(crystals)
    for n, match in enumerate(found.match):
        duplicate_of[several[n]] = None if match is None else several[match]
    cut = {several[n]: reason for n, reason in (reduced.reasons | found.cut).items()}
    return Duplicates(duplicate_of, found.left_out, dict(sorted(cut.items())))
