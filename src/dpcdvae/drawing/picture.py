"""One picture of the first crystals: unit cells with shaded atoms, drawn by matplotlib."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from dpcdvae.arguments import checked
from dpcdvae.drawing.cell_contents import (
    ATOM_SCALE,
    atoms_of_cell,
    bonds_of,
    drawn_radii,
    element_colour,
    viewing_rotation,
)
from dpcdvae.errors import InputError
from dpcdvae.files import atomic_output
from dpcdvae.io import CrystalsLike, as_crystals
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.elements import SYMBOLS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[np.float64]

COLUMNS, ROWS = 4, 4
BOND_WIDTH = 0.2  # Å
FOG = 0.3  # how far the farthest things fade into the background
LIGHT = np.array([-0.45, 0.6, 0.66])  # towards the light: from above, left, and the viewer
SPRITE = 96  # pixels across a drawn ball
EDGE_PIECES = 12  # a cell's edge is cut up so that atoms can hide parts of it
PANEL = 3.0  # inches
DPI = 130
MARGIN = 1.12
HEAD, FOOT = -0.36, -0.2  # of half a panel, beyond the drawing


@checked
def draw(crystals: CrystalsLike, path: str | Path) -> None:
    """Writes a PNG of the first sixteen crystals.

    Example:
        >>> dpcdvae.draw("crystals.extxyz", "crystals.png")

    Args:
        crystals: anything that :func:`~dpcdvae.io.as_crystals` takes.

    Raises:
        InputError: none of the crystals can be drawn (NaN, no volume), or ``path`` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [crystal for crystal in as_crystals(crystals) if crystal.problem() is None][: COLUMNS * ROWS]
    if not shown:
        raise InputError(f"cannot draw {path}: no crystal has finite coordinates and a volume")
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    height = PANEL * (1 - (HEAD + FOOT) / 2)
    figure = Figure(figsize=(PANEL * columns, height * rows), facecolor="white")
    canvas = FigureCanvasAgg(figure)  # needs no display, and leaves the user's backend alone
    figure.subplots_adjust(0.0, 0.0, 1.0, 1.0, wspace=0.0, hspace=0.0)
    for place, crystal in enumerate(shown):
        _draw_panel(figure.add_subplot(rows, columns, place + 1), crystal)
    with atomic_output(path) as temporary:
        canvas.print_figure(temporary, format="png", dpi=DPI, pil_kwargs={"compress_level": 3})


def _draw_panel(axes: Axes, crystal: Crystal) -> None:
    axes.set_axis_off()
    rotation = viewing_rotation(crystal.lattice)
    lattice = crystal.lattice @ rotation
    atoms = atoms_of_cell(crystal)
    numbers, positions = crystal.atomic_numbers[atoms.index], atoms.positions @ rotation
    radii = ATOM_SCALE * drawn_radii()[numbers]
    corners = np.array(list(itertools.product((0.0, 1.0), repeat=3))) @ lattice
    everything = np.concatenate([corners, positions + radii[:, None], positions - radii[:, None]])
    low, high = everything.min(axis=0), everything.max(axis=0)

    def fade(depth: float) -> float:
        return float(FOG * (high[2] - depth) / max(high[2] - low[2], 1e-9))

    strokes = []
    for corner, other in _edges(lattice):
        for start, end in itertools.pairwise(np.linspace(corner, other, EDGE_PIECES + 1)):
            grey = 0.25 + 0.6 * fade((start[2] + end[2]) / 2)
            strokes.append(_Stroke(start, end, (grey,) * 3, 1.0, "round"))
    width = BOND_WIDTH * _points_per_angstrom(low, high)
    for k, toward, inside in bonds_of(crystal, atoms):
        # From a little inside the ball, which covers the end; to the middle, where the neighbour's half
        # begins, or a stump where the neighbour lies outside the cell.
        bond = toward @ rotation
        if not inside and bond[2] > 0.75 * _norm(bond):
            continue  # a stump towards the viewer would be a speck on its own ball
        start = positions[k] + bond * min(0.8 * radii[k] / _norm(bond), 0.5)
        end = positions[k] + bond * (0.5 if inside else 0.4)
        colour = _faded(0.9 * element_colour(numbers[k]), fade((start[2] + end[2]) / 2) + (0.0 if inside else 0.25))
        strokes.append(_Stroke(start, end, colour, width, "butt"))
    _add_strokes(axes, strokes, np.sort(positions[:, 2] + radii))
    for number, (x, y, depth), radius in zip(numbers, positions, radii, strict=True):
        axes.imshow(
            _ball(_faded(element_colour(number), fade(depth))),
            extent=(x - radius, x + radius, y - radius, y + radius),
            zorder=depth + radius,
            interpolation="antialiased",
        )
    _frame(axes, low, high)
    _label(axes, crystal)


class _Stroke(NamedTuple):
    """A piece of a line: its ends (x, y, depth), colour, width in points, and how it ends."""

    start: Array
    end: Array
    colour: tuple[float, ...]
    width: float
    cap: Literal["butt", "round"]


def _add_strokes(axes: Axes, strokes: Sequence[_Stroke], tops: Array) -> None:
    """Adds lines between the balls, whose ``tops`` are sorted: all that no ball comes between as one artist."""
    from matplotlib.collections import LineCollection

    layers = defaultdict(list)
    for stroke in sorted(strokes, key=lambda s: s.start[2] + s.end[2]):
        depth = (stroke.start[2] + stroke.end[2]) / 2
        layers[int(np.searchsorted(tops, depth)), stroke.cap].append(stroke)
    for (layer, cap), members in layers.items():
        lines = LineCollection(
            [(stroke.start[:2], stroke.end[:2]) for stroke in members],
            colors=[stroke.colour for stroke in members],
            linewidths=[stroke.width for stroke in members],
            capstyle=cap,
            zorder=float(tops[layer] if layer < len(tops) else tops[-1] + 1) - 1e-6,
        )
        axes.add_collection(lines, autolim=False)


def _half_width(low: Array, high: Array) -> float:
    """Å from the middle of the panel to where the drawing ends."""
    return float((high - low)[:2].max()) / 2


def _points_per_angstrom(low: Array, high: Array) -> float:
    return PANEL * 72 / (2 * MARGIN * _half_width(low, high))


def _frame(axes: Axes, low: Array, high: Array) -> None:
    """A window around the drawing, the same to all sides; above it the formula, below the legend."""
    x, y = ((low + high) / 2)[:2]
    half = MARGIN * _half_width(low, high)
    axes.set_xlim(x - half, x + half)
    axes.set_ylim(y - half * (1 - FOOT), y + half * (1 - HEAD))
    axes.set_aspect("equal")


def _label(axes: Axes, crystal: Crystal) -> None:
    a, b, c = crystal.lengths
    place: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "zorder": 1e6}
    axes.text(0.5, 0.985, title_of(crystal), va="top", fontsize=13, color="0.1", **place)
    axes.text(0.5, 0.905, f"{a:.2f} × {b:.2f} × {c:.2f} Å", va="top", fontsize=7.5, color="0.45", **place)
    elements = sorted(set(crystal.atomic_numbers.tolist()))
    step = min(0.15, 0.9 / len(elements))
    for k, number in enumerate(elements):
        x = 0.5 + step * (k - (len(elements) - 1) / 2)
        colour = element_colour(number)
        axes.plot(x - 0.03, 0.045, "o", ms=7, mfc=colour, mec=colour * 0.6, mew=0.6, transform=axes.transAxes)
        axes.text(x - 0.003, 0.043, SYMBOLS[number], transform=axes.transAxes, va="center", fontsize=9, color="0.2")


def title_of(crystal: Crystal) -> str:
    """The reduced formula, digits as subscripts of matplotlib's mathtext."""
    return re.sub(r"(\d+)", r"$_{\1}$", crystal.formula)


def _edges(lattice: Array) -> list[tuple[Array, Array]]:
    """The twelve edges of the cell as pairs of points."""
    corners = [np.array(corner) for corner in itertools.product((0, 1), repeat=3)]
    return [(p @ lattice, q @ lattice) for p, q in itertools.combinations(corners, 2) if np.abs(p - q).sum() == 1]


def _norm(vector: Array) -> float:
    return max(float(np.linalg.norm(vector)), 1e-12)


def _faded(colour: Array, amount: float) -> tuple[float, ...]:
    amount = round(amount, 2)  # few enough shades that drawn balls can be kept
    return tuple(float(c) for c in colour * (1 - amount) + amount)


@cache
def _ball(colour: tuple[float, ...]) -> Any:
    """(SPRITE, SPRITE, 4) picture of a shaded ball with a dark rim and a highlight."""
    axis = (np.arange(SPRITE) + 0.5) / SPRITE * 2 - 1
    x, y = np.meshgrid(axis, -axis)
    radius = np.hypot(x, y)
    z = np.sqrt(np.clip(1 - radius**2, 0, 1))
    light = LIGHT / np.linalg.norm(LIGHT)
    diffuse = np.clip(x * light[0] + y * light[1] + z * light[2], 0, 1)
    highlight = np.clip(2 * diffuse * z - light[2], 0, 1) ** 18
    shade = (0.5 + 0.5 * diffuse) * np.clip(0.7 + 0.6 * z, 0, 1)
    picture = np.empty((SPRITE, SPRITE, 4))
    picture[..., :3] = np.clip(np.array(colour) * shade[..., None] + 0.55 * highlight[..., None], 0, 1)
    picture[..., 3] = np.clip((1 - radius) * SPRITE / 2, 0, 1)  # soft over one pixel
    return picture
