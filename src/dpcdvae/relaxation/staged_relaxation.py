"""Several calculators in turn: a fast one first, an accurate one after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpcdvae.errors import InputError
from dpcdvae.parallel import HERE, Engine
from dpcdvae.relaxation.calculators import CALCULATORS, batch_evaluator, build_calculator
from dpcdvae.relaxation.campaign import RELAXATION_TIME_LIMIT, relax_all
from dpcdvae.relaxation.dft_settings import SETTINGS
from dpcdvae.relaxation.minimise import Settings
from dpcdvae.relaxation.relaxed_crystal import Relaxed
from dpcdvae.structures.crystal import Crystal


def stages_of(
    calculators: str, options: Mapping[str, Any] | None = None, *, settings: str | None = None, **rules: Any
) -> list[Settings]:
    """One for each calculator.

    Args:
        calculators: names, with commas between them.
        options: of the last calculator.
        settings: a set of DFT settings for the last calculator, with its pressure and thresholds.
        rules: other fields of :class:`Settings`, which come before those of the set. Pressure, optimizer,
            number of steps and symmetry are for all stages, thresholds for the last one; those before come as
            near as is their default.

    Raises:
        InputError: settings for what is no DFT code, or as :class:`Settings`.
    """
    *first, last = [name.strip() for name in calculators.split(",")]
    chosen = dict(options or {})
    if settings is not None:
        if last not in CALCULATORS or not CALCULATORS[last].writes_files:
            raise InputError(f"--settings is for a DFT code, and {last} is none: leave it out")
        default = SETTINGS[settings]
        chosen["settings"] = settings
        of_set = {"pressure": default.pressure, "max_force": default.max_force, "max_stress": default.max_stress}
        rules = of_set | rules
    final = Settings.of(calculator=last, options=chosen, **rules)
    shared = {"pressure": final.pressure, "optimizer": final.optimizer, "max_steps": final.max_steps}
    shared["fix_symmetry"] = final.fix_symmetry
    return [*(Settings.of(calculator=name, **shared) for name in first), final]


def relax_in_stages(
    crystals: Sequence[Crystal],
    stages: Sequence[Settings],
    *,
    work: str | Path | None = None,
    engine: Engine = HERE,
    batch: int = 1,
    time_limit: float = RELAXATION_TIME_LIMIT,
    retry: bool = False,
) -> list[Relaxed]:
    """Each stage starts where the one before ended and keeps its results in a folder of its own under ``work``.

    The initial energies are those of the crystals as they were generated, by the calculator of the last stage.
    Arguments, and what is raised, are those of :func:`~dpcdvae.relaxation.campaign.relax_all`.
    """
    for stage in stages[1:]:  # the first one's is built at once; these would be missed hours later
        calculator = build_calculator(stage.calculator, stage.options)
        if batch > 1:
            batch_evaluator(stage.calculator, calculator)
    results: list[Relaxed] = []
    for number, stage in enumerate(stages, 1):
        folder = work
        if work is not None and len(stages) > 1:
            folder = Path(work) / f"{number}-{stage.calculator.replace(':', '.')}"
        starts = [result.final for result in results] if results else None
        results = relax_all(
            crystals, stage, work=folder, starts=starts, engine=engine, batch=batch, time_limit=time_limit, retry=retry
        )
    return results
