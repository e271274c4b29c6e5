"""``dpcdvae benchmark``: presets side by side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

WIDTH = 150  # in less the numbers would be broken


def benchmark(
    suite: Annotated[Path, typer.Argument(help="TOML file: data, presets, seeds, budget.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder; one of the same suite goes on.", show_default=False)],
    json: Annotated[Path | None, typer.Option("--json", help="Write all numbers here too, for machines.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=0, help="Processes of the evaluation.  [default: one for each core]", show_default=False
        ),
    ] = None,
) -> None:
    """Train presets on the same data with the same seeds and budget, sample, evaluate, print one table.

    Stopped at any point, the same command goes on where it was. The table lies in table.md of the folder too.

    \b
    Example:
      dpcdvae benchmark benchmarks/suites/perov_5.toml --out bench/perov_5
    """
    from rich.console import Console

    from dpcdvae.comparison.suite import read_suite
    from dpcdvae.files import check_output, write_json

    if json is not None:
        check_output(json, overwrite=True)
    settings = read_suite(suite)
    from dpcdvae.comparison.compare_presets import compare_presets
    from dpcdvae.comparison.tables import rich_table

    document = compare_presets(settings, out, workers=workers)
    if json is not None:
        write_json(json, document)
    console = Console()
    if console.width < WIDTH or not sys.stdout.isatty():
        console.width = WIDTH
    console.print(rich_table(document))
