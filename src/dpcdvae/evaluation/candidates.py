"""Which crystals of a set need be compared with a crystal, and whether one of them matches it.

Crystals of another composition or of another number of atoms in the primitive cell cannot match. Among the rest, where
there are very many, as in a set of one composition, the nearest in the structure fingerprint are compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from dpcdvae.crystal import Crystal
from dpcdvae.evaluation.matching import MATCHER
from dpcdvae.evaluation.primitive_cells import reason_of
from dpcdvae.evaluation.result_cache import Kind, Result, ResultCache, content_hash, joint_hash
from dpcdvae.evaluation.structure_matcher import ALGORITHM, Distance, compare
from dpcdvae.parallel import Lost

Floats = npt.NDArray[np.float64]
Cells = Sequence[Crystal | None]
Describe = Callable[[Sequence[int]], Floats]
"""Indices into a set of crystals -> (n, 61) structure fingerprints, NaN where there is none."""

NEAREST = 64
"""Crystals compared with one at most."""

_PART = 8  # comparisons at a time where the first match is enough


@dataclass(frozen=True)
class Candidates:
    """Result of :func:`candidates`.

    Attributes:
        chosen: for each crystal which of the set are to be compared with it, nearest first where there were too many.
        left_out: (n,) whether there were.
    """

    chosen: list[list[int]]
    left_out: npt.NDArray[np.bool_]


def candidates(
    cells: Cells, others: Cells, describe: tuple[Describe, Describe], *, most: int = NEAREST, earlier: bool = False
) -> Candidates:
    """Chooses among ``others`` for each of ``cells``.

    Args:
        cells: primitive cells, None where there is none.
        describe: gives the fingerprints of cells and of others; asked only for crystals of groups that are too large.
        most: candidates of one crystal.
        earlier: the two sets are one, and only what comes earlier in it counts.
    """
    groups: dict[tuple[str, int], list[int]] = defaultdict(list)
    for j, other in enumerate(others):
        if other is not None:
            groups[other.formula, other.num_atoms].append(j)
    chosen: list[list[int]] = [[] for _ in cells]
    left_out = np.zeros(len(cells), bool)
    crowded: dict[tuple[str, int], list[int]] = defaultdict(list)
    for k, cell in enumerate(cells):
        if cell is None:
            continue
        key = cell.formula, cell.num_atoms
        chosen[k] = [j for j in groups.get(key, []) if not earlier or j < k]
        if len(chosen[k]) > most:
            crowded[key].append(k)
            left_out[k] = True
    ours = _asked(describe[0], [k for group in crowded.values() for k in group])
    theirs = _asked(describe[1], [j for key in crowded for j in groups[key]])
    for key, group in crowded.items():
        place = {j: n for n, j in enumerate(groups[key])}
        prints = np.stack([theirs[j] for j in groups[key]])
        for k in group:
            rows = prints[[place[j] for j in chosen[k]]]
            distances = np.sqrt(((rows - ours[k]) ** 2).sum(axis=1))
            # What differs by round-off alone keeps the order of the set; without a fingerprint comes last.
            order = np.argsort(np.round(np.nan_to_num(distances, nan=np.inf), 6), kind="stable")
            chosen[k] = [chosen[k][n] for n in order[:most]]
    return Candidates(chosen, left_out)


def _asked(describe: Describe, indices: list[int]) -> dict[int, Floats]:
    return dict(zip(indices, describe(indices), strict=True)) if indices else {}


@dataclass(frozen=True)
class Found:
    """Which candidate a crystal matches.

    Attributes:
        match: for each crystal the index of its match, None without one.
        rms: (n,) the distance of :func:`nearest_matches`, infinite without a match.
        cut: crystal -> why its comparisons were given up; such a crystal has no match.
    """

    match: list[int | None]
    rms: Floats
    cut: dict[int, str]


Task = tuple[Crystal, Sequence[Crystal]]


def nearest_matches(cells: Cells, others: Cells, chosen: Sequence[Sequence[int]], results: ResultCache) -> Found:
    """For each of ``cells`` the candidate of the least rms displacement, as ``get_rms_dist(other, cell)``."""
    return _search(nearest_match, "nearest-match", cells, others, chosen, results)


def first_matches(cells: Cells, others: Cells, chosen: Sequence[Sequence[int]], results: ResultCache) -> Found:
    """For each of ``cells`` the first candidate that fits, as ``fit(other, cell)``."""
    return _search(first_match, "first-match", cells, others, chosen, results)


def _search(
    function: Callable[[Task], Result],
    name: str,
    cells: Cells,
    others: Cells,
    chosen: Sequence[Sequence[int]],
    results: ResultCache,
) -> Found:
    hashes = {id(cell): content_hash(cell) for cell in (*cells, *others) if cell is not None}
    tasks: dict[int, Task] = {}
    for k, cell in enumerate(cells):
        if cell is not None and chosen[k]:
            tasks[k] = cell, [other for j in chosen[k] if (other := others[j]) is not None]
    keys = [joint_hash([hashes[id(cell)], *(hashes[id(other)] for other in near)]) for cell, near in tasks.values()]
    kind = Kind(name, ALGORITHM, asdict(MATCHER))
    found = results.results(function, list(tasks.values()), keys, kind, "comparing")
    match: list[int | None] = [None] * len(cells)
    rms = np.full(len(cells), np.inf)
    cut: dict[int, str] = {}
    for k, result in zip(tasks, found, strict=True):
        if isinstance(result, Lost):
            cut[k] = result.reason
        elif isinstance(result, str):
            cut[k] = result
        elif result[0] >= 0:
            match[k], rms[k] = chosen[k][int(result[0])], result[1]
    return Found(match, rms, cut)


def nearest_match(task: Task) -> Result:
    """(place, rms) of the nearest candidate, (-1, inf) without a match; or why that is not known."""
    cell, near = task
    distances, reason = _compare(near, cell)
    rms = np.array([distance.rms for distance in distances])
    place = int(rms.argmin())
    if np.isfinite(rms[place]):
        return np.array([place, rms[place]])
    return reason or np.array([-1, np.inf])


def first_match(task: Task) -> Result:
    """(place, largest displacement) of the first candidate that fits, (-1, inf) without one; or why not known."""
    cell, near = task
    reason = ""
    for start in range(0, len(near), _PART):
        distances, problem = _compare(near[start : start + _PART], cell)
        reason = reason or problem
        for place, distance in enumerate(distances, start):
            if np.isfinite(distance.largest):
                return np.array([place, distance.largest])
    return reason or np.array([-1, np.inf])


def _compare(near: Sequence[Crystal], cell: Crystal) -> tuple[list[Distance], str]:
    """The distances, and why some of them may be missing."""
    try:
        return compare(near, cell, MATCHER), ""
    except Exception as error:  # an odd cell breaks the comparison with all: one by one then
        if len(near) == 1:
            return [Distance(np.inf, np.inf)], reason_of(error)
    parts = [_compare([other], cell) for other in near]
    return [distances[0] for distances, _ in parts], next((reason for _, reason in parts if reason), "")
