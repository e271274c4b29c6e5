"""Reference phases of a convex hull: compositions with energies."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations


@dataclass(frozen=True)
class Phase:
    """A composition with its energy.

    Attributes:
        amounts: atoms of each element, in any multiple, by symbol.
        energy: eV/atom.
        id: a name, "" for none.
    """

    amounts: Mapping[str, float]
    energy: float
    id: str = ""

    @cached_property
    def fractions(self) -> dict[str, float]:
        """Atomic fractions by symbol, alphabetical."""
        total = sum(self.amounts.values())
        return {symbol: self.amounts[symbol] / total for symbol in sorted(self.amounts)}


@dataclass(frozen=True, eq=False)
class Phases:
    """The phases that crystals compete with.

    Attributes:
        source: where they are from, for the report.
        phases: in the order of the file.
        sha256: of the file, "" for phases that came from none.
        calculator: what gave the energies, "" where that is not known.
    """

    source: str
    phases: Sequence[Phase]
    sha256: str = ""
    calculator: str = ""

    @cached_property
    def _lowest(self) -> dict[frozenset[str], list[Phase]]:
        """By elements, of each composition the phase of lowest energy: no other can lie on a hull."""
        lowest: dict[tuple[tuple[str, float], ...], Phase] = {}
        for phase in self.phases:
            key = tuple((symbol, round(share, 8)) for symbol, share in phase.fractions.items())
            if key not in lowest or phase.energy < lowest[key].energy:
                lowest[key] = phase
        systems: dict[frozenset[str], list[Phase]] = {}
        for phase in lowest.values():
            systems.setdefault(frozenset(phase.amounts), []).append(phase)
        return systems

    def within(self, elements: Collection[str]) -> list[Phase]:
        """The phases made of these elements only, of each composition the lowest."""
        wanted = frozenset(elements)
        if 2 ** len(wanted) > len(self._lowest):
            return [phase for system, phases in self._lowest.items() if system <= wanted for phase in phases]
        subsets = chain.from_iterable(combinations(sorted(wanted), size) for size in range(1, len(wanted) + 1))
        return [phase for subset in subsets for phase in self._lowest.get(frozenset(subset), ())]

    def missing(self, elements: Iterable[str]) -> list[str]:
        """Those of the elements that have no phase of their own: without one there is no hull."""
        return sorted(element for element in elements if frozenset([element]) not in self._lowest)
