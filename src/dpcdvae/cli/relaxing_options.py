"""How crystals are relaxed: what ``dpcdvae relax``, ``dpcdvae ground-state`` and ``dpcdvae stability`` share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcdvae.cli.energies import check_calculator, parse_options
from dpcdvae.cli.groups import Call, Group, option
from dpcdvae.cli.options import CalculatorOption
from dpcdvae.errors import InputError

if TYPE_CHECKING:
    from dpcdvae.evaluation import Generated
    from dpcdvae.io import Failure
    from dpcdvae.parallel import Engine
    from dpcdvae.relaxation.minimise import Settings
    from dpcdvae.relaxation.relaxed_crystal import Relaxed
    from dpcdvae.structures.crystal import Crystal

TIGHTEST = 1e-9  # eV/Å and GPa: below what any force is rounded to
SETTINGS_OR = "the settings', or "


@dataclass(frozen=True, kw_only=True)
class Relaxing(Group):
    """How crystals are relaxed."""

    calculator: str | None = option(
        None,
        "chgnet, sevennet, mace, mattersim, orb, gpaw, espresso, vasp, or ASE's as module:Class; several in turn: a,b.",
        shown="chgnet",
    )
    calculator_option: CalculatorOption = None
    settings: str | None = option(None, "Settings of a DFT code: paper-carbon, screening or materials-project.")
    pressure: float | None = option(None, "GPa.", shown=f"{SETTINGS_OR}0")
    optimizer: str | None = option(None, "fire or lbfgs.", shown="fire")
    fmax: float | None = option(None, "Longest force, eV/Å.", shown=f"{SETTINGS_OR}0.01", min=TIGHTEST)
    smax: float | None = option(None, "Largest unbalanced stress, GPa.", shown=f"{SETTINGS_OR}0.1", min=TIGHTEST)
    steps: int | None = option(None, "Most steps; a crystal that needs more is not converged.", shown="1000", min=1)
    fix_symmetry: bool = option(False, "Keep the space group that each crystal starts with.", "--fix-symmetry")
    work: Path | None = option(None, "Folder that keeps results, to go on after a kill.")
    retry: bool = option(False, "Try again what did not converge before; more --steps may be given.", "--retry")
    batch: int = option(1, "Crystals computed together in this process, for a GPU; chgnet can.", min=1)
    time_limit: float | None = option(None, "Seconds for one crystal.", shown="3600", min=0.1)

    def given(self, *names: str) -> list[str]:
        """The options that were given, all or of these names, as they are written on the command line."""
        return [
            f"--{field.name.replace('_', '-')}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != _default(field) and (not names or field.name in names)
        ]

    def stages(self) -> list[Settings]:
        from dpcdvae.relaxation.calculators import DEFAULT
        from dpcdvae.relaxation.staged_relaxation import stages_of

        rules = {
            "pressure": self.pressure,
            "optimizer": self.optimizer,
            "max_force": self.fmax,
            "max_stress": self.smax,
            "max_steps": self.steps,
            "fix_symmetry": self.fix_symmetry or None,
        }
        stages = stages_of(
            self.calculator or DEFAULT,
            parse_options(self.calculator_option or ()),
            settings=self.settings,
            **{name: value for name, value in rules.items() if value is not None},
        )
        for stage in stages:
            check_calculator(stage.calculator)
        return stages

    def run(
        self, crystals: Sequence[Crystal], stages: Sequence[Settings], call: Call, work: Path, engine: Engine
    ) -> tuple[list[Relaxed], Call]:
        """The crystals relaxed, and the call with all that was chosen, defaults included."""
        from dpcdvae.relaxation.campaign import RELAXATION_TIME_LIMIT
        from dpcdvae.relaxation.staged_relaxation import relax_in_stages

        work, limit = self.work or work, self.time_limit or RELAXATION_TIME_LIMIT
        results = relax_in_stages(
            crystals, stages, work=work, engine=engine, batch=self.batch, time_limit=limit, retry=self.retry
        )
        return results, resolved(call, stages).resolved(work=work, time_limit=limit)


def _default(field: dataclasses.Field[Any]) -> Any:
    return getattr(field.default, "default", field.default)  # of typer's description of an option


def relaxes_nothing(option: str, given: Sequence[str]) -> None:
    """Raises InputError where options are given beside one with which nothing is relaxed here."""
    if given:
        raise InputError(f"{option} relaxes nothing here: leave out {', '.join(given)}")


def resolved(call: Call, stages: Sequence[Settings]) -> Call:
    """``calculator`` is the one whose energies they are."""
    return call.resolved(calculator=stages[-1].calculator, stages=[stage.to_json() for stage in stages])


def read_some(crystals: Path, column: str | None) -> Generated:
    """Crystals to relax; raises InputError where none could be read."""
    from dpcdvae.evaluation import read_generated

    generated = read_generated(crystals, column)
    if not generated.crystals:
        why = f": {generated.failures[0]}" if generated.failures else ""
        raise InputError(f"none of the crystals in {crystals} could be read{why}")
    return generated


def usable_of(results: Sequence[Relaxed]) -> list[Relaxed]:
    """Those that have an energy, converged or not."""
    return [result for result in results if math.isfinite(result.energy)]


def facts_of_relaxations(results: Sequence[Relaxed], failures: Sequence[Failure]) -> dict[str, Any]:
    """For the manifest of relaxed crystals: what is not among them, and what is not as it should be, with the reasons.

    Args:
        failures: crystals that could not be read.
    """
    usable = usable_of(results)
    lost = [{"id": r.initial.id, "reason": r.reason} for r in results if not math.isfinite(r.energy)]
    return {
        "converged": sum(result.converged for result in results),
        "failures": [dataclasses.asdict(failure) for failure in failures] + lost,
        "not_converged": [{"id": r.initial.id, "reason": r.reason} for r in usable if not r.converged],
        "initial_energy_unknown": [
            {"id": r.initial.id, "reason": r.initial_reason} for r in usable if r.initial_reason
        ],
    }
