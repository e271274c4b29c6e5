"""The search of a set for a crystal that matches: which ones need be compared at all, and whether one of them does.

Crystals of another composition or of another number of atoms in the primitive cell cannot match. Among the rest, where
there are very many, as in a set of one composition, only the nearest in the structure fingerprint are compared, among
those whose lattice can be mapped onto the crystal's at all: hardly one in three of Carbon-24, and most of them match.
No more than some hundred are looked at, so that a task stays small and the work grows with the number of crystals.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import reason_of
from dpcdvae.parallel.results import Kind, Result, Results, joint_hash
from dpcdvae.structures.content import content_hash
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.lattice_mapping import Integers, lattice_mappings
from dpcdvae.structures.structure_matcher import ALGORITHM, Distance, compare
from dpcdvae.structures.tolerances import PUBLISHED

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int32]
Cells = Sequence[Crystal | None]
Describe = Callable[[Sequence[int]], Floats]
"""Indices into a set of crystals -> (n, 61) structure fingerprints, NaN where there is none."""

NEAREST = 32
"""Crystals of a fitting lattice that one is compared with at most: the nearest in the structure fingerprint.

Measured with 1000 crystals of CrysBFN and 200 of Carbon-24's test set, for 8, 16, 32 and all: METRe 0.960 each, cRMSE
0.1754, 0.1662, 0.1645 and 0.1639, the share that any of them fits 0.665, 0.735, 0.750 and 0.755.
"""

LOOKED_AT = 16
"""Times as many are looked at for their lattices, the nearest in the fingerprint; what is farther is left out."""

_PART = 8  # comparisons at a time where the first match is enough
_HELD = 2_000_000  # distances held at a time: 16 MB


class Among(Enum):
    """Which of the other set may match a crystal."""

    ALL = "all"
    OTHERS = "the two sets are one: all but itself"
    EARLIER = "the two sets are one: what comes earlier in it"

    def eligible(self, group: Places, k: int) -> npt.NDArray[np.intp]:
        """Places in ``group``, ascending indices, of those that crystal k is compared with."""
        if self is Among.OTHERS:
            return np.flatnonzero(group != k)
        return np.arange(len(group) if self is Among.ALL else np.searchsorted(group, k))


@dataclass(frozen=True)
class Candidates:
    """Result of :func:`candidates`.

    Attributes:
        places: for each of the cells (c,) indices into the others.
        farther: (n,) whether there are more of the same composition and size, too many to be looked at.
    """

    places: list[Places]
    farther: npt.NDArray[np.bool_]


def candidates(
    cells: Cells, others: Cells, describe: tuple[Describe, Describe], among: Among = Among.ALL
) -> Candidates:
    """For each of ``cells`` which of ``others`` might match it; of more than ``NEAREST`` the nearest first.

    Args:
        cells: primitive cells, None where there is none.
        describe: gives the fingerprints of cells and of others; asked only for crystals of groups that are too large.
        among: which of the others.
    """
    members: dict[tuple[str, int], list[int]] = defaultdict(list)
    for j, other in enumerate(others):
        if other is not None:
            members[other.formula, other.num_atoms].append(j)
    groups = {key: np.array(group, np.int32) for key, group in members.items()}
    found = Candidates([np.zeros(0, np.int32)] * len(cells), np.zeros(len(cells), bool))
    crowded: dict[tuple[str, int], list[int]] = defaultdict(list)
    for k, cell in enumerate(cells):
        key = ("", 0) if cell is None else (cell.formula, cell.num_atoms)
        if key in groups:
            found.places[k] = groups[key][among.eligible(groups[key], k)]
            if len(found.places[k]) > NEAREST:
                crowded[key].append(k)
    ours = _prints(describe[0], list(crowded.values()))
    theirs = _prints(describe[1], [groups[key].tolist() for key in crowded])
    for (key, group), mine, prints in zip(crowded.items(), ours, theirs, strict=True):
        for k, distances in zip(group, _distances(mine, prints), strict=True):
            places = found.places[k]
            near = _nearest(distances[among.eligible(groups[key], k)], LOOKED_AT * NEAREST)
            found.places[k], found.farther[k] = places[near], len(near) < len(places)
    return found


def _prints(describe: Describe, groups: Sequence[Sequence[int]]) -> list[Floats]:
    """The fingerprints of each group, asked for at once."""
    if not groups:
        return []
    return np.split(describe(list(itertools.chain(*groups))), np.cumsum([len(group) for group in groups])[:-1])


def _distances(rows: Floats, others: Floats) -> Iterator[Floats]:
    """(others,) for each of the rows."""
    from scipy.spatial.distance import cdist

    size = max(1, _HELD // len(others))
    for start in range(0, len(rows), size):
        yield from cdist(rows[start : start + size], others)


def _nearest(distances: Floats, bound: int) -> npt.NDArray[np.intp]:
    """The first ``bound`` places of a stable sort; without a fingerprint comes last."""
    # What differs by round-off alone keeps the order of the set.
    rounded = np.round(np.nan_to_num(distances, nan=np.inf), 6)
    near = np.arange(len(rounded))
    if len(rounded) > bound:
        last = np.partition(rounded, bound - 1)[bound - 1]
        closer, ties = np.flatnonzero(rounded < last), np.flatnonzero(rounded == last)
        near = np.sort(np.concatenate([closer, ties[: bound - len(closer)]]))
    return near[np.argsort(rounded[near], kind="stable")]


@dataclass(frozen=True)
class Found:
    """Which candidate a crystal matches.

    Attributes:
        match: for each crystal the index of its match, None without one.
        rms: (n,) the distance of :func:`nearest_matches`, infinite without a match.
        left_out: crystals with more candidates of a fitting lattice than they were compared with, or too many to know.
        reasons: crystal -> why it is undecided; such a crystal has no match.
        other_reasons: crystal of the other set -> why nothing could be compared with it.
    """

    match: list[int | None]
    rms: Floats
    left_out: int
    reasons: dict[int, str]
    other_reasons: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AllFound:
    """Which candidates a crystal matches.

    Attributes:
        matches: for each crystal the indices of its matches.
        left_out: crystals with more candidates than they were compared with.
        reasons: crystal -> why it is undecided; such a crystal has no matches.
    """

    matches: list[list[int]]
    left_out: int
    reasons: dict[int, str]


Task = tuple[Crystal, Sequence[Crystal]]
Computed = tuple[list[int], list[Floats | None], dict[int, str]]


class _Tasks(Sequence[Task]):
    """The comparisons, each put together when it is asked for: all of them at once hold every crystal many times."""

    def __init__(self, cells: Cells, others: Cells, places: Sequence[Places]) -> None:
        self.which = [k for k in range(len(cells)) if len(places[k])]
        self._cells, self._others, self._places = cells, others, places

    def __len__(self) -> int:
        return len(self.which)

    def __getitem__(self, index: Any) -> Any:
        k = self.which[index]
        return self._cells[k], [self._others[j] for j in self._places[k].tolist()]


def nearest_matches(cells: Cells, others: Cells, chosen: Candidates, results: Results) -> Found:
    """For each of ``cells`` the candidate of the least rms displacement, as ``get_rms_dist(other, cell)``."""
    return _one_each(_compute(nearest_match, "nearest-match", cells, others, chosen, results), chosen, nearest=True)


def first_matches(cells: Cells, others: Cells, chosen: Candidates, results: Results) -> Found:
    """For each of ``cells`` the first candidate that fits, as ``fit(other, cell)``."""
    return _one_each(_compute(first_match, "first-match", cells, others, chosen, results), chosen, nearest=False)


def all_matches(cells: Cells, others: Cells, chosen: Candidates, results: Results) -> AllFound:
    """For each of ``cells`` every candidate that fits, as ``fit(other, cell)``, of the ``NEAREST``."""
    which, found, reasons = _compute(every_match, "all-matches", cells, others, chosen, results)
    matches: list[list[int]] = [[] for _ in cells]
    left_out = 0
    for k, vector in zip(which, found, strict=True):
        if vector is not None:
            matches[k] = [int(chosen.places[k][int(place)]) for place in vector[1:]]
            left_out += bool(vector[0]) or bool(chosen.farther[k])
    return AllFound(matches, left_out, reasons)


def _compute(
    function: Callable[[Task], Result],
    name: str,
    cells: Cells,
    others: Cells,
    chosen: Candidates,
    results: Results,
) -> Computed:
    """The crystals that have candidates, what the comparison with these gave, and by crystal why it gave nothing."""
    hashes = {id(cell): content_hash(cell) for cell in (*cells, *others) if cell is not None}
    tasks = _Tasks(cells, others, chosen.places)
    keys = [joint_hash([hashes[id(cell)], *(hashes[id(other)] for other in near)]) for cell, near in tasks]
    kind = Kind(name, ALGORITHM, {**asdict(PUBLISHED), "most": NEAREST})
    found, reasons = results.compute(function, tasks, keys, kind, "comparing")
    return tasks.which, found, {tasks.which[n]: reason for n, reason in reasons.items()}


def _one_each(computed: Computed, chosen: Candidates, *, nearest: bool) -> Found:
    """One match of each crystal: the ``nearest``, of which more candidates could be nearer, or any, which is enough."""
    which, found, reasons = computed
    match: list[int | None] = [None] * len(chosen.places)
    rms = np.full(len(match), np.inf)
    left_out = 0
    for k, vector in zip(which, found, strict=True):
        if vector is None:
            continue
        matched, more = vector[0] >= 0, bool(vector[2])
        left_out += more or (bool(chosen.farther[k]) and (nearest or not matched))
        if matched:
            match[k], rms[k] = int(chosen.places[k][int(vector[0])]), vector[1]
    return Found(match, rms, left_out, reasons)


def nearest_match(task: Task) -> Result:
    """(place, rms, 1 if more candidates were left out) of the nearest one, (-1, inf, ...) without; or a reason."""
    cell, near = task
    fitting = _Fitting(near, cell)
    places = list(itertools.islice(fitting, NEAREST))
    distances, reason = _compare([(near[place], mappings) for place, mappings in places], cell)
    rms = np.array([np.inf, *(distance.rms for distance in distances)])
    nearest = int(rms.argmin())
    if not np.isfinite(rms[nearest]) and (fitting.reason or reason):
        return fitting.reason or reason
    return np.array([places[nearest - 1][0] if nearest else -1, rms[nearest], any(True for _ in fitting)], np.float64)


def first_match(task: Task) -> Result:
    """(place, largest displacement, 0) of the first candidate that fits, (-1, inf, 1 if more ...) without one."""
    cell, near = task
    fitting = _Fitting(near, cell)
    reason = ""
    for start in range(0, NEAREST, _PART):
        places = list(itertools.islice(fitting, min(_PART, NEAREST - start)))
        distances, problem = _compare([(near[place], mappings) for place, mappings in places], cell)
        reason = reason or problem
        for (place, _), distance in zip(places, distances, strict=True):
            if np.isfinite(distance.largest):
                return np.array([place, distance.largest, 0])
    return fitting.reason or reason or np.array([-1, np.inf, any(True for _ in fitting)], np.float64)


def every_match(task: Task) -> Result:
    """(1 if more candidates were left out, place of each that fits ...); or a reason where none is known to fit."""
    cell, near = task
    fitting = _Fitting(near, cell)
    places = list(itertools.islice(fitting, NEAREST))
    distances, reason = _compare([(near[place], mappings) for place, mappings in places], cell)
    fit = [place for (place, _), one in zip(places, distances, strict=True) if np.isfinite(one.largest)]
    if not fit and (fitting.reason or reason):
        return fitting.reason or reason
    return np.array([any(True for _ in fitting), *fit], np.float64)


class _Fitting(Iterator[tuple[int, Integers]]):
    """Place and lattice mappings of the candidates that have any; keeps the reason why one could not be looked at."""

    def __init__(self, near: Sequence[Crystal], cell: Crystal) -> None:
        self.reason = ""
        self._near, self._cell = enumerate(near), cell

    def __next__(self) -> tuple[int, Integers]:
        for place, other in self._near:
            try:
                mappings = lattice_mappings(other, self._cell, PUBLISHED)
            except Exception as error:  # odd cells break it in many ways: counted, with the reason
                self.reason = self.reason or reason_of(error)
                continue
            if len(mappings):
                return place, mappings
        raise StopIteration


def _compare(near: Sequence[tuple[Crystal, Integers]], cell: Crystal) -> tuple[list[Distance], str]:
    """The distances, and why some of them may be missing."""
    try:
        return compare([other for other, _ in near], cell, PUBLISHED, [mappings for _, mappings in near]), ""
    except Exception as error:  # an odd cell breaks the comparison with all: one by one then
        if len(near) == 1:
            return [Distance(np.inf, np.inf)], reason_of(error)
    parts = [_compare([one], cell) for one in near]
    return [distances[0] for distances, _ in parts], next((reason for _, reason in parts if reason), "")
