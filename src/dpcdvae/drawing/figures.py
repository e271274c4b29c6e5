"""Figures of matplotlib: shown in a notebook, written as SVG, PDF or PNG, in a style that prints."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcdvae.errors import InputError
from dpcdvae.files import atomic_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = {
    ".svg": {"Date": None},  # no time in the file: the same figure is the same file
    ".pdf": {"CreationDate": None, "ModDate": None},
    ".png": {},
}
"""What a figure can be written as, by suffix, with what is left out of its metadata."""

DPI, LOWEST_DPI, HIGHEST_DPI = 200, 30, 1200
SCREEN_DPI = 110

BLUE, ORANGE, GREY, LIGHT = "#0072B2", "#D55E00", "#4d4d4d", "#c8c8c8"
"""Blue and orange of Okabe and Ito (2008): told apart by colour-blind readers, and in print by how dark they are."""

STYLE: dict[Any, Any] = {
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.titlelocation": "left",
    "lines.linewidth": 1.4,
    "hatch.linewidth": 0.5,
    "svg.hashsalt": "dpcdvae",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}


MOST_PIXELS = 10**8
"""Of a PNG: 400 MB while it is drawn."""


def check_figure(path: str | Path) -> Path:
    """The path, where a figure can be written as its suffix says; raises InputError elsewhere."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: a picture is written as .svg, .pdf or .png, not as '{path.suffix}'")
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file in it")
    return path


def check_dpi(dpi: int) -> None:
    """Raises InputError for a resolution that makes no picture, or a needlessly high one."""
    if not LOWEST_DPI <= dpi <= HIGHEST_DPI:
        raise InputError(f"dpi {dpi}: {LOWEST_DPI} to {HIGHEST_DPI} are possible")


def write_figure(figure: Figure, path: str | Path, dpi: int = DPI) -> None:
    """Writes a figure as its suffix says, as a PNG with ``dpi`` dots per inch.

    Raises:
        InputError: as :func:`check_figure` and :func:`check_dpi`, or where it cannot be written.
    """
    check_dpi(dpi)
    suffix = check_figure(path).suffix.lower()
    width, height = (float(inches) * dpi for inches in figure.get_size_inches())
    if suffix == ".png" and width * height > MOST_PIXELS:
        raise InputError(f"{path}: {width:.0f} x {height:.0f} pixels are too many: give a lower dpi, or write .pdf")
    with atomic_output(path) as temporary, style():
        figure.savefig(temporary, format=suffix[1:], dpi=dpi, metadata=FORMATS[suffix])


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """An empty figure of so many inches, which needs no display and leaves the user's pyplot alone."""
    figure: Figure = _figure_class()(figsize=(width, height), facecolor="white", **options)
    return figure


@contextmanager
def style() -> Iterator[None]:
    """The style, for what is drawn within; nothing of the user's own settings shines through."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # of an id: it is drawn as a box
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


@cache
def _figure_class() -> Any:
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        """A figure that a notebook shows, also where nobody has imported pyplot."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            with style():
                self.savefig(buffer, format="png", dpi=SCREEN_DPI)
            return buffer.getvalue()

    return ShownFigure
