"""Outputs of commands: paths checked before any work, crystals with their manifest, reports."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcdvae.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from dpcdvae.cli.groups import Call
    from dpcdvae.sampling.finished_batches import GenerationResult
    from dpcdvae.structures.crystal import Crystal


def write_crystals(
    call: Call,
    crystals: Sequence[Crystal],
    out: Path,
    facts: Mapping[str, Any],
    *,
    overwrite: bool,
    through: Path | None = None,
    symmetrise: float | None = None,
) -> None:
    """Writes crystals, and then their manifest: where that lies, the command has done its work.

    Args:
        facts: for the manifest, beside the call and the number of crystals.
        through: a folder to write in before the rename, for one who looks after what a kill would leave there.
        symmetrise: tolerance (Å) of CIFs with their space group, as of :func:`dpcdvae.io.write`.
    """
    from dpcdvae.files import atomic_output, manifest_path
    from dpcdvae.io import check_destination, write

    if through is None:
        write(crystals, out, overwrite=overwrite, symmetrise=symmetrise)
    elif crystals:
        format = check_destination(out, overwrite=True)  # of the place itself: a folder there is replaced by one
        complete = write(crystals, through / out.name, format=format, overwrite=True, symmetrise=symmetrise)
        manifest_path(out).unlink(missing_ok=True)  # of what is replaced
        with atomic_output(out) as temporary:
            complete.rename(temporary)
    call.write_manifest(out, {"crystals": len(crystals), **facts})


def write_together(call: Call, asked: Mapping[Path | None, Callable[[Path], object]], facts: Mapping[str, Any]) -> None:
    """Writes several files, and then the manifest of each.

    All are filled before the first is renamed, so that one that cannot be filled leaves all as they were. Whatever
    happens between the renames, a manifest never lies beside another file than its own.

    Args:
        asked: what fills each file, given a temporary path with its ending; None stands for an option not given.
    """
    from dpcdvae.files import atomic_output, beside

    writers = {path: write for path, write in asked.items() if path is not None}
    with ExitStack() as stack:  # which renames what was entered last first
        for output in writers:
            manifest = stack.enter_context(atomic_output(beside(output)))
            manifest.write_text(call.manifest(facts), encoding="utf-8")
        for output, write in writers.items():
            temporary = stack.enter_context(atomic_output(output))
            try:
                write(temporary)
            except InputError as error:  # which names the temporary path
                raise InputError(str(error).replace(str(temporary), str(output))) from error
        for output in writers:
            beside(output).unlink(missing_ok=True)  # of what is replaced


def facts_of(result: GenerationResult, *, may_be_empty: bool = False) -> dict[str, Any]:
    """Facts for the manifest of crystals from a model; raises InputError where none could be built.

    The first few that could not be built are named on standard error.
    """
    for failure in result.failures[:5]:
        print(f"not built: {failure.id}: {failure.reason}", file=sys.stderr)
    if not result.crystals and not may_be_empty:
        raise InputError(f"none of {len(result.failures)} crystals could be built: the model needs more training")
    return {"passes": result.passes, "failures": [{"id": f.id, "reason": f.reason} for f in result.failures]}


def write_report(call: Call, report: Any, path: Path | None, facts: Mapping[str, Any]) -> None:
    """Prints the table of a report; writes its numbers to ``path``, where one is given, with their manifest."""
    from dpcdvae.files import write_json

    console().print(report.table())
    if path is not None:
        write_json(path, report.to_json())
        call.write_manifest(path, facts)


def console() -> Console:
    """A console for tables: as wide as the terminal, or 120 columns in a file or a pipe, where lines must not break."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 120, markup=False, emoji=False)


def check_paths(outputs: Iterable[Path | None], inputs: Iterable[str | Path | None] = ()) -> None:
    """Raises InputError where two outputs are the same file, or one would replace an input or become one of its files.

    ``None`` stands for an option that is not given.
    """
    from dpcdvae.files import beside

    given = [(path, path.resolve()) for path in outputs if path is not None]
    manifests = [(path, beside(target)) for path, target in given]
    sources = [Path(path).resolve() for path in inputs if path is not None and Path(path).exists()]
    for output, target in given:
        if sum(target == other for _, other in given) > 1:
            raise InputError(f"{target} is named for two outputs: give each a name of its own")
        if clash := next((path for path, manifest in manifests if manifest == target), None):
            raise InputError(f"{output} would be the manifest of {clash}: give it another name")
        for source in sources:
            if target == source or beside(target) == source:
                raise InputError(f"{output} is an input of this command: give the output another name")
            if source.is_dir() and target.parent == source and not _is_model(source):
                raise InputError(f"{output} would lie among the files of {source}: write it elsewhere")


def _is_model(folder: Path) -> bool:
    from dpcdvae.model_store import CARD, CHECKPOINTS, CONFIG

    return any((folder / name).exists() for name in (CARD, CHECKPOINTS, CONFIG))
