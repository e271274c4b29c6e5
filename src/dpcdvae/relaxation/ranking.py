"""What to go on with after a campaign: every minimum once, the lowest enthalpy first."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from dpcdvae.crystal import Crystal
from dpcdvae.parallel import HERE, Engine
from dpcdvae.progress import Progress
from dpcdvae.relaxation.comparison import same_minimum
from dpcdvae.relaxation.relaxed import Relaxed

# Only crystals as alike as this are compared: the same minimum, found twice, is within the thresholds of a relaxation.
ENTHALPY_WINDOW = 0.01  # eV/atom
VOLUME_WINDOW = 0.05  # a fraction


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
        return replace(crystal, properties={**crystal.properties, **{k: float(v) for k, v in more.items()}})


def rank(relaxed: Sequence[Relaxed], *, engine: Engine = HERE, time_limit: float = 60.0) -> list[Ranked]:
    """Converged crystals without duplicates, by enthalpy per atom within each composition, compositions by name.

    Enthalpies of different compositions cannot be compared, so each has its own ranks. A crystal is a duplicate of
    a minimum of lower enthalpy that it matches, not of another duplicate: what is alike step by step alone stays.
    ``time_limit`` seconds are for one comparison; one that runs out of them finds no duplicate.
    """
    converged = sorted((item for item in relaxed if item.converged), key=lambda item: item.enthalpy)
    copies = Counter(_minima(converged, engine, time_limit))
    by_formula: dict[str, list[int]] = defaultdict(list)
    for k in sorted(copies):
        by_formula[converged[k].final.formula].append(k)
    return [
        Ranked(converged[k], place + 1, converged[k].enthalpy - converged[members[0]].enthalpy, copies[k])
        for _, members in sorted(by_formula.items())
        for place, k in enumerate(members)
    ]


def _minima(ordered: Sequence[Relaxed], engine: Engine, time_limit: float) -> list[int]:
    """For each crystal, by enthalpy, the place of the minimum that it is a copy of: its own if it is none.

    In rounds: a crystal is a minimum once nothing undecided lies below it that it may be a copy of, and then all
    undecided ones above are compared with it. So nothing is ever compared with a copy.
    """
    minimum: dict[int, int] = {}
    undecided = list(range(len(ordered)))
    with Progress("comparing", len(ordered)) as bar:
        while undecided:
            found = [k for k in undecided if next(_near(ordered, undecided, k), None) is None]
            minimum |= {k: k for k in found}
            pairs = [(k, j) for k in undecided if k not in minimum for j in _near(ordered, found, k)]
            crystals = [(ordered[j].final, ordered[k].final) for k, j in pairs]
            with closing(engine.stream(same_minimum, crystals, time_limit=time_limit)) as stream:
                same = {pairs[place] for place, result in stream if result is True}
            for k, j in sorted(same):
                minimum.setdefault(k, j)
            bar.advance(len(undecided) - len(undecided := [k for k in undecided if k not in minimum]))
    return [minimum[k] for k in range(len(ordered))]


def _near(ordered: Sequence[Relaxed], places: Sequence[int], k: int) -> Iterator[int]:
    """Those of the ``places`` below ``k`` whose crystals may be the same as ``ordered[k]``, from the nearest on."""
    item = ordered[k]
    for at in range(bisect_left(places, k) - 1, -1, -1):
        other = ordered[places[at]]
        if item.enthalpy - other.enthalpy > ENTHALPY_WINDOW:
            return
        if other.final.formula == item.final.formula and abs(other.volume / item.volume - 1) < VOLUME_WINDOW:
            yield places[at]
