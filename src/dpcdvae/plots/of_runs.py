"""Plots of a training run, by epoch, with the CPU time on top."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dpcdvae.drawing.figures import BLUE, GREY, ORANGE
from dpcdvae.plots.plot_table import plot_of
from dpcdvae.run_log import RunLog

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dpcdvae.plots.plot_table import Panel

LINES = [
    (BLUE, "-"), (ORANGE, "--"), ("black", ":"), (GREY, "-."), ("#56B4E9", (0, (5, 1))), ("#009E73", (0, (1, 1))),
    ("#CC79A7", (0, (3, 1, 1, 1))),
]  # fmt: skip
"""Colours and dashes of the terms of a loss."""

SMALLEST = 1e-4
"""Of the largest term: what lies below it is not shown."""


FEW = 10
"""Epochs of a curve below which each is marked."""

MOST_TICKS = 5


@plot_of(RunLog, "loss")
def _loss(log: RunLog) -> Panel | str:
    """The total loss of training and validation."""
    return _curves(log, "Loss", "loss", {"training": "train/loss", "validation": "val/loss"}, logarithmic=True)


@plot_of(RunLog, "loss-terms")
def _loss_terms(log: RunLog) -> Panel | str:
    """The terms of the validation loss, without their weights."""
    names = [name.removeprefix("val/") for name in log.columns if name.startswith("val/")]
    terms = {name.replace("_", " "): f"val/{name}" for name in names if name not in ("loss", "criterion")}
    return _curves(log, "Terms of the validation loss", "loss", terms, logarithmic=True)


@plot_of(RunLog, "criterion")
def _criterion(log: RunLog) -> Panel | str:
    """What the best checkpoint is chosen by, with the best epoch."""
    epochs, values = log.curve("val/criterion")
    if not len(values):
        return "the run has no criterion"
    best = int(np.argmin(values))
    draw = _curves(log, "Criterion of the best checkpoint", "criterion", {"criterion": "val/criterion"})

    def panel(axes: Axes) -> None:
        assert not isinstance(draw, str)
        draw(axes)
        axes.plot(epochs[best], values[best], "o", mfc="white", mec=ORANGE, mew=1.4, ms=6, clip_on=False)
        axes.legend(handles=[axes.lines[-1]], labels=[f"best: {values[best]:.4g} in epoch {epochs[best]:.0f}"])

    return panel


@plot_of(RunLog, "learning-rate")
def _learning_rate(log: RunLog) -> Panel | str:
    return _curves(log, "Learning rate", "learning rate", {"learning rate": "lr"}, logarithmic=True)


def _curves(
    log: RunLog, title: str, label: str, columns: Mapping[str, str], *, logarithmic: bool = False
) -> Panel | str:
    curves = {name: log.curve(column) for name, column in columns.items()}
    curves = {name: curve for name, curve in curves.items() if len(curve[0])}
    if not curves:
        return f"the run has no {label}"
    epochs, seconds = log.curve("cpu_seconds")
    high = max(float(y.max()) for _, y in curves.values())
    low = min(float(y.min()) for _, y in curves.values())
    logarithmic = logarithmic and low > 0 and high > 3 * low
    small = [name for name, (_, y) in curves.items() if logarithmic and y.max() < SMALLEST * high]
    shown = {name: curve for name, curve in curves.items() if name not in small}

    def panel(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        for place, (name, (x, y)) in enumerate(shown.items()):
            colour, dashes = LINES[place % len(LINES)]
            few = len(x) < FEW
            axes.plot(
                x, y, color=colour, linestyle=dashes, label=name, marker="o" if few else None, ms=3, clip_on=not few
            )
        if logarithmic:
            axes.set_yscale("log")
            axes.set_ylim(bottom=max(low, SMALLEST * high) * 0.8)
        elif low == high:  # no digits of a constant
            axes.set_ylim(*sorted((0.0, 2 * high)) if high else (-1.0, 1.0))
        axes.set_xlim(0, float(log.epochs[-1]))
        axes.xaxis.set_major_locator(MaxNLocator(MOST_TICKS, integer=True))
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        if len(curves) > 1:
            axes.legend(ncols=1 + len(shown) // 4, title=f"too small to show: {', '.join(small)}" if small else None)
        if len(seconds):
            minutes = np.cumsum(np.maximum(seconds, 1e-6)) / 60
            # Beyond the last epoch it goes on: what has no place of its own would stand at the end of the axis.
            known, passed = ([0.0, *values, 2 * values[-1]] for values in (epochs.tolist(), minutes.tolist()))
            top = axes.secondary_xaxis(
                "top", functions=(partial(np.interp, xp=known, fp=passed), partial(np.interp, xp=passed, fp=known))
            )
            top.xaxis.set_major_locator(MaxNLocator(MOST_TICKS))
            top.set_xlabel("CPU minutes", color=GREY)
            top.tick_params(colors=GREY)

    return panel
