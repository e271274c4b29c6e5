"""The document of a benchmark for people: a table on the terminal, the same in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dpcdvae.comparison.results import COLUMNS, Column
from dpcdvae.datasets.origin import noted
from dpcdvae.intervals import Number
from dpcdvae.presets import names

if TYPE_CHECKING:
    from rich.table import Table

Cell = tuple[str, str]  # what it says, and its interval if it has one
REASON_LENGTH = 100


def rich_table(document: dict[str, Any]) -> Table:
    """The table of a benchmark for a terminal; print it with rich."""
    from rich.table import Table

    header, rows = _content(document)
    table = Table(
        title=_title(document),
        title_justify="left",
        title_style="bold",
        caption="\n".join(_caption(document)),
        caption_justify="left",
        show_lines=True,
        padding=(0, 0),
    )
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*("\n".join(filter(None, cell)) for cell in row))
    return table


def markdown(document: dict[str, Any]) -> str:
    """Title, table and caption."""
    header, rows = _content(document)
    lines = [f"**{_title(document)}**", "", _line(header), "|---|" + "---:|" * (len(header) - 1)]
    lines += [_line([f"{text} ({interval})" if interval else text for text, interval in row]) for row in rows]
    return "\n".join([*lines, "", *(f"- {line}" for line in _caption(document))]) + "\n"


def labels(presets: Sequence[str]) -> list[str]:
    """Names without the size before and the data set behind that all of them share."""
    if len(presets) < 2:
        return list(presets)
    shared = [f"{size}/" for size in names("sizes") if all(preset.startswith(f"{size}/") for preset in presets)]
    shared_end = [f"-{name}" for name in names("datasets") if all(preset.endswith(f"-{name}") for preset in presets)]
    start, end = "".join(shared), "".join(shared_end)
    return [preset.removeprefix(start).removesuffix(end) for preset in presets]


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _content(document: dict[str, Any]) -> tuple[list[str], list[list[Cell]]]:
    header = ["preset", "params", "epochs", "CPU min", *(column.title for column in COLUMNS), "sampling, CPU s/crystal"]
    rows: list[list[Cell]] = []
    for label, row in zip(labels([row["preset"] for row in document["rows"]]), document["rows"], strict=True):
        seconds = row["time"].get("training_cpu_seconds")
        sampling = row["time"].get("generated_cpu_seconds_per_crystal")
        rows.append(
            [
                (label, ""),
                (f"{row['parameters'] / 1e6:.2f} M", ""),
                ("-" if row["epochs"] is None else f"{row['epochs']:g}", ""),
                ("-" if seconds is None else f"{seconds / 60:.2f}", ""),
                *(_cell(column, row["values"][column.key]) for column in COLUMNS),
                ("-" if sampling is None else f"{sampling:.2f}", ""),
            ]
        )
    return header, rows


def _cell(column: Column, value: dict[str, Any]) -> Cell:
    return Number.from_json(value, column.unit).shown(column.unit)


def _title(document: dict[str, Any]) -> str:
    suite, data = document["suite"], document["dataset"]
    budget = f"{suite['cpu_minutes']:g} CPU minutes" if suite["cpu_minutes"] else counted(suite["epochs"], "epoch")
    return f"{noted(data)}: {data['part']['train']} crystals to train on, {budget} for each model"


def _caption(document: dict[str, Any]) -> list[str]:
    suite, data = document["suite"], document["dataset"]
    seeds = ", ".join(map(str, suite["seeds"]))
    if document["interval"] == "over seeds":
        intervals = f"seeds {seeds}: the mean, and the 95 % t-interval over seeds"
    else:
        intervals = f"seed {seeds}: 95 % intervals over the crystals of the one run; another seed may differ by more"
    rows = list(zip(labels([row["preset"] for row in document["rows"]]), document["rows"], strict=True))
    return [
        f"match rates and rms: {data['reconstructed']} crystals of the test split reconstructed ('valid': only matches "
        f"whose prediction is valid count); all else: {suite['sample']['generate']} generated; "
        f"where a model is sampled in steps, {suite['sample']['steps']} of them and at most "
        f"{counted(suite['sample']['candidates'], 'candidate')} each",
        intervals,
        *(
            f"{label}: {pending} of {len(suite['seeds'])} runs not done yet"
            for label, row in rows
            if (pending := row["seeds"]["pending"])
        ),
        *(f"{label}: {_short(note)}" for label, row in rows for note in row["notes"]),
        *map(_machine, document["machines"]),
    ]


def _machine(facts: dict[str, Any]) -> str:
    parts = [facts["cpu"], counted(facts["threads"], "thread"), facts["gpu"], f"torch {facts['torch']}"]
    return ", ".join(filter(None, parts))


def _short(note: str) -> str:
    return note if len(note) <= REASON_LENGTH else f"{note[:REASON_LENGTH]}..."


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
