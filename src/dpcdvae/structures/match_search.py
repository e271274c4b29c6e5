"""The search of a set for a crystal that matches, among the candidates of :mod:`dpcdvae.structures.match_candidates`.

A crystal is compared with the nearest of those whose lattice can be mapped onto its own at all: hardly one in three of
Carbon-24, and most of them match.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from dpcdvae.errors import reason_of
from dpcdvae.parallel.results import Kind, Result, Results, joint_hash
from dpcdvae.structures import match_candidates
from dpcdvae.structures.content import content_hash
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.lattice_mapping import Integers, lattice_mappings
from dpcdvae.structures.match_candidates import Candidates, Cells, Floats, Places
from dpcdvae.structures.structure_matcher import ALGORITHM, Distance, compare
from dpcdvae.structures.tolerances import PUBLISHED

_PART = 8  # comparisons at a time where the first match is enough


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
    kind = Kind(name, ALGORITHM, {**asdict(PUBLISHED), "most": match_candidates.NEAREST})
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
    places = list(itertools.islice(fitting, match_candidates.NEAREST))
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
    for start in range(0, match_candidates.NEAREST, _PART):
        places = list(itertools.islice(fitting, min(_PART, match_candidates.NEAREST - start)))
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
    places = list(itertools.islice(fitting, match_candidates.NEAREST))
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
