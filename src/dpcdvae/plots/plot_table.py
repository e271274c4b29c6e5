"""The table of plots: every panel of a figure, by name; and what stands above a panel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from dpcdvae.registry import Registry

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Panel: TypeAlias = Callable[[Axes], None]

Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Plot:
    """An entry of the table.

    Attributes:
        of: what it is a plot of: a ``RunLog``, a ``Sample`` or a ``RelaxedSet``.
        make: looks at such an object, and returns what draws into given axes; or, where the object lacks what is
            needed, words that say so.
    """

    of: type
    make: Callable[[Any], Panel | str]


PLOTS: Registry[Plot] = Registry("plot")


def plot_of(
    of: type[Subject], name: str
) -> Callable[[Callable[[Subject], Panel | str]], Callable[[Subject], Panel | str]]:
    """Decorator that files a function as the plot ``name`` of objects of a class."""

    def add(make: Callable[[Subject], Panel | str]) -> Callable[[Subject], Panel | str]:
        PLOTS.register(name)(Plot(of, make))
        return make

    return add


def head(axes: Axes, title: str, note: str = "") -> None:
    """The title, with a note in small letters below it."""
    lines = note.count("\n") + 1 if note else 0
    axes.set_title(title, pad=6 + 11 * lines)
    axes.text(0, 1.02, note, transform=axes.transAxes, va="bottom", fontsize=8, color="0.3")
