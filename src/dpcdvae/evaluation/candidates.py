"""Which crystals of a set need be compared with a crystal, and whether one of them matches it.

Crystals of another composition or of another number of atoms in the primitive cell cannot match. Among the rest, where
there are very many, as in a set of one composition, only the nearest in the structure fingerprint are compared, among
those whose lattice can be mapped onto the crystal's at all: hardly one in three of Carbon-24, and most of them match.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from dpcdvae.crystal import Crystal
from dpcdvae.evaluation.lattice_mapping import Integers, lattice_mappings
from dpcdvae.evaluation.matching import MATCHER
from dpcdvae.evaluation.primitive_cells import reason_of
from dpcdvae.evaluation.result_cache import Kind, Result, ResultCache, content_hash, joint_hash
from dpcdvae.evaluation.structure_matcher import ALGORITHM, Distance, compare
from dpcdvae.parallel import Lost

Floats = npt.NDArray[np.float64]
Cells = Sequence[Crystal | None]
Describe = Callable[[Sequence[int]], Floats]
"""Indices into a set of crystals -> (n, 61) structure fingerprints, NaN where there is none."""

NEAREST = 32
"""Crystals of a fitting lattice that one is compared with at most: the nearest in the structure fingerprint.

Measured with 1000 crystals of CrysBFN and 200 of Carbon-24's test set, for 8, 16, 32 and all: METRe 0.960 each, cRMSE
0.1754, 0.1662, 0.1645 and 0.1639, the share that any of them fits 0.665, 0.735, 0.750 and 0.755.
"""

_PART = 8  # comparisons at a time where the first match is enough


def candidates(
    cells: Cells, others: Cells, describe: tuple[Describe, Describe], *, most: int = NEAREST, earlier: bool = False
) -> list[list[int]]:
    """For each of ``cells`` which of ``others`` might match it, where there are more than ``most`` the nearest first.

    Args:
        cells: primitive cells, None where there is none.
        describe: gives the fingerprints of cells and of others; asked only for crystals of groups that are too large.
        earlier: the two sets are one, and only what comes earlier in it counts.
    """
    groups: dict[tuple[str, int], list[int]] = defaultdict(list)
    for j, other in enumerate(others):
        if other is not None:
            groups[other.formula, other.num_atoms].append(j)
    chosen: list[list[int]] = [[] for _ in cells]
    crowded: dict[tuple[str, int], list[int]] = defaultdict(list)
    for k, cell in enumerate(cells):
        if cell is not None:
            key = cell.formula, cell.num_atoms
            chosen[k] = [j for j in groups.get(key, []) if not earlier or j < k]
            if len(chosen[k]) > most:
                crowded[key].append(k)
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
            chosen[k] = [chosen[k][n] for n in order]
    return chosen


def _asked(describe: Describe, indices: list[int]) -> dict[int, Floats]:
    return dict(zip(indices, describe(indices), strict=True)) if indices else {}


@dataclass(frozen=True)
class Found:
    """Which candidate a crystal matches.

    Attributes:
        match: for each crystal the index of its match, None without one.
        rms: (n,) the distance of :func:`nearest_matches`, infinite without a match.
        left_out: crystals with more candidates of a fitting lattice than they were compared with.
        cut: crystal -> why its comparisons were given up; such a crystal has no match.
    """

    match: list[int | None]
    rms: Floats
    left_out: int
    cut: dict[int, str]


Task = tuple[Crystal, Sequence[Crystal], int]


def nearest_matches(
    cells: Cells, others: Cells, chosen: Sequence[Sequence[int]], results: ResultCache, most: int = NEAREST
) -> Found:
    """For each of ``cells`` the candidate of the least rms displacement, as ``get_rms_dist(other, cell)``."""
    return _search(nearest_match, "nearest-match", cells, others, chosen, results, most)


def first_matches(
    cells: Cells, others: Cells, chosen: Sequence[Sequence[int]], results: ResultCache, most: int = NEAREST
) -> Found:
    """For each of ``cells`` the first candidate that fits, as ``fit(other, cell)``."""
    return _search(first_match, "first-match", cells, others, chosen, results, most)


def _search(
    function: Callable[[Task], Result],
    name: str,
    cells: Cells,
    others: Cells,
    chosen: Sequence[Sequence[int]],
    results: ResultCache,
    most: int,
) -> Found:
    hashes = {id(cell): content_hash(cell) for cell in (*cells, *others) if cell is not None}
    tasks: dict[int, Task] = {}
    for k, cell in enumerate(cells):
        if cell is not None and chosen[k]:
            tasks[k] = cell, [other for j in chosen[k] if (other := others[j]) is not None], most
    keys = [joint_hash([hashes[id(cell)], *(hashes[id(other)] for other in near)]) for cell, near, _ in tasks.values()]
    kind = Kind(name, ALGORITHM, {**asdict(MATCHER), "most": most})
    found = results.results(function, list(tasks.values()), keys, kind, "comparing")
    match: list[int | None] = [None] * len(cells)
    rms = np.full(len(cells), np.inf)
    left_out = 0
    cut: dict[int, str] = {}
    for k, result in zip(tasks, found, strict=True):
        if isinstance(result, Lost):
            cut[k] = result.reason
        elif isinstance(result, str):
            cut[k] = result
        else:
            left_out += int(result[2])
            if result[0] >= 0:
                match[k], rms[k] = chosen[k][int(result[0])], result[1]
    return Found(match, rms, left_out, cut)


def nearest_match(task: Task) -> Result:
    """(place, rms, 1 if more candidates were left out) of the nearest one, (-1, inf, ...) without; or why not known."""
    cell, near, most = task
    fitting = _Fitting(near, cell)
    places = list(itertools.islice(fitting, most))
    distances, reason = _compare([(near[place], mappings) for place, mappings in places], cell)
    rms = np.array([np.inf, *(distance.rms for distance in distances)])
    nearest = int(rms.argmin())
    if not np.isfinite(rms[nearest]) and (fitting.reason or reason):
        return fitting.reason or reason
    return np.array([places[nearest - 1][0] if nearest else -1, rms[nearest], any(True for _ in fitting)], np.float64)


def first_match(task: Task) -> Result:
    """(place, largest displacement, 0) of the first candidate that fits, (-1, inf, 1 if more ...) without one."""
    cell, near, most = task
    fitting = _Fitting(near, cell)
    reason = ""
    for start in range(0, most, _PART):
        places = list(itertools.islice(fitting, min(_PART, most - start)))
        distances, problem = _compare([(near[place], mappings) for place, mappings in places], cell)
        reason = reason or problem
        for (place, _), distance in zip(places, distances, strict=True):
            if np.isfinite(distance.largest):
                return np.array([place, distance.largest, 0])
    return fitting.reason or reason or np.array([-1, np.inf, any(True for _ in fitting)], np.float64)


class _Fitting(Iterator[tuple[int, Integers]]):
    """Place and lattice mappings of the candidates that have any; keeps why one could not be looked at."""

    def __init__(self, near: Sequence[Crystal], cell: Crystal) -> None:
        self.reason = ""
        self._near, self._cell = enumerate(near), cell

    def __next__(self) -> tuple[int, Integers]:
        for place, other in self._near:
            try:
                mappings = lattice_mappings(other, self._cell, MATCHER)
            except Exception as error:  # odd cells break it in many ways: counted, with the reason
                self.reason = self.reason or reason_of(error)
                continue
            if len(mappings):
                return place, mappings
        raise StopIteration


def _compare(near: Sequence[tuple[Crystal, Integers]], cell: Crystal) -> tuple[list[Distance], str]:
    """The distances, and why some of them may be missing."""
    try:
        return compare([other for other, _ in near], cell, MATCHER, [mappings for _, mappings in near]), ""
    except Exception as error:  # an odd cell breaks the comparison with all: one by one then
        if len(near) == 1:
            return [Distance(np.inf, np.inf)], reason_of(error)
    parts = [_compare([one], cell) for one in near]
    return [distances[0] for distances, _ in parts], next((reason for _, reason in parts if reason), "")
