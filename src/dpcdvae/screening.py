"""Are crystals stable? They are relaxed, set against the convex hull, and compared with how they were before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpcdvae.arguments import checked
from dpcdvae.errors import InputError, listed
from dpcdvae.evaluation.crystal_columns import COLUMNS, Value
from dpcdvae.evaluation.crystal_rows import CrystalColumns
from dpcdvae.evaluation.metrics.stability import hull as energy_above_hull
from dpcdvae.evaluation.phase_files import read_phases
from dpcdvae.evaluation.phases import Phases
from dpcdvae.evaluation.reference import Reference, as_reference
from dpcdvae.evaluation.report import Report
from dpcdvae.evaluation.scoring import AnyReference, evaluate
from dpcdvae.evaluation.stability import Stability, property_energies
from dpcdvae.intervals import Number
from dpcdvae.io import CrystalsLike, Failure, as_crystals
from dpcdvae.parallel import HERE, TIME_LIMIT, Engine
from dpcdvae.relaxation.batching import check_one_process
from dpcdvae.relaxation.calculators import DEFAULT
from dpcdvae.relaxation.ground_state import GroundState, ground_state
from dpcdvae.relaxation.of_any_crystals import chosen_engine_of, relax
from dpcdvae.relaxation.relaxed_crystal import Relaxations, Relaxed
from dpcdvae.structures.crystal import Crystal

if TYPE_CHECKING:
    from rich.console import RenderableType

SCHEMA = "dpcdvae.stability/1"
RELAXATION = "relaxation"
"""Where a crystal failed that did not converge."""

OF_REPORT = ("energy_above_hull", "decomposition", "sun", "msun")
DIFFERENCES = ("rms", "delta_volume", "delta_energy")
"""Columns of ``evaluate --table``, and fields of ``relaxation.ground_state.Row``: generated minus relaxed."""


@dataclass(frozen=True)
class StabilityResult:
    """Result of :func:`stability`.

    Attributes:
        report: energy above hull and S.U.N. of the relaxed crystals, over all generated.
        ground_state: how far they were from their minima.
        relaxed: every relaxation, converged or not, in the order of the crystals.
    """

    report: Report
    ground_state: GroundState
    relaxed: Relaxations

    def __getitem__(self, name: str) -> Number:
        """A number of the report or of the comparison with the minima, e.g. ``stability``, ``sun``, ``match_rms``."""
        own = {figure.name: figure.number for figure in self.ground_state.figures}
        return own[name] if name in own else self.report[name]

    def table(self, width: int = 120) -> RenderableType:
        """What a person reads; print it with rich."""
        from rich.console import Group

        return Group(self.report.table(width), "", self.ground_state.table())

    def crystals(self) -> CrystalColumns:
        """One row for each crystal: those that converged, then the others with the reason in ``failure``.

        The columns of ``evaluate --table`` on the hull, and generated minus relaxed: ``rms``
        ((V/N)^(1/3)), ``delta_volume`` (Å^3/atom), ``delta_energy`` (meV/atom).
        """
        sample, failures = self.report.sample, self.report.failures
        rows = [row for row in self.ground_state.rows if row.converged]
        lacking: list[Value] = [None] * len(failures)
        hull = sample.once(energy_above_hull)
        reasons = {} if hull is None else hull.reasons
        columns: dict[str, Sequence[Value]] = {
            "id": [crystal.id for crystal in sample.crystals] + [failure.id for failure in failures],
            "formula": [crystal.formula for crystal in sample.crystals]
            + [None] * len(self.relaxed.failures)
            + [item.initial.formula for item in self.relaxed if not item.converged],
            "converged": [True] * len(rows) + [False] * len(failures),
            "failure": [reasons.get(k) for k in range(len(rows))] + [failure.reason for failure in failures],
        }
        for name in OF_REPORT:
            values = [_plain(value) for value in sample.once(COLUMNS[name].measure)] or [None] * len(rows)
            columns[name] = values + lacking
        for name in DIFFERENCES:
            columns[name] = [getattr(row, name) for row in rows] + lacking
        return columns

    def to_json(self) -> dict[str, Any]:
        """``stability`` in the schema of ``evaluate``, ``ground_state`` in that of ``ground-state``."""
        return {"schema": SCHEMA, "stability": self.report.to_json(), "ground_state": self.ground_state.to_json()}


@checked
def stability(
    crystals: CrystalsLike,
    phases: str | Path | Phases,
    *,
    calculator: str = DEFAULT,
    training: AnyReference | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    engine: Engine | None = None,
    seed: int = 0,
    **relaxing: Any,
) -> StabilityResult:
    """Relaxes crystals and finds which of them are stable, unique and novel.

    Example:
        >>> result = dpcdvae.stability("crystals.extxyz", "phases.json", calculator="chgnet", work="campaign")
        >>> result["stability"].value, result["match_rms"].value

    Args:
        crystals: anything that :func:`~dpcdvae.io.as_crystals` takes.
        phases: reference phases, or a file of them. Their energies have to be of the same method as the calculator's.
        training: what the generator has learnt from, for S.U.N.: a data set, a file or crystals.
        workers: as of :func:`~dpcdvae.relaxation.relax`, like ``scheduler`` and ``engine``.
        seed: of the bootstrap.
        relaxing: as :func:`~dpcdvae.relaxation.relax` takes: ``work``, ``batch``, ``retry`` and its settings.

    Raises:
        InputError: as :func:`~dpcdvae.relaxation.relax`, :func:`~dpcdvae.evaluation.read_phases` and
            :func:`~dpcdvae.evaluation.evaluate`; phases without an element of each of the crystals; no crystal
            that converges.
    """
    found = as_crystals(crystals)
    hull = phases if isinstance(phases, Phases) else read_phases(phases)
    learnt = None if training is None else as_reference(training)
    check_elements(found, hull)
    check_one_process(relaxing.get("batch", 1), workers, scheduler)
    with chosen_engine_of(engine, workers, scheduler) as chosen:
        relaxed = relax(found, calculator=calculator, engine=chosen, **relaxing)
        return against_hull(
            relaxed, hull, calculator, failures=relaxed.failures, training=learnt, engine=chosen, seed=seed
        )


def check_elements(crystals: Sequence[Crystal], phases: Phases) -> None:
    """Raises InputError, before hours of relaxation, where no crystal can have an energy above hull.

    A crystal has none where one of its elements has no phase of its own.
    """
    missing = [phases.missing(crystal.composition) for crystal in crystals]
    if missing and all(missing):
        raise InputError(
            f"{phases.source}: no elemental reference for {listed(sorted(set().union(*missing)))}, "
            f"so none of the {len(missing)} crystals would have an energy above hull"
        )


def against_hull(
    relaxed: Sequence[Relaxed],
    phases: Phases,
    calculator: str,
    *,
    failures: Sequence[Failure] = (),
    training: AnyReference | None = None,
    engine: Engine = HERE,
    time_limit: float = TIME_LIMIT,
    seed: int = 0,
) -> StabilityResult:
    """:func:`stability` of crystals that are relaxed.

    A crystal that did not converge counts as not stable, as one that could not be read does.

    Args:
        calculator: whose energies they are. failures: crystals that could not be read.
        time_limit: seconds for one comparison.
    """
    converged = [result.to_crystal() for result in relaxed if result.converged]
    lost = [Failure(item.initial.id, RELAXATION, item.reason) for item in relaxed if not item.converged]
    if not converged:
        why = f": {(lost or failures)[0].reason}" if lost or failures else ""
        raise InputError(f"none of {len(lost) + len(failures)} crystals could be relaxed{why}")
    # Under pressure the hull is one of enthalpies.
    name = "enthalpy_eV_per_atom" if relaxed[0].pressure else "energy_eV_per_atom"
    energies = replace(property_energies(name, converged, calculator), name=f"{name} by {calculator}, relaxed")
    report = evaluate(
        converged,
        training if training is not None else Reference("the crystals themselves", "", crystals=converged),
        failures=[*failures, *lost],
        training=training,
        protocol="stability",
        baselines=(),
        stability=Stability(phases, energies),
        engine=engine,
        time_limit=time_limit,
        seed=seed,
    )
    shifts = ground_state(relaxed, failures=failures, engine=engine, time_limit=time_limit, seed=seed)
    return StabilityResult(report, shifts, Relaxations(relaxed, failures))


def _plain(value: Any) -> Value:
    """A Python value; None for NaN."""
    found: Value = value.item() if isinstance(value, np.generic) else value
    return None if found != found else found
