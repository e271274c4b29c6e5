"""Every option of a configuration with its value, default, unit and meaning: for the command line and the documents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dpcdvae.config.fields import Section, allowed, group_of, unit_of
from dpcdvae.config.options import COMPONENTS
from dpcdvae.config.schema import KINDS, AnyConfig, Config
from dpcdvae.config.sections import AnyModelConfig

REGENERATE = "python -m dpcdvae.config.describe > docs/options.md"


@dataclass(frozen=True)
class OptionRow:
    """One option.

    Attributes:
        name: as ``--set`` takes it. group: a group beside the section, "" for none. allowed: the possible values.
    """

    name: str
    value: Any
    default: Any
    unit: str
    meaning: str
    allowed: str
    group: str


def option_rows(config: AnyConfig) -> list[OptionRow]:
    """Every option of a configuration, those of its components too, in the order of the schema."""
    rows: list[OptionRow] = []
    components = config.components()
    for name in type(config).section_names():
        section = getattr(config, name)
        rows += [row for row in _rows(name, section) if row.name not in type(config).free_form]
        for table, options in components.items():
            if table.startswith(f"{name}."):
                rows += _rows(table, options)
    return rows


def _rows(prefix: str, section: Section) -> Iterator[OptionRow]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        key = f"{prefix}.{name}"
        yield OptionRow(
            key, value, field.default, unit_of(field), field.description or "", allowed(field), group_of(field)
        )


def options_page() -> str:
    """The document of all options, as Markdown."""
    lines = [
        "# Options",
        "",
        "Every option of a configuration, from the schema in [`config/`](../src/dpcdvae/config). `dpcdvae config show",
        "PRESET` prints them with the values of a preset; `--set OPTION=VALUE` changes one. Options in *italics*",
        "reproduce what the authors' public code does otherwise than the paper. This page is made by",
        f"`{REGENERATE}`.",
    ]
    shown: set[type[Section]] = {AnyModelConfig}  # its options are among those of other models
    for kind, cls in KINDS.items():
        config = cls()  # type: ignore[call-arg]  # each has a default for its kind
        for name in cls.section_names():
            section = getattr(config, name)
            if type(section) in shown:
                continue
            shown.add(type(section))
            rows = [row for row in _rows(name, section) if row.name not in cls.free_form]
            lines += ["", f"## `{name}`" + ("" if cls is Config else f" of the kind `{kind}`"), *_table(rows)]
            for component, options in COMPONENTS.get(name, {}).items():
                table, of = (f"{name}.options.{component}", "") if name == "encoder" else (f"{name}.options", component)
                if rows := list(_rows(table, options())):
                    lines += ["", f"### `{table}`" + (f" of `{of}`" if of else ""), *_table(rows)]
    return "\n".join(lines) + "\n"


def _table(rows: list[OptionRow]) -> list[str]:
    lines = ["", "| option | default | unit | values | meaning |", "|---|---|---|---|---|"]
    for row in rows:
        name = f"`{row.name.rpartition('.')[2]}`"
        cells = [f"*{name}*" if row.group else name, f"`{written(row.default)}`", row.unit, row.allowed, row.meaning]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def written(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    print(options_page(), end="")
