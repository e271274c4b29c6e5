"""``dpcdvae benchmark``: presets side by side."""

from __future__ import annotations

import sys
from pathlib import Path

from dpcdvae.cli.groups import argument, option
from dpcdvae.cli.options import Json

WIDTH = 150  # in less the numbers would be broken


def benchmark(
    suite: Path = argument(..., "TOML file: data, presets, seeds, budget."),
    out: Path = option(..., "Folder; an unfinished benchmark of the same suite continues."),
    json: Json = None,
    workers: int | None = option(None, "Processes of the evaluation.", shown="one for each core", min=0),
) -> None:
    """Train presets on the same data with the same seeds and budget, sample, evaluate, print one table.

    After a stop at any point, the same command continues. The table is also in table.md of the folder.

    \b
    Example:
      dpcdvae benchmark benchmarks/suites/perov_5.toml --out bench/perov_5
    """
    from rich.console import Console

    from dpcdvae.comparison.suite import read_suite
    from dpcdvae.config import load_config
    from dpcdvae.datasets import dataset_path, load_dataset
    from dpcdvae.files import check_output, write_json

    if json is not None:
        check_output(json, overwrite=True)
    if not out.exists():
        check_output(out)
    settings = read_suite(suite)
    for preset in settings.presets:
        load_config(preset)
    if not dataset_path(settings.dataset).is_file():
        load_dataset(settings.dataset)  # says what is wrong, or builds it
    from dpcdvae.comparison.compare_presets import compare_presets
    from dpcdvae.comparison.tables import rich_table

    document = compare_presets(settings, out, workers=workers)
    if json is not None:
        write_json(json, document)
    console = Console()
    if console.width < WIDTH or not sys.stdout.isatty():
        console.width = WIDTH
    console.print(rich_table(document))
