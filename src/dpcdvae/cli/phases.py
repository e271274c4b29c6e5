"""``dpcdvae phases``: a hull of the Materials Project, in a file."""

from __future__ import annotations

from dpcdvae.cli.groups import Call, option
from dpcdvae.cli.options import Out, Overwrite
from dpcdvae.errors import InputError


def phases(
    *,
    call: Call,
    out: Out,
    chemical_system: list[str] = option(..., "Elements, such as Sr-Ti-O; may be repeated.", "--chemical-system"),
    overwrite: Overwrite = False,
) -> None:
    """Fetch the phases of chemical systems from the Materials Project into a file, for energies above hull.

    The key of your account has to be in MP_API_KEY. evaluate and stability take the file, without the network.

    \b
    Example:
      dpcdvae phases --chemical-system Sr-Ti-O --out phases.json
    """
    from dpcdvae.evaluation.materials_project import THERMO_TYPE, fetch_phases
    from dpcdvae.files import check_output, write_json

    if out.suffix != ".json":
        raise InputError(f"{out}: phases are written as .json")
    check_output(out, overwrite=overwrite)
    found = fetch_phases(chemical_system)
    write_json(out, {"phases": found})
    call.write_manifest(out, {"phases": len(found), "thermo_type": THERMO_TYPE})
    print(f"{out}: {len(found)} phases")
