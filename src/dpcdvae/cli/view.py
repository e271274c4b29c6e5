"""``dpcdvae view``: crystals in the browser."""

from __future__ import annotations

from pathlib import Path

from dpcdvae.cli.groups import Call, argument, option
from dpcdvae.cli.options import Out, Overwrite, Processes
from dpcdvae.cli.outputs import check_paths
from dpcdvae.errors import InputError


def view(
    *,
    call: Call,
    source: Path = argument(
        ..., "Crystals in any format, the JSON of evaluate, or the folder of a training run.", metavar="SOURCE"
    ),
    out: Out,
    processes: Processes,
    beside: Path | None = option(None, "Crystals to show beside them, such as relaxed ones: by id, else by order."),
    report: Path | None = option(None, "The JSON of evaluate about them."),
    crystal_table: Path | None = option(None, "The CSV of evaluate --table about them, for novelty and the like."),
    film: bool = option(False, "All crystals are the frames of one film, such as a trajectory.", "--film"),
    title: str | None = option(None, "Of the page.", shown="the name of the file"),
    overwrite: Overwrite = False,
) -> None:
    """Make a web page of crystals: a table, a viewer, films, the numbers of an evaluation. It needs no network.

    Crystals of interpolate and optimize are films by their ids (a-b@0, a-b@1, ...).

    \b
    Examples:
      dpcdvae view crystals.extxyz --out page.html
      dpcdvae view crystals.extxyz --beside relaxed.extxyz --report numbers.json --out page.html
      dpcdvae view numbers.json --crystal-table crystals.csv --out page.html
      dpcdvae view relaxation.traj --film --out film.html
      dpcdvae view runs/perov --out run.html
    """
    from dpcdvae.files import check_output, refuse_device, sha256

    inputs = {"source": source, "beside": beside, "report": report, "table": crystal_table}
    given = {name: path for name, path in inputs.items() if path is not None}
    for path in given.values():
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        refuse_device(path)
    check_paths([out], given.values())
    check_output(out, overwrite=overwrite)
    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise InputError(f"{out}: a page is written as a file .html")
    from dpcdvae.drawing.page.view import view as make_page

    facts = {f"{name}_sha256": sha256(path) for name, path in given.items()}

    with processes.engine() as engine:
        make_page(
            source,
            out,
            beside=beside,
            report=report,
            table=crystal_table,
            film=film,
            title=title,
            engine=engine,
        )
    call.write_manifest(out, facts)
    print(f"{out}: open it in a browser")
