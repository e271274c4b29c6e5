"""What commands write: checked before any work, crystals with their manifest, tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcdvae.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from dpcdvae.cli.groups import Call
    from dpcdvae.io import Failure
    from dpcdvae.structures.crystal import Crystal

NONE_BUILT = "none of {} crystals could be built: the model needs more training"


def write_crystals(
    call: Call,
    crystals: Sequence[Crystal],
    out: Path,
    facts: Mapping[str, Any],
    *,
    overwrite: bool,
    through: Path | None = None,
) -> None:
    """Writes crystals, and then their manifest: where that lies, the command has done its work.

    Args:
        facts: for the manifest, beside the call and the number of crystals.
        through: a folder to write in before the rename, for one who looks after what a kill would leave there.
    """
    from dpcdvae.files import atomic_output, manifest_path
    from dpcdvae.io import write

    if through is None:
        write(crystals, out, overwrite=overwrite)
    elif crystals:
        complete = write(crystals, through / out.name, overwrite=True)
        manifest_path(out).unlink(missing_ok=True)  # of what is replaced
        with atomic_output(out) as temporary:
            complete.rename(temporary)
    call.write_manifest(out, {"crystals": len(crystals), **facts})


def not_built(failures: Sequence[Failure]) -> list[dict[str, str]]:
    """Crystals that could not be built, for a manifest; the first few are named on standard error."""
    for failure in failures[:5]:
        print(f"not built: {failure.id}: {failure.reason}", file=sys.stderr)
    return [{"id": failure.id, "reason": failure.reason} for failure in failures]


def console() -> Console:
    """For tables: as wide as the terminal, or 120 columns in a file or a pipe, where they have to come whole."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 120, markup=False, emoji=False)


def check_distinct(*outputs: Path | None) -> None:
    """Raises InputError where two outputs of one command would be the same file."""
    given = [output.resolve() for output in outputs if output is not None]
    for output in given:
        if given.count(output) > 1:
            raise InputError(f"{output} is named for two outputs: give each a name of its own")


def check_apart(outputs: Sequence[Path | None], inputs: Sequence[str | Path | None]) -> None:
    """Raises InputError where an output would replace an input, or become one of its crystals."""
    for source in (Path(given).resolve() for given in inputs if given is not None and Path(given).exists()):
        for output in (path for path in outputs if path is not None):
            if output.resolve() == source:
                raise InputError(f"{output} is an input of this command: give the output another name")
            if source.is_dir() and output.resolve().parent == source and not _is_model(source):
                raise InputError(f"{output} would lie among the crystals of {source}: write it elsewhere")


def _is_model(folder: Path) -> bool:
    from dpcdvae.model_store import CARD, CHECKPOINTS, CONFIG

    return any((folder / name).exists() for name in (CARD, CHECKPOINTS, CONFIG))
