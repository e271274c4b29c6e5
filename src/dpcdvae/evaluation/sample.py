"""The crystals under evaluation, with what they are compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dpcdvae.evaluation.coverage import Cutoffs
from dpcdvae.evaluation.energy import EnergyModel
from dpcdvae.evaluation.reference import Reference
from dpcdvae.evaluation.stability import Stability
from dpcdvae.io import CrystalList, Failure
from dpcdvae.parallel.results import Results
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.space_groups import REDUCED

Derived = TypeVar("Derived")
Value = TypeVar("Value")


@dataclass
class Sample:
    """The crystals under evaluation. What metrics compute of them, they share through :meth:`once`.

    Attributes:
        crystals: those that could be read; they may hold NaN or have no volume.
        failures: those that could not; every rate counts them as not fulfilling it.
        paired: whether the crystals are reconstructions of those of the reference.
        results: how, and how long, what is costly is computed, and where it is kept.
        seed: of the bootstrap intervals and of what is drawn at random.
        given_up: filled by the metrics: which comparison was cut off, and the reason.
        energy_model: where energies are asked for; the reference needs crystals then.
        cutoffs: of the coverage, where they are not to be those of the data set.
        training: what a generator has learnt from, for novelty; None where it is not known.
        stability: where energies above hull are asked for.
        symmetry: of :data:`~dpcdvae.structures.space_groups.CONVENTIONS`.
        relaxed: the same crystals after relaxation, with the same ids or in the same order.
    """

    crystals: Sequence[Crystal]
    failures: Sequence[Failure]
    reference: Reference
    paired: bool
    results: Results
    seed: int
    given_up: list[dict[str, str]] = field(default_factory=list)
    cutoffs: Cutoffs | None = None
    energy_model: EnergyModel | None = None
    training: Reference | None = None
    stability: Stability | None = None
    symmetry: str = REDUCED
    relaxed: CrystalList | None = None
    _derived: dict[Callable[..., Any], Any] = field(default_factory=dict, repr=False)
    _of_reference: dict[Callable[..., Any], Any] = field(default_factory=dict, repr=False)

    def once(self, derive: Callable[[Sample], Derived]) -> Derived:
        """``derive(self)``, kept: how metrics share what is costly to compute."""
        if derive not in self._derived:
            self._derived[derive] = derive(self)
        derived: Derived = self._derived[derive]
        return derived

    def once_for_all(self, derive: Callable[[Sample], Derived]) -> Derived:
        """The same for what depends on the reference alone: the samples of the baselines share it."""
        if derive not in self._of_reference:
            self._of_reference[derive] = derive(self)
        derived: Derived = self._of_reference[derive]
        return derived

    @property
    def generated(self) -> int:
        """Number of crystals asked for or found, those that could not be read included."""
        return len(self.crystals) + len(self.failures)

    @property
    def measurable(self) -> list[Crystal]:
        """Crystals with finite coordinates and a volume: only those have a density."""
        return self.once(_measurable)

    def give_up(self, what: str, crystals: Sequence[Crystal], reasons: Mapping[int, str]) -> None:
        """Notes for the report why some of ``crystals`` have no result."""
        self.given_up += [{"what": what, "id": crystals[k].id, "reason": reason} for k, reason in reasons.items()]

    def spread(self, values: Sequence[Value]) -> list[Value | None]:
        """One value for each of ``crystals`` from those of ``measurable``, None for all others."""
        known = iter(values)
        return [next(known) if crystal.problem() is None else None for crystal in self.crystals]


def _measurable(sample: Sample) -> list[Crystal]:
    return [crystal for crystal in sample.crystals if crystal.problem() is None]
