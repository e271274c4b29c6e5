"""One crystal into the minimum of its enthalpy: atoms and cell together, at a pressure, with any calculator."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from dpcdvae.arguments import checked_value
from dpcdvae.errors import InputError, reason_of, unknown_name
from dpcdvae.registry import Registry
from dpcdvae.relaxation.calculators import DEFAULT
from dpcdvae.relaxation.overlaps import LONELY, MERGED, TOO_CLOSE, closest_contact, lonely_atom, push_apart
from dpcdvae.relaxation.relaxed_crystal import CALCULATOR_FAILED, GPA_A3_PER_EV, Relaxed, enthalpy, lost
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.standardise import calculation_cell

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

# Name -> class in ase.optimize.
OPTIMIZERS: Registry[str] = Registry("optimizer", {"fire": "FIRE", "lbfgs": "LBFGS"})

# A relaxation that crosses one of these limits fails: no crystal does so on its way to a minimum.
LARGEST_GROWTH = 3.0  # of the volume, since the start
LARGEST_SHRINKAGE = 5.0
LARGEST_RISE = 10.0  # eV/atom of enthalpy above the start
CHECK_CONTACTS_EVERY = 10  # steps

SYMMETRY_TOLERANCE = 0.01
"""Å that an atom may miss a symmetric place, where the space group is kept."""

LARGEST_PRESSURE = 1e5  # GPa, either way: no potential and no pseudopotential knows of more


@dataclass(frozen=True)
class Settings:
    """How to relax: all that shapes the result.

    Attributes:
        calculator: a name of ``CALCULATORS`` or ``module:Class``.
        options: of the calculator.
        pressure: GPa, positive compresses.
        optimizer: ``fire`` or ``lbfgs``.
        max_force: threshold, eV/Å: of the longest force on an atom.
        max_stress: threshold, GPa: of the largest component that the pressure does not balance.
        max_steps: of the optimizer; who is not converged by then is not converged.
        fix_symmetry: keep the space group that the crystal starts with (tolerance ``SYMMETRY_TOLERANCE``).

    Raises:
        InputError: a value of another type, a pressure beyond all that is known, a threshold or number of steps
            that is not positive, an unknown optimizer.
    """

    calculator: str = DEFAULT
    options: Mapping[str, Any] = field(default_factory=dict)
    pressure: float = 0.0
    optimizer: str = "fire"
    max_force: float = 0.01
    max_stress: float = 0.1
    max_steps: int = 1000
    fix_symmetry: bool = False

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, checked_value(item.name, getattr(self, item.name), str(item.type)))
        try:
            json.dumps(dict(self.options), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"options must be plain values that are finite, not {dict(self.options)}") from error
        OPTIMIZERS[self.optimizer]
        if not abs(self.pressure) <= LARGEST_PRESSURE:
            raise InputError(f"a pressure of {self.pressure} GPa is none: give one within ±{LARGEST_PRESSURE:g} GPa")
        for name, unit in (("max_force", "eV/Å"), ("max_stress", "GPa")):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be above 0 {unit}, not {getattr(self, name)}")
        if self.max_steps < 1:
            raise InputError(f"max_steps must be at least 1, not {self.max_steps}")

    @classmethod
    def of(cls, **values: Any) -> Settings:
        """From keywords of the user. Raises InputError, with the nearest name, where one is no field."""
        known = [item.name for item in fields(cls)]
        for name in values:
            if name not in known:
                raise unknown_name("setting of a relaxation", name, known)
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Plain values. What is off by default is left out, so that folders of earlier versions are gone on with."""
        values = {**asdict(self), "options": dict(self.options)}
        if not self.fix_symmetry:
            del values["fix_symmetry"]
        return values


def relax(crystal: Crystal, settings: Settings, calculator: Calculator, *, start: Crystal | None = None) -> Relaxed:
    """Relaxes atoms and cell at ``settings.pressure``, in a right-handed cell of short vectors.

    With ``settings.fix_symmetry`` the start is moved onto its space group, and forces and steps, also those of the
    cell, are symmetrised by it; otherwise no symmetry is kept.
    Atoms that lie upon one another are pushed apart first. The relaxation ends where forces and stress are below
    the thresholds, at the limit of steps, or where it leaves what a crystal does: volume, enthalpy, merging atoms.

    Args:
        crystal: as it was generated; its energy is the initial one.
        calculator: an ASE calculator, as ``build_calculator`` gives; used for one crystal at a time.
        start: where to start from instead, e.g. the crystal as a cheaper calculator has relaxed it.

    Returns:
        The result, also where the calculator fails: then with the reason, as the calculator gave it.
    """
    began = time.monotonic()
    start = crystal if start is None else start
    if (problem := start.problem() or crystal.problem()) is not None:
        return lost(crystal, settings.pressure, problem)
    _forget(calculator)  # so that the result does not depend on the crystal before
    overlapping = closest_contact(start, TOO_CLOSE) is not None
    came_overlapping = overlapping if start is crystal else closest_contact(crystal, TOO_CLOSE) is not None
    initial_energy, initial_reason = _energy(calculation_cell(crystal), calculator)
    if initial_reason:
        _forget(calculator)  # some take a calculation that failed for one that is done
    start = calculation_cell(start)
    run = _Run(push_apart(start) if overlapping else start, settings, calculator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ASE, pymatgen and the calculator, for every odd cell
        reason = run.go()
    return Relaxed(
        initial=crystal,
        final=run.final,
        pressure=settings.pressure,
        converged=not reason,
        reason=reason,
        initial_energy=initial_energy,
        initial_reason=initial_reason,
        **run.quantities,
        steps=run.steps,
        pushed_apart=overlapping or came_overlapping,
        seconds=time.monotonic() - began,
    )


def _forget(calculator: Calculator) -> None:
    """Drops what a calculator keeps of earlier crystals."""
    if hasattr(calculator, "reset"):
        calculator.reset()


def _energy(crystal: Crystal, calculator: Calculator) -> tuple[float, str]:
    """eV/atom; NaN, with the reason, where there is none."""
    atoms = crystal.to_ase()
    atoms.calc = calculator
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            energy = float(atoms.get_potential_energy()) / len(atoms)
    except Exception as error:  # whatever a calculator finds wrong with a crystal
        return math.nan, f"{CALCULATOR_FAILED}{reason_of(error)}"
    return (energy, "") if math.isfinite(energy) else (math.nan, "its energy is not finite")


class _Run:
    """The relaxation of one crystal: its last sound state, and the watch over every step."""

    def __init__(self, start: Crystal, settings: Settings, calculator: Calculator) -> None:
        self.start = start
        self.settings = settings
        self.atoms: Atoms = start.to_ase()
        self.atoms.calc = calculator
        self.final = start
        self.steps = 0
        self.quantities: dict[str, Any] = {
            "energy": math.nan,
            "volume": math.nan,
            "stress": np.full(6, np.nan),
            "forces": None,
            "max_force": math.nan,
            "max_stress": math.nan,
        }
        self.first_enthalpy = math.nan

    def go(self) -> str:
        """Relaxes; the reason why it did not converge, empty if it did."""
        import ase.optimize
        from ase.constraints import FixSymmetry
        from ase.filters import FrechetCellFilter

        if self.settings.fix_symmetry:
            try:
                self.atoms.set_constraint(FixSymmetry(self.atoms, symprec=SYMMETRY_TOLERANCE))
            except Exception as error:  # spglib finds no space group in some cells, and says so in several ways
                return f"no space group to keep: {reason_of(error)}"
        try:
            cell_and_atoms = FrechetCellFilter(self.atoms, scalar_pressure=self.settings.pressure / GPA_A3_PER_EV)
            optimizer = getattr(ase.optimize, OPTIMIZERS[self.settings.optimizer])(cell_and_atoms, logfile=None)
            # The thresholds are ours; the optimizer alone would stop at forces of zero.
            for _ in optimizer.irun(fmax=0.0, steps=self.settings.max_steps):
                self.steps = optimizer.nsteps
                if (reason := self.look()) is not None:
                    return reason
        except Exception as error:  # whatever a calculator finds wrong with a crystal: counted, with the reason
            return f"{CALCULATOR_FAILED}{reason_of(error)}"
        return self.unfinished()

    def look(self) -> str | None:
        """Takes note of the state. None to go on, else why to stop: empty where converged."""
        atoms, settings = self.atoms, self.settings
        volume = float(atoms.get_volume()) / len(atoms)
        energy = float(atoms.get_potential_energy()) / len(atoms)
        stress = np.asarray(atoms.get_stress(), float) * GPA_A3_PER_EV
        forces = np.asarray(atoms.get_forces(), float)
        if not (math.isfinite(energy) and np.isfinite(stress).all() and np.isfinite(forces).all()):
            return f"energy, forces or stress are not finite at step {self.steps}"
        coords, lattice = atoms.get_scaled_positions(wrap=False), atoms.cell.array.copy()  # which goes on changing
        self.final = Crystal(atoms.numbers, coords, lattice, self.start.id)
        unbalanced = stress + settings.pressure * np.array([1, 1, 1, 0, 0, 0])
        self.quantities = {
            "energy": energy,
            "volume": volume,
            "stress": stress,
            "forces": forces.copy(),
            "max_force": float(np.linalg.norm(forces, axis=1).max()),
            "max_stress": float(np.abs(unbalanced).max()),
        }
        if self.steps == 0:
            self.first_enthalpy = enthalpy(energy, settings.pressure, volume)
        resting = (
            self.quantities["max_force"] < settings.max_force and self.quantities["max_stress"] < settings.max_stress
        )
        if (reason := self.runaway(contacts=resting or self.steps % CHECK_CONTACTS_EVERY == 0)) is not None:
            return reason
        if resting and (symbol := lonely_atom(self.final)) is not None:
            return f"an atom has no other within {LONELY:g} Å ({symbol}), at step {self.steps}"
        return "" if resting else None

    def runaway(self, *, contacts: bool) -> str | None:
        """What no crystal does on its way to a minimum."""
        growth = self.final.volume / self.start.volume
        if not 1 / LARGEST_SHRINKAGE < growth < LARGEST_GROWTH:
            return f"the volume went to {growth:.2g} times what it was, at step {self.steps}"
        rise = enthalpy(self.quantities["energy"], self.settings.pressure, self.quantities["volume"])
        if rise - self.first_enthalpy > LARGEST_RISE:
            return f"the enthalpy rose by {rise - self.first_enthalpy:.3g} eV/atom, at step {self.steps}"
        if contacts and (merged := closest_contact(self.final, MERGED)) is not None:
            return f"atoms merged ({merged[0]} at {merged[1]:.2f} Å), at step {self.steps}"
        return None

    def unfinished(self) -> str:
        force, stress = self.quantities["max_force"], self.quantities["max_stress"]
        return f"not converged after {self.steps} steps (force {force:.2g} eV/Å, stress {stress:.2g} GPa)"
