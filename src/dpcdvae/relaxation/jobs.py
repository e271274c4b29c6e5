"""Relaxations as folders of input files for a cluster, and their results read back: VASP and Quantum ESPRESSO.

Each job relaxes atoms and cell by the code's own means. Its first step is the crystal as it was generated, in a cell
that suits the code, so that one job gives both energies.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dpcdvae.errors import InputError, reason_of
from dpcdvae.files import atomic_output, check_output, complaint, read_whole, write_text
from dpcdvae.io import Failure, read, write
from dpcdvae.relaxation.dft import NO_SCF
from dpcdvae.relaxation.job_codes import CODES
from dpcdvae.relaxation.minimise import Settings
from dpcdvae.relaxation.relaxed_crystal import GPA_A3_PER_EV, Relaxed, lost
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.standardise import calculation_cell

SAME_VOLUME = 1e-4  # as far as the digits of inputs and outputs go

Folder = Annotated[str, Field(pattern=r"^[0-9]{6,}[A-Za-z0-9_.+-]*$")]
"""A job's, below that of all: a path that leads elsewhere is none."""


class Jobs(BaseModel):
    """``jobs.json``, which may come from anyone: each field is of its type, or the file is refused."""

    model_config = ConfigDict(strict=True, extra="forbid")

    schema_: Literal["dpcdvae.jobs/1"] = Field(alias="schema")
    settings: dict[str, Any]
    folders: list[Folder]
    failures: list[Failure] = []
    part: bool = False

    @classmethod
    def of(cls, folder: Path) -> Jobs:
        """The description of a folder of jobs.

        Raises:
            InputError: no folder that :func:`write_jobs` wrote.
        """
        try:
            content = read_whole(folder / "jobs.json")
            json.loads(content)  # which refuses what is too deep, and numbers without an end
            jobs = cls.model_validate_json(content)
            if jobs.relaxation().calculator in CODES and jobs.folders:
                return jobs
            reason = "it lists no jobs"
        except Exception as error:  # whatever is wrong with it
            reason = complaint(error)
        raise InputError(f"{folder} is no folder of jobs ({reason}): give one that --write-jobs wrote")

    def relaxation(self) -> Settings:
        """How the crystals were to be relaxed."""
        return Settings.of(**self.settings)


class JobResults(NamedTuple):
    """What came of a folder of jobs.

    Attributes:
        results: one for each job, in the order in which they were written.
        settings: how the crystals were to be relaxed.
        failures, part: as :func:`write_jobs` was given; the crystals that got no job are among the failures.
    """

    results: list[Relaxed]
    settings: Settings
    failures: list[Failure]
    part: bool


def write_jobs(
    crystals: Sequence[Crystal],
    settings: Settings,
    folder: str | Path,
    *,
    failures: Sequence[Failure] = (),
    part: bool = False,
) -> Path:
    """A folder with one job for each crystal, and what is needed to read them back.

    A crystal that the code cannot take, such as one of an element without a potential, gets no job: it is added to
    ``failures`` (:attr:`Jobs.failures`).

    Args:
        failures: crystals that could not be read or built, to be counted when the others are read back.
        part: whether the crystals come of a part of a data set, also to be kept for then.

    Raises:
        InputError: a calculator that is no code with jobs, an option it does not have, a folder that is there, no
            crystal that could become a job.
    """
    write_input = CODES[settings.calculator].writer(settings)
    folder = Path(folder)
    check_output(folder, overwrite=None)
    if not crystals:
        raise InputError("there are no crystals to write jobs for")
    written: list[Crystal] = []
    names: list[str] = []
    refused: list[Failure] = []
    with atomic_output(folder) as temporary:
        temporary.mkdir()
        for number, crystal in enumerate(crystals):
            name = _name(number, crystal)
            (temporary / name).mkdir()
            try:
                if (problem := crystal.problem()) is not None:
                    raise InputError(problem)
                write_input(calculation_cell(crystal), temporary / name)
            except InputError as error:
                shutil.rmtree(temporary / name)
                refused.append(Failure(crystal.id, "write-jobs", str(error)))
            else:
                written.append(crystal)
                names.append(name)
        if not written:
            raise InputError(f"none of {len(crystals)} crystals can become a job: {refused[0].reason}")
        write(written, temporary / "crystals.json")
        description = Jobs(
            schema="dpcdvae.jobs/1",
            settings=settings.to_json(),
            folders=names,
            failures=[*failures, *refused],
            part=part,
        )
        write_text(temporary / "jobs.json", description.model_dump_json(by_alias=True, indent=1) + "\n")
    return folder


def read_jobs(folder: str | Path) -> JobResults:
    """The results of a folder of jobs. A job without output is one that gave nothing.

    Raises:
        InputError: no folder that :func:`write_jobs` wrote.
    """
    folder = Path(folder)
    jobs = Jobs.of(folder)
    settings = jobs.relaxation()
    crystals = read(folder / "crystals.json")
    if len(jobs.folders) != len(crystals):
        raise InputError(f"{folder} lists {len(jobs.folders)} jobs and holds {len(crystals)} crystals: it was changed")
    results = [_result(crystal, folder / name, settings) for name, crystal in zip(jobs.folders, crystals, strict=True)]
    return JobResults(results, settings, jobs.failures, jobs.part)


def _result(crystal: Crystal, folder: Path, settings: Settings) -> Relaxed:
    code = CODES[settings.calculator]
    if not (folder / code.output).is_file():
        return lost(crystal, settings.pressure, f"no {code.output} (in {folder.name})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            steps = code.read(folder / code.output)
            first, last = steps.images[0], steps.images[-1]
            initial_energy, energy = (
                float(image.get_potential_energy()) / len(image) if scf else math.nan
                for image, scf in ((first, steps.first_scf), (last, steps.last_scf))
            )
            stress = np.asarray(last.get_stress(), float) * GPA_A3_PER_EV
            forces = np.asarray(last.get_forces(), float)
            max_force = float(np.linalg.norm(forces, axis=1).max())
            final = Crystal.from_ase(last, crystal.id)
    except Exception as error:  # outputs that are cut off or of a crash, in whatever way
        return lost(crystal, settings.pressure, f"{code.output} is not complete ({reason_of(error)})")
    if sorted(final.atomic_numbers) != sorted(crystal.atomic_numbers):
        return lost(crystal, settings.pressure, f"{code.output} is of another crystal ({final.formula})")
    initial_reason = "" if steps.first_scf else NO_SCF
    if not math.isclose(first.get_volume(), crystal.volume, rel_tol=SAME_VOLUME):
        initial_energy, initial_reason = math.nan, f"{code.output} goes on from where another job ended"
    max_stress = float(np.abs(stress + settings.pressure * np.array([1, 1, 1, 0, 0, 0])).max())
    resting = max_force < settings.max_force and max_stress < settings.max_stress
    reason = steps.complaint or ("" if resting else "not converged")
    if not steps.last_scf:
        reason = NO_SCF
    if reason == "not converged":
        reason += f" (force {max_force:.2g} eV/Å, stress {max_stress:.2g} GPa)"
    return Relaxed(
        initial=crystal,
        final=final,
        pressure=settings.pressure,
        converged=not reason,
        reason=reason,
        initial_energy=initial_energy,
        initial_reason=initial_reason,
        energy=energy,
        volume=float(last.get_volume()) / len(last),
        stress=stress,
        forces=forces,
        max_force=max_force,
        max_stress=max_stress,
        steps=len(steps.images) - 1,
    )


def _name(number: int, crystal: Crystal) -> str:
    return f"{number:06d}-{re.sub(r'[^A-Za-z0-9_.+-]', '_', crystal.id)[:60]}".rstrip("-")
