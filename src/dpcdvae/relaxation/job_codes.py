"""Codes whose relaxations are jobs of their own: their input written, their output read. VASP and Quantum ESPRESSO."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpcdvae.errors import InputError
from dpcdvae.registry import Registry
from dpcdvae.relaxation.calculators import check_options
from dpcdvae.relaxation.dft import (
    NO_SCF,
    RYDBERG,
    espresso_complaint,
    espresso_parameters,
    espresso_scf,
    pseudo_folder,
    pseudopotentials,
    vasp_parameters,
)
from dpcdvae.relaxation.dft_settings import SETTINGS, DFTSettings, choose
from dpcdvae.relaxation.minimise import Settings
from dpcdvae.relaxation.relaxed_crystal import CALCULATOR_FAILED, GPA_A3_PER_EV
from dpcdvae.structures.crystal import Crystal

if TYPE_CHECKING:
    from ase import Atoms

BOHR = 0.529177210544  # Å, CODATA 2022
EV_PER_A = RYDBERG / BOHR  # of 1 Ry/Bohr


@dataclass(frozen=True)
class Steps:
    """What a job did.

    Attributes:
        images: every step with energy, forces and stress, as ASE reads them.
        complaint: what the code says against the job, or that it did not converge; empty where it is content.
        first_scf, last_scf: whether the self-consistent field of the first and of the last step converged. Where it
            did not, the code gives an energy that means nothing, or none.
    """

    images: Sequence[Atoms]
    complaint: str
    first_scf: bool
    last_scf: bool


@dataclass(frozen=True)
class Code:
    """Input and output of a code.

    Attributes:
        writer: settings -> what fills the folder of a crystal. InputError where the code does not know an option, and
            from what it gives where the code cannot take the crystal.
        output: the file that ``read`` takes.
        read: whatever it raises is a reason why the output is not complete.
    """

    writer: Callable[[Settings], Callable[[Crystal, Path], None]]
    output: str
    read: Callable[[Path], Steps]


def _vasp_writer(settings: Settings) -> Callable[[Crystal, Path], None]:
    name = settings.options.get("settings")
    if settings.options.keys() == {"settings"} and isinstance(name, str) and SETTINGS[name].input_set:
        return partial(_write_input_set, settings, SETTINGS[name].input_set)
    return partial(_write_vasp, settings, _chosen(settings.calculator, settings.options))


def _write_vasp(settings: Settings, chosen: DFTSettings, crystal: Crystal, folder: Path) -> None:
    """INCAR, KPOINTS, POSCAR, and in place of the potentials, which only a licence gives, their names.

    ``POTCAR.spec`` holds one potential a line, in the order of POSCAR, ``POTCAR.functional`` the set that they are of.
    Both are those of the Materials Project's r2SCAN calculations, whose potentials are of PBE.
    """
    from pymatgen.io.vasp.inputs import Incar, Kpoints, Poscar
    from pymatgen.io.vasp.sets import MPScanRelaxSet

    potentials = MPScanRelaxSet.CONFIG["POTCAR"]
    if missing := sorted(set(crystal.symbols) - potentials.keys()):
        raise InputError(f"there is no potential for {', '.join(missing)}")
    electrons = {tag.upper(): value for tag, value in vasp_parameters(chosen).items()} | {"ALGO": "Normal", "NELM": 100}
    pressure = 10 * settings.pressure  # kB
    ions = {"IBRION": 2, "ISIF": 3, "NSW": settings.max_steps, "EDIFFG": -settings.max_force, "PSTRESS": pressure}
    poscar = Poscar(crystal.to_pymatgen().get_sorted_structure())
    Incar(electrons | ions).write_file(str(folder / "INCAR"))
    Kpoints.monkhorst_automatic(chosen.kpoints).write_file(str(folder / "KPOINTS"))
    poscar.write_file(str(folder / "POSCAR"), significant_figures=16)
    (folder / "POTCAR.spec").write_text("\n".join(potentials[symbol] for symbol in poscar.site_symbols))
    (folder / "POTCAR.functional").write_text(MPScanRelaxSet.CONFIG["POTCAR_FUNCTIONAL"] + "\n")


def _write_input_set(settings: Settings, name: str, crystal: Crystal, folder: Path) -> None:
    """INCAR, KPOINTS, POSCAR and POTCAR.spec as pymatgen's set of that name has them.

    What moves the ions is ours: the pressure, the threshold on forces and the number of steps.
    """
    from pymatgen.io.vasp import sets

    kind: Any = getattr(sets, name)
    if missing := sorted(set(crystal.symbols) - kind.CONFIG["POTCAR"].keys()):
        raise InputError(f"there is no potential for {', '.join(missing)}")
    ions = {"NSW": settings.max_steps, "EDIFFG": -settings.max_force, "PSTRESS": 10 * settings.pressure}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen's on potentials that later sets have under other names
        inputs = kind(crystal.to_pymatgen(), user_incar_settings={**ions, "LWAVE": False, "LCHARG": False})
        inputs.incar.write_file(str(folder / "INCAR"))
        inputs.kpoints.write_file(str(folder / "KPOINTS"))
        inputs.poscar.write_file(str(folder / "POSCAR"), significant_figures=16)
        (folder / "POTCAR.spec").write_text("\n".join(inputs.potcar_symbols))
    (folder / "POTCAR.functional").write_text(inputs.user_potcar_functional + "\n")


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
            image,
            energy=step["electronic_steps"][-1]["e_0_energy"],
            forces=np.asarray(step["forces"], float),
            stress=stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
        )
        images.append(image)
    # VASP goes on after the largest number of electronic steps, with whatever energy it has by then.
    scf = [len(step["electronic_steps"]) < run.parameters["NELM"] for step in run.ionic_steps]
    return Steps(images, "" if run.converged else "not converged", scf[0], scf[-1])


def _espresso_writer(settings: Settings) -> Callable[[Crystal, Path], None]:
    options = dict(settings.options)
    files = pseudopotentials(pseudo_folder(options.pop("pseudo_dir", None)))
    return partial(_write_espresso, settings, _chosen(settings.calculator, options), files)


def _write_espresso(
    settings: Settings, chosen: DFTSettings, files: Mapping[str, str], crystal: Crystal, folder: Path
) -> None:
    """``espresso.pwi``; where the pseudopotentials lie on the cluster, ``$ESPRESSO_PSEUDO`` says there."""
    import ase.io

    if missing := sorted(set(crystal.symbols) - files.keys()):
        raise InputError(f"there is no pseudopotential for {', '.join(missing)}")
    parameters = espresso_parameters(chosen)
    namelists = parameters["input_data"]
    namelists["control"] |= {
        "calculation": "vc-relax",
        "nstep": settings.max_steps,
        "forc_conv_thr": settings.max_force / EV_PER_A,
        "etot_conv_thr": namelists["electrons"]["conv_thr"],
    }
    namelists["ions"] = {"ion_dynamics": "bfgs"}
    namelists["cell"] = {
        "cell_dynamics": "bfgs",
        "press": 10 * settings.pressure,
        "press_conv_thr": 10 * settings.max_stress,  # kbar
    }
    ase.io.write(folder / "espresso.pwi", crystal.to_ase(), format="espresso-in", pseudopotentials=files, **parameters)


def _read_espresso(path: Path) -> Steps:
    import ase.io

    said, scf = espresso_complaint(path), espresso_scf(path)
    try:
        images: Any = ase.io.read(path, index=":", format="espresso-out")
    except IndexError:  # ASE's way to say that there is no step
        raise ValueError(said or ("no step in it" if False not in scf else NO_SCF)) from None
    text = path.read_text(encoding="utf-8", errors="replace")
    done = "bfgs converged" in text and "JOB DONE" in text
    return Steps(images, f"{CALCULATOR_FAILED}{said}" if said else "" if done else "not converged", *_ends(scf))


def _ends(scf: Sequence[bool]) -> tuple[bool, bool]:
    return (scf[0], scf[-1]) if scf else (False, False)


CODES: Registry[Code] = Registry(
    "code with jobs",
    {
        "vasp": Code(_vasp_writer, "vasprun.xml", _read_vasp),
        "espresso": Code(_espresso_writer, "espresso.pwo", _read_espresso),
    },
)


def _chosen(name: str, options: Mapping[str, Any]) -> DFTSettings:
    check_options(name, choose, options)
    return choose(**options)
