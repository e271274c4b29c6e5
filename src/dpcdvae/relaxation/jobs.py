"""Relaxations as folders of input files for a cluster, and their results read back: VASP and Quantum ESPRESSO.

Each job relaxes atoms and cell by the code's own means. Its first step is the crystal as it was generated, so that one
job gives both energies.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpcdvae.errors import InputError, reason_of
from dpcdvae.files import atomic_output, check_output, write_json
from dpcdvae.io import Failure, read, write
from dpcdvae.registry import Registry
from dpcdvae.relaxation.calculators import check_options
from dpcdvae.relaxation.dft import (
    RYDBERG,
    DFTSettings,
    choose,
    espresso_complaint,
    espresso_parameters,
    pseudo_folder,
    pseudopotentials,
)
from dpcdvae.relaxation.minimise import Settings
from dpcdvae.relaxation.relaxed_crystal import CALCULATOR_FAILED, GPA_A3_PER_EV, Relaxed, lost
from dpcdvae.structures.crystal import Crystal

if TYPE_CHECKING:
    from ase import Atoms

SCHEMA = "dpcdvae.jobs/1"
BOHR = 0.529177210544  # Å, CODATA 2022
EV_PER_A = RYDBERG / BOHR  # of 1 Ry/Bohr
SAME_VOLUME = 1e-4  # as far as the digits of inputs and outputs go


@dataclass(frozen=True)
class Steps:
    """What a job did: every step with energy, forces and stress, as ASE reads them, and what is wrong by the code.

    ``complaint`` is empty where it is content, else what it says against the job, or that it did not converge.
    """

    images: Sequence[Atoms]
    complaint: str


@dataclass(frozen=True)
class Code:
    """Input and output of a code: ``write`` fills a folder, ``output`` is the file that ``read`` takes."""

    write: Callable[[Crystal, Settings, Path], None]
    output: str
    read: Callable[[Path], Steps]


def write_jobs(
    crystals: Sequence[Crystal],
    settings: Settings,
    folder: str | Path,
    *,
    failures: Sequence[Failure] = (),
    part: bool = False,
) -> Path:
    """A folder with one job for each crystal, and what is needed to read them back.

    Args:
        failures: crystals that could not be read or built, to be counted when the others are read back.
        part: whether the crystals come of a part of a data set, also to be kept for then.

    Raises:
        InputError: a calculator that is no code with jobs, an option it does not have, a folder that is there, a
            crystal that is none, no crystal at all.
    """
    code = CODES[settings.calculator]
    folder = Path(folder)
    check_output(folder, overwrite=None)
    if not crystals:
        raise InputError("there are no crystals to write jobs for")
    for crystal in crystals:
        if (problem := crystal.problem()) is not None:
            raise InputError(f"crystal '{crystal.id}' cannot become a job: {problem}")
    names = [_name(number, crystal) for number, crystal in enumerate(crystals)]
    with atomic_output(folder) as temporary:
        temporary.mkdir()
        for name, crystal in zip(names, crystals, strict=True):
            (temporary / name).mkdir()
            code.write(crystal, settings, temporary / name)
        write(crystals, temporary / "crystals.json")
        description = {
            "schema": SCHEMA, "settings": settings.to_json(), "folders": names,
            "failures": [asdict(failure) for failure in failures], "part": part,
        }  # fmt: skip
        write_json(temporary / "jobs.json", description)
    return folder


def read_jobs(folder: str | Path) -> list[Relaxed]:
    """One result for each job, in the order in which they were written. A job without output is one that gave nothing.

    Raises:
        InputError: no folder that :func:`write_jobs` wrote.
    """
    folder = Path(folder)
    names = _description(folder)["folders"]
    settings, crystals = job_settings(folder), read(folder / "crystals.json")
    if len(names) != len(crystals):
        raise InputError(f"{folder} lists {len(names)} jobs and holds {len(crystals)} crystals: it was changed")
    return [_result(crystal, folder / name, settings) for name, crystal in zip(names, crystals, strict=True)]


def job_settings(folder: str | Path) -> Settings:
    """How the jobs of a folder were to be relaxed. Raises InputError as :func:`read_jobs`."""
    return Settings(**_description(Path(folder))["settings"])


def job_origin(folder: str | Path) -> tuple[list[Failure], bool]:
    """``failures`` and ``part`` as :func:`write_jobs` was given. Raises InputError as :func:`read_jobs`."""
    description = _description(Path(folder))
    return [Failure(**item) for item in description.get("failures", [])], description.get("part", False)


def _description(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "jobs.json").read_text(encoding="utf-8"))
        if content["schema"] == SCHEMA and content["settings"]["calculator"] in CODES and content["folders"]:
            return content
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{folder} is no folder of jobs: give one that --write-jobs wrote")


def _result(crystal: Crystal, folder: Path, settings: Settings) -> Relaxed:
    code = CODES[settings.calculator]
    if not (folder / code.output).is_file():
        return lost(crystal, settings.pressure, f"no {code.output} (in {folder.name})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            steps = code.read(folder / code.output)
            first, last = steps.images[0], steps.images[-1]
            energies = [float(image.get_potential_energy()) / len(image) for image in (first, last)]
            stress = np.asarray(last.get_stress(), float) * GPA_A3_PER_EV
            max_force = float(np.linalg.norm(last.get_forces(), axis=1).max())
            final = Crystal.from_ase(last, crystal.id)
    except Exception as error:  # outputs that are cut off or of a crash, in whatever way
        return lost(crystal, settings.pressure, f"{code.output} is not complete ({reason_of(error)})")
    if sorted(final.atomic_numbers) != sorted(crystal.atomic_numbers):
        return lost(crystal, settings.pressure, f"{code.output} is of another crystal ({final.formula})")
    if not math.isclose(first.get_volume(), crystal.volume, rel_tol=SAME_VOLUME):
        energies[0] = math.nan  # gone on from where a job before had ended: what it began with is not in there
    max_stress = float(np.abs(stress + settings.pressure * np.array([1, 1, 1, 0, 0, 0])).max())
    resting = max_force < settings.max_force and max_stress < settings.max_stress
    reason = steps.complaint or ("" if resting else "not converged")
    if reason == "not converged":
        reason += f" (force {max_force:.2g} eV/Å, stress {max_stress:.2g} GPa)"
    return Relaxed(
        initial=crystal, final=final, pressure=settings.pressure,
        initial_energy=energies[0], energy=energies[1],
        initial_volume=crystal.volume / crystal.num_atoms, volume=float(last.get_volume()) / len(last),
        stress=stress, max_force=max_force, max_stress=max_stress, steps=len(steps.images) - 1,
        pushed_apart=False, converged=not reason, reason=reason, seconds=math.nan,
    )  # fmt: skip


def _write_vasp(crystal: Crystal, settings: Settings, folder: Path) -> None:
    """INCAR, KPOINTS, POSCAR, and POTCAR.spec in place of the potentials, which only a licence gives."""
    from pymatgen.io.vasp.inputs import Kpoints
    from pymatgen.io.vasp.sets import MPRelaxSet

    chosen = _chosen(settings.calculator, settings.options)
    incar = {
        "ENCUT": chosen.cutoff, "PREC": "Accurate", "EDIFF": chosen.energy_tolerance, "EDIFFG": -settings.max_force,
        "ISMEAR": 0, "SIGMA": chosen.smearing, "ISYM": 0, "ISPIN": 1, "LASPH": True, "LREAL": False, "ALGO": "Normal",
        "IBRION": 2, "ISIF": 3, "NSW": settings.max_steps, "PSTRESS": 10 * settings.pressure,  # kB
        "LWAVE": False, "LCHARG": False,
        **dict.fromkeys(("LORBIT", "MAGMOM", "LDAU", "EDIFF_PER_ATOM")),  # of pymatgen's set: not ours
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the settings that differ from the Materials Project's
        inputs = MPRelaxSet(
            crystal.to_pymatgen(),
            user_incar_settings=incar,
            user_kpoints_settings=Kpoints.monkhorst_automatic(chosen.kpoints),  # type: ignore[arg-type] # its docs: or Kpoints
        )
        inputs.write_input(str(folder), potcar_spec=True)


def _read_vasp(path: Path) -> Steps:
    """``vasprun.xml``. Energies are those of the electrons and ions: with PSTRESS the others hold pV as well."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.io.vasp.outputs import Vasprun

    run = Vasprun(path, parse_dos=False, parse_eigen=False, parse_potcar_file=False)
    images = []
    for step in run.ionic_steps:
        image = AseAtomsAdaptor.get_atoms(step["structure"], msonable=False)
        stress = -np.asarray(step["stress"], float) / 10 / GPA_A3_PER_EV  # VASP: kB, positive where it pushes
        image.calc = SinglePointCalculator(
            image, energy=step["electronic_steps"][-1]["e_0_energy"], forces=np.asarray(step["forces"], float),
            stress=stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
        )  # fmt: skip
        images.append(image)
    return Steps(images, "" if run.converged else "not converged")


def _write_espresso(crystal: Crystal, settings: Settings, folder: Path) -> None:
    """``espresso.pwi``; where the pseudopotentials lie on the cluster, ``$ESPRESSO_PSEUDO`` says there."""
    import ase.io

    options = dict(settings.options)
    files = pseudopotentials(pseudo_folder(options.pop("pseudo_dir", None)))
    if missing := sorted(set(crystal.symbols) - files.keys()):
        raise InputError(f"crystal '{crystal.id}' holds {', '.join(missing)}, of which there is no pseudopotential")
    parameters = espresso_parameters(_chosen(settings.calculator, options))
    namelists = parameters["input_data"]
    namelists["control"] |= {
        "calculation": "vc-relax", "nstep": settings.max_steps,
        "forc_conv_thr": settings.max_force / EV_PER_A, "etot_conv_thr": namelists["electrons"]["conv_thr"],
    }  # fmt: skip
    namelists["ions"] = {"ion_dynamics": "bfgs"}
    namelists["cell"] = {
        "cell_dynamics": "bfgs", "press": 10 * settings.pressure, "press_conv_thr": 10 * settings.max_stress,  # kbar
    }  # fmt: skip
    ase.io.write(
        folder / "espresso.pwi", crystal.to_ase(), format="espresso-in", pseudopotentials=files, **parameters
    )  # fmt: skip


def _read_espresso(path: Path) -> Steps:
    import ase.io

    said = espresso_complaint(path)
    try:
        images: Any = ase.io.read(path, index=":", format="espresso-out")
    except IndexError:  # ASE's way to say that there is no step
        raise ValueError(said or "no step in it") from None
    text = path.read_text(encoding="utf-8", errors="replace")
    done = "bfgs converged" in text and "JOB DONE" in text
    return Steps(images, f"{CALCULATOR_FAILED}{said}" if said else "" if done else "not converged")


CODES: Registry[Code] = Registry(
    "code with jobs",
    {
        "vasp": Code(_write_vasp, "vasprun.xml", _read_vasp),
        "espresso": Code(_write_espresso, "espresso.pwo", _read_espresso),
    },
)


def _chosen(name: str, options: Mapping[str, Any]) -> DFTSettings:
    check_options(name, choose, options)
    return choose(**options)


def _name(number: int, crystal: Crystal) -> str:
    return f"{number:06d}-{re.sub(r'[^A-Za-z0-9_.+-]', '_', crystal.id)[:60]}".rstrip("-")
