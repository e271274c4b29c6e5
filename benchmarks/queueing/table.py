"""How far every run is, also while queues are at work."""

from __future__ import annotations

from collections.abc import Sequence

from queueing.state import Run

HEADER = ("run", "state", "epochs", "CPU minutes", "best criterion")


def table(runs: Sequence[Run]) -> str:
    rows = [HEADER, *(_row(run) for run in runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *(f"{run.name}: {damage}" for run in runs if (damage := run.damage()))])


def _row(run: Run) -> tuple[str, ...]:
    if run.damage():
        return (run.name, "damaged", "-", "-", "-")
    rows, planned = run.rows(), run.record.get("planned_epochs", "?")
    return (
        run.name,
        _state(run),
        f"{len(rows)}/{planned}" if rows else "-",
        f"{run.spent():.1f}/{run.minutes():g}",
        f"{min(float(row['val/criterion']) for row in rows):.4f}" if rows else "-",
    )


def _state(run: Run) -> str:
    if run.finished:
        return "finished"
    if run.taken:
        return "training"
    state = run.record.get("state", "waiting")
    if state == "training":
        state = "stopped"  # nobody is at it
    return f"skipped, no {run.entry.requires}" if run.skipped else str(state)
