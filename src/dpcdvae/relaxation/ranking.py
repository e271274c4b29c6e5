"""What to go on with after a campaign: every minimum once, the lowest enthalpy first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dpcdvae.crystal import Crystal
from dpcdvae.parallel import HERE, Engine, Lost
from dpcdvae.relaxation.comparison import first_matches
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

    Enthalpies of different compositions cannot be compared, so each has its own ranks. Of duplicates the one of
    lowest enthalpy stays. ``time_limit`` seconds are for all comparisons of one crystal; one that runs out of
    them counts as no duplicate.
    """
    converged = sorted((item for item in relaxed if item.converged), key=lambda item: item.enthalpy)
    earlier = [_alike(converged, k) for k in range(len(converged))]
    several = [k for k, others in enumerate(earlier) if others]
    groups = [(converged[k].final, [converged[j].final for j in earlier[k]]) for k in several]
    original = list(range(len(converged)))
    for k, found in zip(several, first_matches(groups, engine=engine, time_limit=time_limit), strict=True):
        if not isinstance(found, Lost | None):
            original[k] = original[earlier[k][found]]
    copies: dict[int, int] = defaultdict(int)
    for k in original:
        copies[k] += 1
    by_formula: dict[str, list[int]] = defaultdict(list)
    for k in copies:
        by_formula[converged[k].final.formula].append(k)
    return [
        Ranked(converged[k], place + 1, converged[k].enthalpy - converged[members[0]].enthalpy, copies[k])
        for _, members in sorted(by_formula.items())
        for place, k in enumerate(members)
    ]


def _alike(ordered: Sequence[Relaxed], k: int) -> list[int]:
    """Places of crystals of lower enthalpy that may be the same as ``ordered[k]``, from the lowest on."""
    item, alike = ordered[k], []
    for j in range(k - 1, -1, -1):
        other = ordered[j]
        if item.enthalpy - other.enthalpy > ENTHALPY_WINDOW:
            break
        if other.final.formula == item.final.formula and abs(other.volume / item.volume - 1) < VOLUME_WINDOW:
            alike.append(j)
    return alike[::-1]
