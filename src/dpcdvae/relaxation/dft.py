"""DFT codes as calculators: GPAW, Quantum ESPRESSO and VASP.

What the paper leaves open is chosen the same way for every code: Gaussian smearing, so that metallic carbon converges
too, no symmetry but time reversal, as a relaxation may break it, and no spin.
"""

from __future__ import annotations

import atexit
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcdvae.errors import InputError, one_line
from dpcdvae.files import sha256
from dpcdvae.relaxation.dft_settings import DEFAULT_SETTINGS, DFTSettings, choose
from dpcdvae.structures.elements import ATOMIC_NUMBERS

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

RYDBERG = 13.605693122990  # eV, CODATA 2022
NO_SCF = "the self-consistent field did not converge"


def gpaw(
    *,
    settings: str = DEFAULT_SETTINGS,
    cutoff: float | None = None,
    kpoints: Sequence[int] | None = None,
    energy_tolerance: float | None = None,
    smearing: float | None = None,
    directory: str | None = None,
) -> Calculator:
    """GPAW in plane waves, with its own PAW data sets."""
    from gpaw import GPAW

    chosen = choose(settings, cutoff, kpoints, energy_tolerance, smearing)
    calculator: Calculator = GPAW(
        mode={"name": "pw", "ecut": chosen.cutoff},
        xc="PBE",
        kpts={"size": chosen.kpoints, "gamma": False},
        occupations={"name": "methfessel-paxton", "order": 0, "width": chosen.smearing},  # order 0 is Gaussian
        convergence={"energy": {"name": "energy", "tol": chosen.energy_tolerance, "relative": False}},
        symmetry={"point_group": False},
        spinpol=False,
        txt=str(_folder(directory) / "gpaw.txt"),
    )
    return calculator


def espresso(
    *,
    settings: str = DEFAULT_SETTINGS,
    cutoff: float | None = None,
    kpoints: Sequence[int] | None = None,
    energy_tolerance: float | None = None,
    smearing: float | None = None,
    command: str = "pw.x",
    pseudo_dir: str | None = None,
    directory: str | None = None,
) -> Any:
    """Quantum ESPRESSO's pw.x with the PBE PAW files of a folder: ``pseudo_dir``, or ``$ESPRESSO_PSEUDO``.

    ASE's calculator, which is none of its ``Calculator`` by class.
    """
    from ase.calculators.espresso import Espresso, EspressoProfile

    class Telling(Espresso):
        """Adds the error message of pw.x, of which ASE has only the exit status."""

        def calculate(self, *arguments: Any, **keywords: Any) -> None:
            output = Path(self.directory) / self.template.outputname
            output.unlink(missing_ok=True)  # of the crystal before
            try:
                super().calculate(*arguments, **keywords)  # type: ignore[no-untyped-call]  # ASE states no types
                failed = False in espresso_scf(output)
            except Exception as error:
                said = espresso_complaint(output) or (NO_SCF if False in espresso_scf(output) else "")
                if not said and isinstance(error, subprocess.SubprocessError | OSError):  # these say it themselves
                    raise
                raise RuntimeError(f"{command}: {said or 'there is no result in its output'}") from error
            if failed:
                self.results = {}  # or ASE would hand out the energy when asked again
                raise RuntimeError(f"{command}: {NO_SCF}")

    chosen = choose(settings, cutoff, kpoints, energy_tolerance, smearing)
    _check_command("espresso", command, "install Quantum ESPRESSO, or give --calculator-option command=/path/to/pw.x")
    folder = pseudo_folder(pseudo_dir)
    files = pseudopotentials(folder)
    return Telling(  # type: ignore[no-untyped-call]  # ASE states no types
        profile=EspressoProfile(command=command, pseudo_dir=folder),
        directory=_folder(directory),
        pseudopotentials=files,
        **espresso_parameters(chosen),
    )


def espresso_complaint(output: Path) -> str:
    """What an output of pw.x says against it, e.g. ``Error in routine electrons (1): charge is wrong``, or empty."""
    text = output.read_text(encoding="utf-8", errors="replace") if output.is_file() else ""
    found = re.search(r"^ *%{20,}\n(.*?)\n *%{20,}", text, re.MULTILINE | re.DOTALL)
    return one_line(found[1]) if found else ""


def espresso_scf(output: Path) -> list[bool]:
    """Of each self-consistent field in an output of pw.x, in their order, whether it converged."""
    text = output.read_text(encoding="utf-8", errors="replace") if output.is_file() else ""
    return [word == "has been" for word in re.findall(r"convergence (has been|NOT) achieved", text)]


def espresso_parameters(chosen: DFTSettings) -> dict[str, Any]:
    """What ASE writes into an input of pw.x: mesh and namelists, for a single point with forces and stress."""
    return {
        "kpts": chosen.kpoints,
        "koffset": tuple(0 if n % 2 else 1 for n in chosen.kpoints),  # Monkhorst-Pack's mesh holds Γ only where odd
        "input_data": {
            "control": {"tprnfor": True, "tstress": True, "disk_io": "none"},
            "system": {
                "ecutwfc": chosen.cutoff / RYDBERG,
                "ecutrho": 8 * chosen.cutoff / RYDBERG,
                "occupations": "smearing",
                "smearing": "gaussian",
                "degauss": chosen.smearing / RYDBERG,
                "nosym": True,
            },
            "electrons": {"conv_thr": chosen.energy_tolerance / RYDBERG, "electron_maxstep": 200},
        },
    }


def vasp(
    *,
    settings: str = DEFAULT_SETTINGS,
    cutoff: float | None = None,
    kpoints: Sequence[int] | None = None,
    energy_tolerance: float | None = None,
    smearing: float | None = None,
    command: str | None = None,
    directory: str | None = None,
) -> Calculator:
    """VASP, for who has it: its command in ``$ASE_VASP_COMMAND``, its potentials under ``$VASP_PP_PATH``."""
    from ase.calculators.vasp import Vasp

    class Converging(Vasp):
        """Fails where ASE gives the energy of a self-consistent field that did not converge."""

        def calculate(self, *arguments: Any, **keywords: Any) -> None:
            super().calculate(*arguments, **keywords)  # type: ignore[no-untyped-call]  # ASE states no types
            if not self.converged:
                # or ASE would hand out the energy when asked again
                self.reset()  # type: ignore[no-untyped-call]  # ASE states no types
                raise RuntimeError(NO_SCF)

    chosen = choose(settings, cutoff, kpoints, energy_tolerance, smearing)
    found = vasp_command(command)
    _check_command("vasp", found, "set ASE_VASP_COMMAND, e.g. to 'mpirun -n 16 vasp_std'")
    if not _vasp_potentials().is_dir():
        where = os.environ.get("VASP_PP_PATH", "")
        raise InputError(
            "calculator vasp needs VASP_PP_PATH, the folder with potpaw_PBE, which your licence brings"
            + (f": {where} holds none" if where else "")
        )
    calculator: Calculator = Converging(
        directory=str(_folder(directory)),
        command=found,
        xc="pbe",
        kpts=chosen.kpoints,
        gamma=False,
        ibrion=-1,
        nsw=0,
        isif=2,
        **vasp_parameters(chosen),
    )
    return calculator


def vasp_parameters(chosen: DFTSettings) -> dict[str, Any]:
    """What INCAR says of the electrons, whatever the atoms do: ASE's keywords, which are its tags in small letters."""
    return {
        "prec": "Accurate",
        "encut": chosen.cutoff,
        "ediff": chosen.energy_tolerance,
        "ismear": 0,
        "sigma": chosen.smearing,
        "isym": 0,
        "ispin": 1,
        "lasph": True,
        "lreal": False,
        "lwave": False,
        "lcharg": False,
    }


def vasp_command(command: str | None = None) -> str:
    """The command given, that of the environment, or ``vasp_std``."""
    from ase.calculators.vasp import Vasp

    return command or next((os.environ[name] for name in Vasp.env_commands if name in os.environ), "vasp_std")


def program_version(command: str) -> str:
    """Name and hash of the program that a command ends in (``mpirun -n 16 vasp_std``); empty where there is none.

    A program that is no more than a script does not show what it starts.
    """
    programs = [found for word in shlex.split(command) if (found := shutil.which(word)) is not None]
    return f"{Path(programs[-1]).name} {sha256(programs[-1])[:12]}" if programs else ""


def pseudopotentials(folder: str | Path) -> dict[str, str]:
    """Element -> file, of the PBE PAW files of a folder; of several the last in the order of their names.

    Raises:
        InputError: there are none.
    """
    files = {}
    for path in sorted(Path(folder).glob("*")):
        match = re.fullmatch(r"([A-Z][a-z]?)[._]pbe-\S*kjpaw\S*\.upf", path.name, re.IGNORECASE)
        if match and match[1].capitalize() in ATOMIC_NUMBERS:
            files[match[1].capitalize()] = path.name
    if not files:
        raise InputError(f"{folder} holds no PBE PAW pseudopotential (such as C.pbe-n-kjpaw_psl.1.0.0.UPF)")
    return files


def espresso_elements(calculator: Any) -> Collection[int]:
    return {ATOMIC_NUMBERS[symbol] for symbol in calculator.parameters["pseudopotentials"]}


def gpaw_elements(_: Any) -> Collection[int]:
    """Those with a PBE data set in one of GPAW's folders."""
    from gpaw import setup_paths

    names = (path.name for folder in setup_paths for path in Path(folder).glob("*.PBE*"))
    return {ATOMIC_NUMBERS[symbol] for name in names if (symbol := name.partition(".")[0]) in ATOMIC_NUMBERS}


def vasp_elements(_: Any) -> Collection[int]:
    """Those with a potential of their plain name, the one that is used."""
    folder = _vasp_potentials()
    return {number for symbol, number in ATOMIC_NUMBERS.items() if list(folder.glob(f"{symbol}/POTCAR*"))}


def _vasp_potentials() -> Path:
    return Path(os.environ.get("VASP_PP_PATH", "")) / "potpaw_PBE"


def _check_command(name: str, command: str, advice: str) -> None:
    words = shlex.split(command)
    missing = [word for word in words[:1] if shutil.which(word) is None]
    if not words or missing:
        raise InputError(f"calculator {name}: there is no program '{command}' on the PATH: {advice}")


def pseudo_folder(given: str | None) -> Path:
    folder = given or os.environ.get("ESPRESSO_PSEUDO", "/usr/share/espresso/pseudo")
    if not Path(folder).is_dir():
        raise InputError(
            f"calculator espresso: no folder {folder} of pseudopotentials: set ESPRESSO_PSEUDO, or give "
            "--calculator-option pseudo_dir=FOLDER"
        )
    return Path(folder)


def _folder(directory: str | None) -> Path:
    """Where a code keeps its files: the one given, or one that goes with this process."""
    if directory is not None:
        Path(directory).mkdir(parents=True, exist_ok=True)
        return Path(directory)
    folder = tempfile.mkdtemp(prefix="dpcdvae-dft-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
