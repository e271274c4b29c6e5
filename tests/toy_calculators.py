"""Calculators whose minima are known on paper, or that have none; found by name as any of ASE's."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

STIFFNESS = 0.05  # eV/Å^6
VOLUME = 11.0  # Å^3/atom, at rest


class Spring(Calculator):
    """E/N = ½ K (v - v0)² of the volume per atom v: at a pressure p the minimum is at v0 - p/K, whatever the atoms."""

    implemented_properties = ("energy", "forces", "stress")
    default_parameters: ClassVar = {"delay": 0.0}

    def calculate(
        self, atoms: Atoms | None = None, properties: object = None, system_changes: object = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        time.sleep(self.parameters.delay)
        n, volume = len(self.atoms), self.atoms.get_volume()
        tension = STIFFNESS * (volume / n - VOLUME)
        self.results = {
            "energy": n * STIFFNESS * (volume / n - VOLUME) ** 2 / 2,
            "forces": np.zeros((n, 3)),
            "stress": tension * np.array([1.0, 1, 1, 0, 0, 0]),
        }


class Mortal(Spring):
    """Kills its process at the calculation that an environment variable names."""

    done = 0

    def calculate(
        self, atoms: Atoms | None = None, properties: object = None, system_changes: object = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        self.done += 1
        if self.done == int(os.environ.get("TOY_CALCULATIONS", "0")):
            os.kill(os.getpid(), signal.SIGKILL)


class Weighted(Spring):
    default_parameters: ClassVar = {"delay": 0.0, "weights": ""}


class Coward(Spring):
    """Knows no gold."""

    def calculate(
        self, atoms: Atoms | None = None, properties: object = None, system_changes: object = all_changes
    ) -> None:
        if atoms is not None and 79 in atoms.numbers:
            raise RuntimeError("no gold")
        super().calculate(atoms, properties, system_changes)


class Odd(Calculator):
    """What potentials do outside of what they learnt: blow up, collapse, NaN, forces past all bounds, an exception."""

    implemented_properties = ("energy", "forces", "stress")
    default_parameters: ClassVar = {"kind": "swell"}

    def calculate(
        self, atoms: Atoms | None = None, properties: object = None, system_changes: object = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        n, volume = len(self.atoms), self.atoms.get_volume()
        forces, pull = np.zeros((n, 3)), {"swell": -1.0, "shrink": 1.0}.get(self.parameters.kind, 0.0)
        energy = pull * volume
        if self.parameters.kind == "merge":  # all atoms to the centre of the cell
            away = self.atoms.positions - self.atoms.cell.sum(axis=0) / 2
            energy, forces = float((away**2).sum()) / 2, -away
        if self.parameters.kind == "burst":
            pull, energy = 1e200, 0.0
        if self.parameters.kind == "nan":
            energy = np.nan
        if self.parameters.kind == "raise":
            raise RuntimeError("the code\ncrashed")
        self.results = {"energy": energy, "forces": forces, "stress": pull * np.array([1.0, 1, 1, 0, 0, 0])}


class Together(EMT):
    """EMT that takes many crystals at once, and knows no gold."""

    default_parameters: ClassVar = {**EMT.default_parameters, "delay": 0.0}

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.sizes: list[int] = []
        """Of the batches it was asked for."""

    def calculate_batch(self, crystals: Sequence[Atoms]) -> list[dict[str, object]]:
        self.sizes.append(len(crystals))
        time.sleep(self.parameters.delay)
        results = []
        for atoms in crystals:
            if 79 in atoms.numbers:
                raise RuntimeError("no gold")
            atoms.calc = EMT()
            stress = atoms.get_stress(voigt=False)
            results.append({"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": stress})
        return results


class NoStress(Calculator):
    implemented_properties = ("energy", "forces")


class Pulled(Spring):
    """A spring that is also pulled along x, so that no cubic crystal stays one."""

    def calculate(
        self, atoms: Atoms | None = None, properties: object = None, system_changes: object = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results["stress"] = self.results["stress"] + np.array([-0.01, 0, 0, 0, 0, 0])
