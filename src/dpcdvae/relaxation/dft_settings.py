"""Named sets of settings that mean the same in each DFT code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dpcdvae.errors import InputError
from dpcdvae.registry import Registry

DEFAULT_SETTINGS = "paper-carbon"


@dataclass(frozen=True)
class DFTSettings:
    """PBE and PAW, in numbers.

    Attributes:
        cutoff: of the plane waves, eV.
        kpoints: Monkhorst-Pack mesh, the same for every cell.
        energy_tolerance: of the self-consistent field, eV for the cell.
        smearing: width of the Gaussian, eV.
        pressure: GPa, max_force: eV/Å, max_stress: GPa: of the relaxation, where nothing else is given.
        input_set: pymatgen's set of VASP inputs that replaces the numbers on electrons; "" for none.
    """

    cutoff: float
    kpoints: tuple[int, int, int]
    energy_tolerance: float
    smearing: float
    pressure: float
    max_force: float
    max_stress: float
    input_set: str = ""


SETTINGS: Registry[DFTSettings] = Registry(
    "set of DFT settings",
    {
        # DP-CDVAE, "DFT calculations". Smearing and stress threshold are ours; the paper gives none.
        "paper-carbon": DFTSettings(800.0, (5, 5, 5), 1e-5, 0.05, 10.0, 1e-5, 0.05),
        # Spin, Hubbard U, k points and potentials of each crystal are those of MPRelaxSet.
        "materials-project": DFTSettings(520.0, (1, 1, 1), 1e-4, 0.05, 0.0, 0.02, 0.3, "MPRelaxSet"),
        "screening": DFTSettings(500.0, (3, 3, 3), 1e-4, 0.1, 0.0, 0.05, 0.3),
    },
)


def choose(
    settings: str = DEFAULT_SETTINGS,
    cutoff: float | None = None,
    kpoints: Sequence[int] | None = None,
    energy_tolerance: float | None = None,
    smearing: float | None = None,
) -> DFTSettings:
    """A set of settings with what is given in place of its own.

    Raises:
        InputError: an unknown set, one that is of input files alone, a value that is not above zero, a mesh that is not
            of three whole numbers.
    """
    if SETTINGS[settings].input_set:
        raise InputError(
            f"settings {settings} are input files of VASP, which take no options beside them: "
            "give --calculator vasp --write-jobs FOLDER"
        )
    numbers = {"cutoff": cutoff, "energy_tolerance": energy_tolerance, "smearing": smearing}
    for name, value in numbers.items():
        if value is not None and not (type(value) in (int, float) and 0 < value < math.inf):
            raise InputError(f"option {name} must be above 0, not {value!r}")
    given: dict[str, Any] = {name: float(value) for name, value in numbers.items() if value is not None}
    if kpoints is not None:
        if (
            not isinstance(kpoints, list | tuple)
            or len(kpoints) != 3
            or any(type(n) is not int or n < 1 for n in kpoints)
        ):
            raise InputError(f"option kpoints must be three whole numbers, such as [3,3,3], not {kpoints!r}")
        given["kpoints"] = tuple(kpoints)
    return replace(SETTINGS[settings], **given)
