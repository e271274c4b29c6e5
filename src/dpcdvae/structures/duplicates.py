"""Duplicates in a set: which crystals have the same structure as an earlier one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpcdvae.parallel.results import Results
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.fingerprints import structure_fingerprints
from dpcdvae.structures.match_search import candidates, first_matches
from dpcdvae.structures.primitive_cells import primitive_cells


@dataclass(frozen=True)
class Duplicates:
    """Result of :func:`find_duplicates`.

    Attributes:
        duplicate_of: for each crystal an earlier one that has the same structure, None without one.
        left_out: crystals that were compared with only some of the earlier ones.
        reasons: crystal -> why its comparison was given up; whether it is a duplicate is not known.
    """

    duplicate_of: list[int | None]
    left_out: int
    reasons: dict[int, str]

    @property
    def duplicate(self) -> npt.NDArray[np.bool_]:
        """(n,) True where an earlier crystal has the same structure."""
        return np.array([earlier is not None for earlier in self.duplicate_of], bool)


def find_duplicates(crystals: Sequence[Crystal], results: Results) -> Duplicates:
    """Compares each crystal with the earlier ones of its composition: a matcher's ``fit``, published tolerances.

    Crystals are reduced to primitive cells first, once; different compositions or numbers of atoms in the primitive
    cell need no comparison. The time limit is for all comparisons of one crystal.
    """
    times = Counter(crystal.formula for crystal in crystals)
    several = [k for k, crystal in enumerate(crystals) if times[crystal.formula] > 1]
    reduced = primitive_cells([crystals[k] for k in several], results)

    def describe(indices: Sequence[int]) -> npt.NDArray[np.float64]:
        return structure_fingerprints([crystals[several[n]] for n in indices], results)[0]

    near = candidates(reduced.cells, reduced.cells, (describe, describe), earlier=True)
    found = first_matches(reduced.cells, reduced.cells, near, results)
    duplicate_of: list[int | None] = [None] * len(crystals)
    for n, match in enumerate(found.match):
        duplicate_of[several[n]] = None if match is None else several[match]
    reasons = {several[n]: reason for n, reason in (reduced.reasons | found.reasons).items()}
    return Duplicates(duplicate_of, found.left_out, dict(sorted(reasons.items())))
