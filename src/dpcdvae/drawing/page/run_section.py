"""A training run on the page: its losses, the criterion of the best checkpoint, and the learning rate, by epoch."""

from __future__ import annotations

from pathlib import Path

from dpcdvae.drawing.page.plots import curve_plot
from dpcdvae.errors import InputError
from dpcdvae.run_log import RunLog, read_run

_PLOTS = {
    "loss": {"training": "train/loss", "validation (dashed)": "val/loss"},
    "criterion of the best checkpoint": {"criterion": "val/criterion"},
    "learning rate": {"rate": "lr"},
}

_MOST = 1000  # points of a curve


def run_section(folder: Path) -> str:
    """HTML of the curves of a run.

    Raises:
        InputError: as :func:`~dpcdvae.run_log.read_run`, or where there is none.
    """
    log = read_run(folder)
    found = {title: {name: _points(log, column) for name, column in curves.items()} for title, curves in _PLOTS.items()}
    shown = {title: {name: points for name, points in curves.items() if points} for title, curves in found.items()}
    plots = [
        curve_plot(title + (": " + ", ".join(curves) if len(curves) > 1 else ""), curves)
        for title, curves in shown.items()
        if curves
    ]
    if not plots:
        raise InputError(
            f"{folder}: this run has no loss, criterion or learning rate that is a number: nothing to show"
        )
    return (
        f'<section id="run" aria-label="Training"><h2>Training</h2><div class="plots">{"".join(plots)}</div></section>'
    )


def _points(log: RunLog, column: str) -> list[tuple[float, float]]:
    """(epoch, value) of every finite value, thinned where there are too many."""
    epochs, values = log.curve(column)
    step = max(1, -(-len(epochs) // _MOST))
    return list(zip(epochs[::step].tolist(), values[::step].tolist(), strict=True))
