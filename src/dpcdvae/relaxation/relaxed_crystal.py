"""What comes of a relaxation, in units, and how it goes into files."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dpcdvae.io import Failure
from dpcdvae.io.crystal_list import CrystalSequence
from dpcdvae.structures.crystal import Crystal


@dataclass(frozen=True, eq=False)
class Relaxed:
    """One crystal, as it came and as it was left. Quantities that could not be had are NaN, as they are by default.

    Attributes:
        initial: the crystal as it was given.
        final: the crystal where the relaxation stopped, converged or not.
        pressure: applied, GPa.
        converged: whether forces and stress are below the thresholds, and nothing is wrong.
        reason: why not; empty if converged.
        initial_energy, energy: eV/atom.
        volume: Å^3/atom.
        stress: (6,) GPa, xx yy zz yz xz xy of the final crystal, positive where it pulls: -pressure at rest.
        forces: (n, 3) eV/Å on the atoms of the final crystal, in its orientation; None where they are not known.
        max_force: longest force on an atom, eV/Å.
        max_stress: largest component of the stress that the pressure does not balance, GPa.
        steps: of the optimizer.
        pushed_apart: whether atoms lay upon one another and were pushed apart first.
        seconds: the time it took.
        initial_reason: why the initial energy is not known; empty if it is.
    """

    initial: Crystal
    final: Crystal
    pressure: float
    converged: bool
    reason: str
    initial_energy: float = math.nan
    energy: float = math.nan
    volume: float = math.nan
    stress: npt.NDArray[np.float64] = field(default_factory=lambda: np.full(6, np.nan))
    forces: npt.NDArray[np.float64] | None = None
    max_force: float = math.nan
    max_stress: float = math.nan
    steps: int = 0
    pushed_apart: bool = False
    seconds: float = math.nan
    initial_reason: str = ""

    @property
    def initial_volume(self) -> float:
        """Of the crystal as it was given, Å^3/atom."""
        return self.initial.volume / self.initial.num_atoms

    @property
    def initial_enthalpy(self) -> float:
        """E + pV of the crystal as it was given, eV/atom."""
        return enthalpy(self.initial_energy, self.pressure, self.initial_volume)

    @property
    def enthalpy(self) -> float:
        """E + pV, eV/atom."""
        return enthalpy(self.energy, self.pressure, self.volume)

    def to_crystal(self) -> Crystal:
        """The final crystal with all quantities as properties, each called after its unit.

        For ASE there are also ``energy`` (eV of the cell) and, where they are known, forces (eV/Å) and stress (eV/Å^3).

        Properties that came with the crystal stay, but those that every reader would take for quantities of the
        crystal as it is now (``OUTDATED``).
        """
        names = [f"stress_{component}_GPa" for component in ("xx", "yy", "zz", "yz", "xz", "xy")]
        properties = {
            **{k: v for k, v in self.initial.properties.items() if k not in OUTDATED},
            "energy": self.energy * self.final.num_atoms,
            "energy_eV_per_atom": self.energy,
            "enthalpy_eV_per_atom": self.enthalpy,
            "volume_A3_per_atom": self.volume,
            "initial_energy_eV_per_atom": self.initial_energy,
            "initial_enthalpy_eV_per_atom": self.initial_enthalpy,
            "initial_volume_A3_per_atom": self.initial_volume,
            "pressure_GPa": self.pressure,
            "max_force_eV_per_A": self.max_force,
            "max_stress_GPa": self.max_stress,
            **dict(zip(names, self.stress.tolist(), strict=True)),
            "steps": self.steps,
            "pushed_apart": self.pushed_apart,
            "converged": self.converged,
            "seconds": self.seconds,
        }
        results = {} if self.forces is None else {"forces": self.forces, "stress": self.stress / GPA_A3_PER_EV}
        return replace(self.final, id=self.initial.id, properties=properties, results=results)

    def to_record(self) -> dict[str, Any]:
        """All but the initial crystal, for a store: numbers at full precision, None for NaN."""
        record = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("initial", "final")}
        record["stress"] = self.stress.tolist()
        record["forces"] = None if self.forces is None else self.forces.tolist()
        record = {key: _without_nan(value) for key, value in record.items()}
        lattice, coords = self.final.lattice.tolist(), self.final.frac_coords.tolist()
        return {"final": {"lattice": lattice, "frac_coords": coords}, **record}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], initial: Crystal) -> Relaxed:
        lattice, frac_coords = record["final"]["lattice"], record["final"]["frac_coords"]
        final = Crystal(initial.atomic_numbers, frac_coords, lattice, initial.id)
        values = {"initial_reason": "", "forces": None, **record}  # records of earlier versions have neither
        values = {item.name: values[item.name] for item in fields(cls) if item.name not in ("initial", "final")}
        forces = values.pop("forces")
        values = {key: math.nan if value is None else value for key, value in values.items()}
        values["stress"] = np.array([math.nan if v is None else v for v in values["stress"]])
        values["forces"] = None if forces is None else np.array(forces, np.float64)
        return cls(initial=initial, final=final, **values)


class Relaxations(CrystalSequence, list[Relaxed]):
    """A list of :class:`Relaxed`, with what could not be read beside it (``failures``).

    Its conversions give the final crystals with all quantities as properties.

    Example:
        >>> relaxed = dpcdvae.relax("crystals.extxyz", pressure=10.0)
        >>> relaxed[0].enthalpy, relaxed.to_pandas()
    """

    def __init__(self, results: Iterable[Relaxed] = (), failures: Sequence[Failure] = ()) -> None:
        list.__init__(self, results)
        self.failures = failures

    def to_crystals(self) -> list[Crystal]:
        return [result.to_crystal() for result in self]


OUTDATED = frozenset(
    # what ASE reads as results of a calculator, and where pair_relaxed() looks for energies
    "energy free_energy energies energy_per_atom forces stress stresses dipole charges magmom magmoms".split()
    # of a ranking of which the crystal was a part before
    + ["rank", "enthalpy_above_lowest_eV_per_atom", "copies"]
)


def lost(initial: Crystal, pressure: float, reason: str) -> Relaxed:
    """A crystal whose relaxation gave nothing at all."""
    return Relaxed(initial, initial, pressure, converged=False, reason=reason)


def count_reasons(reasons: Iterable[str]) -> list[tuple[str, int]]:
    """How often each reason occurs, the commonest first, without the figures of the single crystal.

    What a calculator has said is left as it is.
    """
    return Counter(
        reason if reason.startswith(CALCULATOR_FAILED) else reason.split(" (")[0].split(", at step ")[0]
        for reason in reasons
    ).most_common()


CALCULATOR_FAILED = "the calculator failed: "


def enthalpy(energy: float, pressure: float, volume: float) -> float:
    """E + pV in eV/atom of eV/atom, GPa and Å^3/atom."""
    return energy + pressure * volume / GPA_A3_PER_EV


GPA_A3_PER_EV = 160.21766339999998
"""1 eV/Å^3 in GPa (the elementary charge in 1e-21 C, exact in the SI of 2019)."""


def _without_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
