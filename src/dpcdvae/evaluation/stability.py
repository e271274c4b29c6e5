"""Energy above the convex hull of reference phases, for energies that come from outside."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError, reason_of, unknown_name
from dpcdvae.evaluation.phase_files import TOTAL
from dpcdvae.evaluation.phases import Phase, Phases
from dpcdvae.parallel import HERE, Lost
from dpcdvae.parallel.results import Kind, Results
from dpcdvae.structures.content import content_hash
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.primitive_cells import quiet

if TYPE_CHECKING:
    from pymatgen.analysis.phase_diagram import PDEntry

STABLE, METASTABLE = 0.0, 0.1
"""eV/atom above the hull: on or below it; within what synthesised crystals often lie (Sun et al. 2016, MatterGen)."""

ALGORITHM = "1"
"""Of the kept energies: to be raised with every change of the numbers."""

ROUNDING = 1e-6
"""eV/atom; a crystal that is a reference phase lies on the hull whatever the last digits of its energy."""

SUSPECT = -1.0
"""eV/atom; no compound lies so far below a sensible hull, but a calculator outside its domain says so."""


@dataclass(frozen=True)
class EnergySource:
    """Where the energies of the crystals come from.

    Attributes:
        name: for the report.
        energy: crystal -> energy of its cell, eV; Lost, with the reason, where there is none. Importable and
            picklable, as it runs in worker processes.
        calculator: what computed the energies, "" where that is not known.
        costly: whether worker processes and a time limit are worth it.
        settings: all that the energies depend on beside the crystal, so that they can be kept between runs; None
            where that is not known, and then they are not.
    """

    name: str
    energy: Callable[[Crystal], float | Lost]
    calculator: str = ""
    costly: bool = True
    settings: Mapping[str, str | float] | None = None

    def vector(self, crystal: Crystal) -> npt.NDArray[np.float64] | Lost:
        """(1,) eV: the energy in the form in which results are kept."""
        energy = self.energy(crystal)
        return energy if isinstance(energy, Lost) else np.array([energy], np.float64)


@dataclass(frozen=True)
class Stability:
    """What the energy above hull needs besides the crystals. Both kinds of energy must be of the same method."""

    phases: Phases
    energies: EnergySource

    def settings(self) -> dict[str, Any]:
        """What shapes the numbers, as JSON values."""
        return {
            "phases": self.phases.source,
            "phases_sha256": self.phases.sha256,
            "phases_count": len(self.phases.phases),
            "phases_calculator": self.phases.calculator,
            "energies": self.energies.name,
            "energies_calculator": self.energies.calculator,
            "stable_eV_per_atom": STABLE,
            "metastable_eV_per_atom": METASTABLE,
        }

    def mismatch(self) -> str:
        """A warning where energies of the crystals and of the phases are known to be of different calculators."""
        ours, theirs = self.energies.calculator, self.phases.calculator
        return f"energies by {ours}, phases by {theirs}: not comparable" if ours and theirs and ours != theirs else ""


@dataclass(frozen=True)
class PropertyEnergy:
    """The energy of a crystal from one of its properties: eV for the cell, or eV/atom."""

    property: str
    per_atom: bool

    def __call__(self, crystal: Crystal) -> float | Lost:
        if self.property not in crystal.properties:
            return Lost(f"no property '{self.property}'")
        return crystal.properties[self.property] * (crystal.num_atoms if self.per_atom else 1)


def property_energies(name: str, crystals: Sequence[Crystal], calculator: str = "") -> EnergySource:
    """Energies that the crystals carry.

    Args:
        name: of the property. ``energy`` (as ASE writes it) and ``total_energy`` are eV for the cell, names that
            end in ``_per_atom`` are eV/atom; any other needs ``NAME:total`` or ``NAME:per_atom``.
        crystals: to make sure that, if there are any, one has it.

    Raises:
        InputError: a name that does not say which of the two it is, or that no crystal has.
    """
    property, _, kind = name.partition(":")
    if not kind and property.endswith("_per_atom"):
        kind = "per_atom"
    elif not kind and property in (TOTAL, "total_energy"):
        kind = "total"
    if kind not in ("total", "per_atom"):
        raise InputError(
            f"energy property '{name}': say whether it is eV for the cell or eV/atom, as {property}:total "
            f"or {property}:per_atom"
        )
    known = {key for crystal in crystals for key in crystal.properties}
    if crystals and not known:
        raise InputError(f"the crystals carry no properties, so no '{property}': compute energies with a calculator")
    if crystals and property not in known:
        raise unknown_name("energy property", property, known)
    unit = "eV/atom" if kind == "per_atom" else "eV"
    return EnergySource(
        f"property {property} ({unit})", PropertyEnergy(property, kind == "per_atom"), calculator, False
    )


@dataclass(frozen=True)
class HullEnergies:
    """Result of :func:`energies_above_hull`.

    Attributes:
        energies: (n,) eV/atom, NaN where not known or not needed.
        above: (n,) eV/atom above the hull of the reference phases, below it negative; NaN where not known.
        decompositions: (n,) the phases on the hull at the crystal's composition, with their shares of the atoms.
        reasons: crystal -> why it has none.
    """

    energies: npt.NDArray[np.float64]
    above: npt.NDArray[np.float64]
    decompositions: list[str | None]
    reasons: dict[int, str]

    def within(self, threshold: float) -> npt.NDArray[np.bool_]:
        """(n,) which lie at most ``threshold`` eV/atom above the hull; unknown ones do not."""
        return self.above <= threshold + ROUNDING  # NaN compares as False


def energies_above_hull(crystals: Sequence[Crystal], stability: Stability, results: Results) -> HullEnergies:
    """Energy of each crystal above the hull of the reference phases, in its own chemical system.

    A hull is built once for each set of elements, from the phases made of these elements only; the crystals
    are not part of it, so a new stable one lies below. The time limit is for one energy and for one hull.
    """
    above = np.full(len(crystals), np.nan)
    decompositions: list[str | None] = [None] * len(crystals)
    reasons: dict[int, str] = {}
    for k, crystal in enumerate(crystals):
        if (problem := crystal.problem()) is not None:
            reasons[k] = problem
        elif missing := stability.phases.missing(crystal.composition):
            reasons[k] = f"no elemental reference for {', '.join(missing)}"
    energies = _energies(crystals, stability.energies, reasons, results)
    known = np.flatnonzero(np.isfinite(energies)).tolist()
    hulls = _hulls([crystals[k] for k in known], stability.phases, results)
    for k in known:
        point = hulls[crystals[k].formula]
        if isinstance(point, Lost):
            reasons[k] = point.reason
        else:
            above[k], decompositions[k] = energies[k] - point.energy, point.decomposition
    return HullEnergies(energies, above, decompositions, reasons)


def _energies(
    crystals: Sequence[Crystal], source: EnergySource, reasons: dict[int, str], results: Results
) -> npt.NDArray[np.float64]:
    """(n,) eV/atom of the crystals without a reason so far; adds the reasons of those that get none."""
    wanted = [k for k in range(len(crystals)) if k not in reasons]
    chosen = [crystals[k] for k in wanted]
    if source.settings is None:
        results = Results(results.engine if source.costly else HERE, results.time_limit)
    # Equal crystals have one energy if it is computed; as a property, each has its own.
    keys = [content_hash(crystal) for crystal in chosen] if source.costly else [str(k) for k in wanted]
    kind = Kind("energies", ALGORITHM, source.settings or {})
    found, lacking = results.compute(source.vector, chosen, keys, kind, "energies")
    reasons |= {wanted[n]: reason for n, reason in lacking.items()}
    values = np.full(len(crystals), np.nan)
    for k, vector in zip(wanted, found, strict=True):
        if vector is not None and np.isfinite(vector[0]):
            values[k] = vector[0] / crystals[k].num_atoms
        elif vector is not None:
            reasons[k] = "the energy is not finite"
    return values


@dataclass(frozen=True)
class HullPoint:
    """The hull at one composition: energy (eV/atom) and the phases that give it."""

    energy: float
    decomposition: str


def _hulls(crystals: Sequence[Crystal], phases: Phases, results: Results) -> dict[str, HullPoint | Lost]:
    """The hull at the composition of each crystal, by formula."""
    systems: dict[tuple[str, ...], dict[str, Mapping[str, float]]] = defaultdict(dict)
    for crystal in crystals:
        systems[tuple(sorted(crystal.composition))][crystal.formula] = crystal.composition
    tasks = [(phases.within(system), list(wanted.values())) for system, wanted in systems.items()]
    hulls = results.engine.map(hull_points, tasks, time_limit=results.time_limit, description="convex hulls")
    points: dict[str, HullPoint | Lost] = {}
    for wanted, found in zip(systems.values(), hulls, strict=True):
        points |= zip(wanted, [found] * len(wanted) if isinstance(found, Lost) else found, strict=True)
    return points


@quiet()
def hull_points(
    task: tuple[Sequence[Phase], Sequence[Mapping[str, float]]],
) -> list[HullPoint | Lost] | Lost:
    """The hull of the phases of one chemical system at each of the compositions: pymatgen's PhaseDiagram.

    Every element of the compositions must have its own phase among them. The hull is that of the energies of
    formation, so that elements with energies of thousands of eV cost no digits.
    """
    phases, compositions = task
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    elements = {next(iter(p.amounts)): p.energy for p in phases if len(p.amounts) == 1}

    def of_elements(amounts: Mapping[str, float]) -> float:
        return sum(n * elements[symbol] for symbol, n in amounts.items())

    entries = [
        PDEntry(Composition(p.amounts), p.energy * sum(p.amounts.values()) - of_elements(p.amounts), p.id or None)
        for p in phases
    ]
    try:
        diagram = PhaseDiagram(entries)
    except Exception as error:  # qhull gives up on hulls of many elements in several ways: counted, with the reason
        return Lost(reason_of(error))
    points: list[HullPoint | Lost] = []
    for composition in compositions:
        try:
            shares, formation = diagram.get_decomp_and_hull_energy_per_atom(Composition(composition))
        except Exception as error:  # no facet holds the composition, by round-off
            points.append(Lost(reason_of(error)))
        else:
            energy = formation + of_elements(composition) / sum(composition.values())
            ordered = sorted(cast("dict[PDEntry, float]", shares).items(), key=lambda item: (-item[1], item[0].name))
            points.append(HullPoint(float(energy), " + ".join(_share(*item) for item in ordered)))
    return points


def _share(entry: PDEntry, share: float) -> str:
    formula = entry.composition.reduced_formula
    return f"{share:.3g} {formula}" + (f" ({entry.name})" if entry.name != formula else "")
