"""Energies of crystals as they are, by any calculator."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from dpcdvae.errors import reason_of
from dpcdvae.parallel import Lost
from dpcdvae.relaxation.calculators import (
    CALCULATORS,
    DEFAULT,
    build_calculator,
    calculator_version,
    option_files,
    unknown_elements,
)
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.standardise import calculation_cell

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


def single_points(calculator: str = DEFAULT, options: Mapping[str, Any] | None = None) -> SinglePoint:
    """A function crystal -> energy, by an ASE calculator that is named as for a relaxation.

    Raises:
        InputError: as :func:`~dpcdvae.relaxation.calculators.build_calculator`.
    """
    energy = SinglePoint(calculator, json.dumps(dict(options or {}), sort_keys=True))
    _built(energy.calculator, energy.options)  # an error now, not after minutes of work
    return energy


@dataclass(frozen=True)
class SinglePoint:
    """crystal -> eV for its cell; Lost, with the reason, where the calculator fails. Each process builds it once.

    Attributes:
        calculator: its name.
        options: of its constructor, as JSON.
    """

    calculator: str
    options: str

    @property
    def title(self) -> str:
        version = calculator_version(self.calculator, json.loads(self.options))
        return f"single points by {self.calculator} {version}".rstrip()

    def settings(self) -> dict[str, str | float] | None:
        """All that the energies depend on beside the crystal; None where that is not known.

        Of a DFT code or a module of the user's own, what shapes the energies may change unseen between two runs.
        """
        if self.calculator not in CALCULATORS or CALCULATORS[self.calculator].writes_files:
            return None
        options = json.loads(self.options)
        version = calculator_version(self.calculator, options)
        files = {f"sha256 of {name}": digest for name, digest in option_files(options).items()}
        return {"calculator": self.calculator, "options": self.options, "version": version, **files}

    def __call__(self, crystal: Crystal) -> float | Lost:
        calculator = _built(self.calculator, self.options)
        if (reason := crystal.problem() or unknown_elements(self.calculator, calculator, crystal)) is not None:
            return Lost(reason)
        atoms = calculation_cell(crystal).to_ase()
        atoms.calc = calculator
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                calculator.results = {}  # nothing of the crystal before, which may have failed halfway
                return float(atoms.get_potential_energy())
        except Exception as error:  # whatever a calculator finds wrong with a crystal: counted, with the reason
            return Lost(f"{self.calculator} failed: {reason_of(error)}")


@cache
def _built(name: str, options: str) -> Calculator:
    return build_calculator(name, json.loads(options))
