"""Crystals of a set that have the same structure: all of them, or an earlier one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpcdvae.parallel.results import Results
from dpcdvae.structures.content import content_hash
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.fingerprints import structure_fingerprints
from dpcdvae.structures.match_candidates import Among, Candidates, Cells, candidates
from dpcdvae.structures.match_search import all_matches, first_matches
from dpcdvae.structures.primitive_cells import primitive_cells


@dataclass(frozen=True)
class Duplicates:
    """Result of :func:`find_duplicates`.

    Attributes:
        duplicate_of: for each crystal an earlier one that has the same structure, None without one.
        left_out: crystals that were compared with only some of the earlier ones.
        reasons: crystal -> why it is undecided whether it is a duplicate.
    """

    duplicate_of: list[int | None]
    left_out: int
    reasons: dict[int, str]


@dataclass(frozen=True)
class SameStructures:
    """Result of :func:`find_same`.

    Attributes:
        others: for each crystal the others that have the same structure, ascending.
        left_out: crystals that were compared with only some of the others.
        reasons: crystal -> why it is undecided whether there are others.
    """

    others: list[list[int]]
    left_out: int
    reasons: dict[int, str]

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """(n,) 1 over the number of crystals of the same structure, itself included; 0 where that is not known.

        Their mean is the share of different structures where matching is transitive. It is not quite: in general the
        mean is the share of crystals that match no earlier one, averaged over all orders of the set.
        """
        return np.array([0.0 if k in self.reasons else 1 / (1 + len(o)) for k, o in enumerate(self.others)], np.float64)


def find_duplicates(crystals: Sequence[Crystal], results: Results) -> Duplicates:
    """Compares each crystal with the earlier ones of its composition: a matcher's ``fit``, published tolerances.

    Crystals are reduced to primitive cells first, once; different compositions or numbers of atoms in the primitive
    cell need no comparison. The time limit is for all comparisons of one crystal.
    """
    several, cells, near, broken = _candidates(crystals, results, Among.EARLIER)
    found = first_matches(cells, cells, near, results)
    duplicate_of: list[int | None] = [None] * len(crystals)
    for n, match in enumerate(found.match):
        duplicate_of[several[n]] = None if match is None else several[match]
    reasons = broken | {several[n]: reason for n, reason in found.reasons.items()}
    return Duplicates(duplicate_of, found.left_out, dict(sorted(reasons.items())))


def first_of_each(crystals: Sequence[Crystal], results: Results) -> tuple[list[int], dict[int, str]]:
    """Indices of the crystals that stay where each structure is kept once, and why others are undecided, by index.

    Whether a crystal stays depends on earlier ones alone. Those that stay are compared again until none is a duplicate:
    of very many crystals of one composition only the nearest are compared, and duplicates may hide the first of theirs.
    """
    left, reasons = list(range(len(crystals))), dict[int, str]()
    while True:
        found = find_duplicates([crystals[k] for k in left], results)
        reasons |= {left[n]: reason for n, reason in found.reasons.items()}
        stay = [k for n, k in enumerate(left) if found.duplicate_of[n] is None and n not in found.reasons]
        if len(stay) == len(left):
            return stay, reasons
        left = stay


def find_same(crystals: Sequence[Crystal], results: Results) -> SameStructures:
    """As :func:`find_duplicates`, but each crystal with all the others: their order makes no difference."""
    order = sorted(range(len(crystals)), key=lambda k: content_hash(crystals[k]))
    several, cells, near, broken = _candidates([crystals[k] for k in order], results, Among.OTHERS)
    found = all_matches(cells, cells, near, results)
    others: list[list[int]] = [[] for _ in crystals]
    for n, matches in enumerate(found.matches):
        others[order[several[n]]] = sorted(order[several[match]] for match in matches)
    reasons = broken | {several[n]: reason for n, reason in found.reasons.items()}
    return SameStructures(others, found.left_out, {order[n]: reason for n, reason in sorted(reasons.items())})


def _candidates(
    crystals: Sequence[Crystal], results: Results, among: Among
) -> tuple[list[int], Cells, Candidates, dict[int, str]]:
    """The crystals whose composition is not alone, their primitive cells, what may match them, what has no cell."""
    times = Counter(crystal.formula for crystal in crystals)
    several = [k for k, crystal in enumerate(crystals) if times[crystal.formula] > 1]
    reduced = primitive_cells([crystals[k] for k in several], results)

    def describe(indices: Sequence[int]) -> npt.NDArray[np.float64]:
        return structure_fingerprints([crystals[several[n]] for n in indices], results)[0]

    near = candidates(reduced.cells, reduced.cells, (describe, describe), among)
    return several, reduced.cells, near, {several[n]: reason for n, reason in reduced.reasons.items()}
