"""What is said above a panel, beside its title."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def head(axes: Axes, title: str, note: str = "") -> None:
    """The title, with a note in small letters below it."""
    lines = note.count("\n") + 1 if note else 0
    axes.set_title(title, pad=6 + 11 * lines)
    axes.text(0, 1.02, note, transform=axes.transAxes, va="bottom", fontsize=8, color="0.3")
