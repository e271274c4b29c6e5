"""The command ``dpcdvae``. Each command: parse, call, write; what is heavy it imports when it runs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import typer

from dpcdvae import __version__
from dpcdvae.cli.exit_codes import run
from dpcdvae.cli.groups import command, option

# Command -> the module in this package that defines a function (or a group `app`) of that name.
COMMANDS = {
    "data": "data",
    "presets": "config",
    "config": "config",
    "train": "train",
    "export": "train",
    "convert": "convert",
    "models": "models",
    "generate": "generate",
    "reconstruct": "generate",
    "optimize": "search",
    "interpolate": "search",
    "film": "film",
    "evaluate": "evaluate",
    "view": "view",
    "draw": "draw",
    "plot": "plot",
    "stability": "stability",
    "phases": "phases",
    "relax": "relaxation",
    "ground-state": "relaxation",
    "benchmark": "benchmark",
    "demo": "demo",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    return run(build_app(), arguments or ["--help"])


def build_app() -> typer.Typer:
    app = typer.Typer(
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        callback=_options,
        context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
    )
    for name, module_name in COMMANDS.items():
        module = importlib.import_module(f"dpcdvae.cli.{module_name}")
        function = getattr(module, name.replace("-", "_"), None)
        if function is None:
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(command(function))
    return app


def _show_version(show: bool) -> None:
    if show:
        print(f"dpcdvae {__version__}")
        raise typer.Exit


def _options(
    version: bool = option(False, "Print the version.", "--version", callback=_show_version, is_eager=True),
) -> None:
    """Generate crystal structures with DP-CDVAE, and evaluate them.

    \b
    Example:
      dpcdvae generate perov-5 -n 100 --seed 0 --out crystals.extxyz
    """
