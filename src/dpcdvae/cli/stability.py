"""Energies above hull on the command line: reference phases, and where the crystals' energies come from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpcdvae.errors import InputError

if TYPE_CHECKING:
    from dpcdvae.evaluation.stability import EnergySource, Stability
    from dpcdvae.structures.crystal import Crystal

PhasesOption = Annotated[
    Path | None,
    typer.Option("--phases", help="Compositions and energies to compete with: energy above hull.", show_default=False),
]
EnergyPropertyOption = Annotated[
    str | None,
    typer.Option("--energy-property", help="Property of the crystals with their energy.", show_default=False),
]
CalculatorOption = Annotated[
    str | None,
    typer.Option("--calculator", help="Compute their energies: chgnet, ..., module:Class.", show_default=False),
]
CalculatorOptionsOption = Annotated[
    list[str] | None,
    typer.Option("--calculator-option", help="KEY=VALUE for the calculator, repeatable.", show_default=False),
]


def load_stability(
    phases: Path | None,
    energy_property: str | None,
    calculator: str | None,
    calculator_options: Sequence[str] | None,
    crystals: Sequence[Crystal],
    source: Path,
) -> Stability | None:
    """What the options ask for; None where no energy above hull is asked for.

    Args:
        crystals: as read. source: the file they are from.

    Raises:
        InputError: options that do not go together, phases that cannot be read, a property no crystal has, a
            calculator that cannot be built.
    """
    from dpcdvae.evaluation.phase_files import calculator_of, read_phases
    from dpcdvae.evaluation.stability import Stability, property_energies

    if calculator_options and calculator is None:
        raise InputError("--calculator-option without --calculator: name the calculator too")
    if phases is None:
        if energy_property is None and calculator is None:
            return None
        given = "--energy-property" if calculator is None else "--calculator"
        raise InputError(f"{given} is for energies above hull, which need reference phases: add --phases FILE")
    if energy_property is not None and calculator is not None:
        raise InputError("--energy-property and --calculator are two sources of the same energies: give one of them")
    if energy_property is None and calculator is None:
        raise InputError(
            "--phases needs the energies of the crystals: give --energy-property NAME or --calculator NAME"
        )
    if energy_property is not None:
        energies = property_energies(energy_property, crystals, calculator_of(source))
    else:
        energies = energies_by(str(calculator), parse_options(calculator_options or ()))
    return Stability(read_phases(phases), energies)


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` each, where the value is JSON (a number, true, false, null, a list) or else text.

    Raises:
        InputError: no ``=``, no key, or a key twice.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key or key in options:
            raise InputError(f"--calculator-option '{pair}': KEY=VALUE is needed, each KEY once")
        try:
            options[key] = json.loads(text)
        except ValueError:
            options[key] = text
    return options


def energies_by(calculator: str, options: Mapping[str, Any]) -> EnergySource:
    """Energies of crystals as they are, by an ASE calculator.

    Raises:
        InputError: as :func:`dpcdvae.relaxation.calculators.build_calculator`.
    """
    from dpcdvae.evaluation.stability import EnergySource
    from dpcdvae.relaxation.single_point import single_points

    energy = single_points(calculator, options)
    return EnergySource(energy.title, energy, calculator, settings=energy.settings())
