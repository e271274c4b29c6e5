"""Energies above hull on the command line: reference phases, and where the crystals' energies come from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcdvae.cli.groups import Group, option
from dpcdvae.cli.options import CalculatorOption
from dpcdvae.errors import InputError, listed

if TYPE_CHECKING:
    from dpcdvae.evaluation import EnergyModel, Reference
    from dpcdvae.evaluation.stability import EnergySource, Stability
    from dpcdvae.model.regressor import PropertyRegressor
    from dpcdvae.model_store import StoredModel
    from dpcdvae.parallel import Engine
    from dpcdvae.structures.crystal import Crystal

MOST_UNKNOWN = 0.01
"""Share of a reference with elements that an energy model may not know: of MP-20's 9046 test crystals there are two."""


@dataclass(frozen=True, kw_only=True)
class HullEnergies(Group):
    """Where energies above hull come from."""

    phases: Path | None = option(None, "Reference phases (compositions and energies), for energies above hull.")
    energy_property: str | None = option(None, "Property of the crystals with their energy.")
    calculator: str | None = option(None, "Compute their energies: chgnet, ..., module:Class.")
    calculator_option: CalculatorOption = None

    def load(self, crystals: Sequence[Crystal], source: Path) -> Stability | None:
        """Reference phases and energies as the options ask for them; None where no energy above hull is asked for.

        Args:
            crystals: as read. source: the file they are from.

        Raises:
            InputError: options that do not go together, phases that cannot be read, a property no crystal has, a
                calculator that cannot be built.
        """
        from dpcdvae.evaluation.phase_files import calculator_of, read_phases
        from dpcdvae.evaluation.stability import Stability, property_energies

        self.check()
        if self.phases is None:
            return None
        if self.energy_property is not None:
            energies = property_energies(self.energy_property, crystals, calculator_of(source))
        else:
            energies = energies_by(str(self.calculator), parse_options(self.calculator_option or ()))
        return Stability(read_phases(self.phases), energies)

    def check(self) -> None:
        """Raises InputError where the options do not go together or no calculator has that name."""
        if self.calculator_option and self.calculator is None:
            raise InputError("--calculator-option without --calculator: name the calculator too")
        given = {"--energy-property": self.energy_property, "--calculator": self.calculator}
        names = [name for name, value in given.items() if value is not None]
        if self.phases is None and names:
            raise InputError(f"{names[-1]} is for energies above hull, which need reference phases: add --phases FILE")
        if len(names) == 2:
            raise InputError(f"{' and '.join(names)} are two sources of the same energies: give one of them")
        if self.phases is not None and not names:
            raise InputError(
                "--phases needs the energies of the crystals: give --energy-property NAME or --calculator NAME"
            )
        if self.calculator is not None:
            check_calculator(self.calculator)


def load_energy_model(
    source: StoredModel, device: str, target: str | None, wanted: str, elements: Mapping[str, Set[int]]
) -> PropertyRegressor:
    """The property model that ``--energy-model`` names.

    Args:
        target: the property that it must predict; None for any. wanted: what asks for that, for the error.
        elements: atomic numbers that it must have been trained on, by where they are from.

    Raises:
        InputError: it predicts another property, or was trained without one of the elements.
    """
    from dpcdvae.checkpoints.loading import load_regressor

    model = load_regressor(source, device)
    if target and model.target != target:
        raise InputError(
            f"--energy-model {source.name} predicts '{model.target}', but {wanted} '{target}': give a model of that"
        )
    for where, numbers in elements.items():
        _check_elements(source, model, numbers, where)
    return model


def _check_elements(source: StoredModel, model: PropertyRegressor, numbers: Set[int], where: str) -> None:
    if unknown := model.unknown_elements(sorted(numbers)):
        raise InputError(
            f"--energy-model {source.name} was trained without {listed(unknown)}, which are in {where}: give another"
        )


def energy_model_of(source: StoredModel, reference: Reference, engine: Engine, time_limit: float) -> EnergyModel:
    """Raises InputError where it was trained for other crystals or another property than the reference's.

    Up to ``MOST_UNKNOWN`` of the reference may have elements that it was not trained on. They are left out, and named
    in the report.
    """
    from dpcdvae.evaluation import EnergyModel
    from dpcdvae.sampling.property_prediction import predict_crystals

    model = load_energy_model(source, "cpu", reference.energy, f"{reference.dataset}'s energy is", {})
    elements = [set(crystal.atomic_numbers.tolist()) for crystal in reference.crystals or ()]
    unknown = [numbers for numbers in elements if model.unknown_elements(sorted(numbers))]
    if len(unknown) > MOST_UNKNOWN * len(elements):
        _check_elements(source, model, set().union(*unknown), reference.source)
    return EnergyModel(
        source.name,
        model.target,
        lambda crystals: predict_crystals(model, crystals, engine=engine, time_limit=time_limit),
    )


def check_calculator(name: str) -> None:
    """Raises InputError for a name that no calculator has; ``module:Class`` is looked for when it is needed."""
    from dpcdvae.relaxation.calculators import source_of

    if ":" not in name:
        source_of(name)


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
        except (ValueError, RecursionError):
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
