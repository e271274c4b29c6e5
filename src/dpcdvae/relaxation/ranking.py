"""What to go on with after a campaign: every minimum once, the lowest enthalpy first."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dpcdvae.parallel import HERE, TIME_LIMIT, Engine
from dpcdvae.parallel.results import Kind, Results
from dpcdvae.relaxation.relaxed_crystal import Relaxed
from dpcdvae.structures.content import content_hash
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.pair_matching import match_pairs
from dpcdvae.structures.tolerances import Tolerances

# Only crystals as alike as this are compared: the same minimum, found twice, is within the thresholds of a relaxation.
ENTHALPY_WINDOW = 0.01  # eV/atom
VOLUME_WINDOW = 0.05  # a fraction
DISTANCE_WINDOW = 0.05  # a fraction, of each of the mean distances to neighbours

SAME_MINIMUM = Tolerances(ltol=0.05, stol=0.1, angle_tol=3.0)
"""Of the comparison: after relaxation the same minimum is the same to a few hundredths."""

NEIGHBOURS = 12
"""Of each atom, in :func:`mean_neighbour_distances`: the first shell of a close packing."""
REACH = 2.0
"""How far a neighbour is looked for, over (V/N)^(1/3): there are 33 of them in a structure of even density."""

SLICE = 256  # crystals looked at in one go

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ranked:
    """A minimum. ``above`` is its enthalpy above the lowest of its composition, eV/atom; ``copies`` how often it
    was found, itself included; ``rank`` counts from 1 within the composition."""

    relaxed: Relaxed
    rank: int
    above: float
    copies: int

    def to_crystal(self) -> Crystal:
        """With all quantities of the relaxation as properties, and these."""
        crystal = self.relaxed.to_crystal()
        more = {"rank": self.rank, "enthalpy_above_lowest_eV_per_atom": self.above, "copies": self.copies}
        return replace(crystal, properties={**crystal.properties, **more})


def rank(relaxed: Sequence[Relaxed], *, engine: Engine = HERE, time_limit: float = TIME_LIMIT) -> list[Ranked]:
    """Converged crystals without duplicates, by enthalpy per atom within each composition, compositions by name.

    Enthalpies of different compositions cannot be compared, so each has its own ranks. A crystal is a duplicate of
    a minimum of lower enthalpy that it matches, not of another duplicate: what is alike step by step alone stays.
    ``time_limit`` seconds are for one comparison; one that runs out of them finds no duplicate.
    """
    converged = [item for item in relaxed if item.converged]
    converged.sort(key=lambda item: (item.final.formula, item.enthalpy))
    copies = Counter(_minima(converged, Results(engine, time_limit)))
    members: dict[str, list[int]] = defaultdict(list)
    for k in sorted(copies):
        members[converged[k].final.formula].append(k)
    return [
        Ranked(converged[k], place + 1, converged[k].enthalpy - converged[places[0]].enthalpy, copies[k])
        for places in members.values()
        for place, k in enumerate(places)
    ]


def _minima(ordered: Sequence[Relaxed], results: Results) -> list[int]:
    """For each crystal, by composition and enthalpy, the place of the minimum that it is a copy of, or its own.

    In rounds: a crystal is a minimum once nothing undecided lies below it that it may be a copy of, and then all
    undecided ones above are compared with it. So nothing is ever compared with a copy.
    """
    alike = _Alike(ordered, results)
    minimum: dict[int, int] = {}
    undecided = np.arange(len(ordered))
    while len(undecided):
        found = np.array([k for k in undecided.tolist() if next(alike.below(k, undecided), None) is None], np.int64)
        minimum |= {k: k for k in found.tolist()}
        pairs = [(k, j) for k in undecided.tolist() if k not in minimum for j in alike.below(k, found)]
        lower, upper = [ordered[j].final for _, j in pairs], [ordered[k].final for k, _ in pairs]
        fits = match_pairs(lower, upper, results, [SAME_MINIMUM]).fits
        for k, j in sorted(pair for pair, same in zip(pairs, fits, strict=True) if same):
            minimum.setdefault(k, j)
        undecided = np.array([k for k in undecided.tolist() if k not in minimum], np.int64)
    return [minimum[k] for k in range(len(ordered))]


class _Alike:
    """Which crystals may be the same, by what is cheap to compare.

    Args:
        ordered: by composition and enthalpy.
    """

    def __init__(self, ordered: Sequence[Relaxed], results: Results) -> None:
        finals = [item.final for item in ordered]
        distances, _ = results.compute(
            mean_neighbour_distances,
            finals,
            [content_hash(crystal) for crystal in finals],
            Kind("neighbour-distances", "1"),
            "looking at neighbours",
        )
        unknown = np.full(NEIGHBOURS, np.nan)  # like nothing
        of_all = np.array([unknown if one is None else one for one in distances]).reshape(-1, NEIGHBOURS)
        volumes = np.array([item.volume for item in ordered])
        self.logarithms: Floats = np.log(np.column_stack([volumes, of_all]))
        self.windows = np.log1p([VOLUME_WINDOW] + [DISTANCE_WINDOW] * NEIGHBOURS)
        self.lowest = _lowest_in_window(ordered)

    def below(self, k: int, places: Places) -> Iterator[int]:
        """Those of the ``places`` below ``k`` that may be the same as it, from the nearest on."""
        start, end = np.searchsorted(places, [self.lowest[k], k])
        while end > start:
            some = places[max(start, end - SLICE) : end][::-1]
            near = (np.abs(self.logarithms[some] - self.logarithms[k]) < self.windows).all(axis=1)
            yield from some[near].tolist()
            end -= len(some)


def _lowest_in_window(ordered: Sequence[Relaxed]) -> list[int]:
    """For each crystal the first one of its composition that is no more than the window below it."""
    lowest: list[int] = []
    for k, item in enumerate(ordered):
        first = lowest[-1] if k else 0
        while (
            ordered[first].final.formula != item.final.formula
            or item.enthalpy - ordered[first].enthalpy > ENTHALPY_WINDOW
        ):
            first += 1
        lowest.append(first)
    return lowest


def mean_neighbour_distances(crystal: Crystal) -> npt.NDArray[np.float64]:
    """(``NEIGHBOURS``,) Å: the distance of the first, second ... neighbour, each the mean over the atoms.

    The same for every cell of a crystal, and hardly another where it is slightly distorted: the average minimum
    distances of Widdowson et al. (MATCH 87, 529, 2022), here up to ``REACH``, which stands for what lies beyond.
    """
    reach = REACH * float(np.cbrt(crystal.volume / crystal.num_atoms))
    centres, _, _, distances = crystal.to_pymatgen().get_neighbor_list(reach)
    nearest = np.full((crystal.num_atoms, NEIGHBOURS), reach)
    for atom in range(crystal.num_atoms):
        found = np.sort(distances[centres == atom])[:NEIGHBOURS]
        nearest[atom, : len(found)] = found
    mean: npt.NDArray[np.float64] = nearest.mean(axis=0)
    return mean
