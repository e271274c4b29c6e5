"""``dpcdvae draw``: a picture of crystals."""

from __future__ import annotations

import sys

from dpcdvae.cli.groups import Call, option
from dpcdvae.cli.options import Column, Crystals, Dpi, Out, Overwrite
from dpcdvae.cli.outputs import check_paths
from dpcdvae.drawing.figures import DPI
from dpcdvae.errors import InputError


def draw(
    *,
    call: Call,
    crystals: Crystals,
    out: Out,
    select: list[str] | None = option(None, "Id of a crystal to draw, repeatable.", shown="the first ones"),
    n: int = option(16, "How many, without --select.", "-n", min=1, max=1000),
    columns: int = option(4, "Panels side by side.", min=1, max=100),
    no_bonds: bool = option(False, "Draw no bonds.", "--no-bonds"),
    no_polyhedra: bool = option(False, "Draw no coordination polyhedra.", "--no-polyhedra"),
    outside: bool = option(False, "Draw bonded atoms outside the cell too.", "--outside"),
    labels: bool = option(False, "Write symbols on the atoms.", "--labels"),
    cell: str = option("standard", "standard: the same for every description of a crystal; file: as in the file."),
    along: str = option("", "Look along the axis a, b or c.", shown="from the front, a little from above"),
    rotate: str = option("", "Turn about x (right), y (up), z (to the viewer), degrees: 90x,-20y.", shown="not at all"),
    column: Column = None,
    dpi: Dpi = DPI,
    overwrite: Overwrite = False,
) -> None:
    """Draw crystals into one picture (.svg, .pdf or .png), a panel with formula, id and space group for each.

    With the standard cell the most symmetric site is at the origin: what is alike looks alike.

    \b
    Examples:
      dpcdvae draw crystals.extxyz --out crystals.svg
      dpcdvae draw crystals/ --select 3 --select 17 --columns 2 --along c --out two.pdf
      dpcdvae draw crystals.extxyz -n 4 --outside --labels --rotate 0x,30y --out four.png
    """
    from dpcdvae.drawing.figures import check_figure
    from dpcdvae.drawing.picture import draw as make_picture
    from dpcdvae.files import check_output, sha256
    from dpcdvae.io import Failure, read

    check_paths([out], [crystals])
    check_output(check_figure(out), overwrite=overwrite)
    failures: list[Failure] = []
    found = read(crystals, failures, column=column)
    if failures:
        if not found:
            raise InputError(f"{crystals}: no crystals to draw: {failures[0].reason}")
        print(f"could not be read: {len(failures)}, the first: {failures[0].reason}", file=sys.stderr)
    facts = {"crystals_sha256": sha256(crystals)}
    make_picture(
        found,
        out,
        select=select,
        n=n,
        columns=columns,
        bonds=not no_bonds,
        polyhedra=not no_polyhedra,
        outside=outside,
        labels=labels,
        cell=cell,
        along=along,
        rotate=rotate,
        dpi=dpi,
    )
    call.write_manifest(out, facts)
