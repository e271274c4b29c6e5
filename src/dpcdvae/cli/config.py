"""``dpcdvae presets``, ``dpcdvae config show``."""

from __future__ import annotations

import json as json_module

import typer

from dpcdvae.cli.groups import argument, command, option
from dpcdvae.cli.options import Overrides, complete_presets

app = typer.Typer(help="Show the options of a model and its training.", no_args_is_help=True, rich_markup_mode=None)


def presets() -> None:
    """The presets that come with the package, and the choices that +CHOICE adds to one.

    \b
    Example:
      dpcdvae presets
    """
    from dpcdvae.presets import about, names, preset_names

    listed = [*preset_names(), *(f"+{choice}" for choice in names("choices"))]
    width = max(map(len, listed))
    for name in listed:
        print(f"{name:{width}}  {about(name)}")


@app.command()
@command
def show(
    preset: str = argument(..., "A preset (dpcdvae presets) or a TOML file.", autocompletion=complete_presets),
    set_: Overrides = None,
    json: bool = option(False, "Print JSON, with the possible values too.", "--json"),
) -> None:
    """Every option of a preset: value, unit, default where it differs, and meaning.

    \b
    Example:
      dpcdvae config show compact/dp-cdvae-perov_5 --set train.max_epochs=10
    """
    from dataclasses import asdict

    from dpcdvae.config import load_config
    from dpcdvae.config.describe import OptionRow, option_rows, written

    rows = option_rows(load_config(preset, set_ or []))
    if json:
        print(json_module.dumps({"preset": preset, "options": [asdict(row) for row in rows]}, indent=1))
        return
    groups: dict[str, list[OptionRow]] = {}
    for row in rows:
        groups.setdefault(row.group or row.name.partition(".")[0], []).append(row)
    # Groups beside the sections come last.
    for title, members in sorted(groups.items(), key=lambda item: bool(item[1][0].group)):
        print(f"[{title}]")
        width = max(len(row.name) for row in members)
        for row in members:
            value = f"{written(row.value)} {row.unit}".strip()
            default = "" if row.value == row.default else f" (default {written(row.default)})"
            print(f"  {row.name:{width}}  {value:20}  {row.meaning}{default}")
