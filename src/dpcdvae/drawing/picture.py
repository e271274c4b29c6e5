"""Pictures of crystals for a page or a paper: unit cells with shaded atoms, a panel for each, drawn by matplotlib."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dpcdvae.arguments import checked
from dpcdvae.drawing.canonical_cell import CanonicalCell, canonical_cell, canonical_frames
from dpcdvae.drawing.cell_contents import element_colour
from dpcdvae.drawing.figures import DPI, check_dpi, check_figure, new_figure, style, write_figure
from dpcdvae.drawing.page.geometry import films
from dpcdvae.drawing.scene import CLEAR, Colour, Look, Scene, scene_of
from dpcdvae.errors import InputError, printable, unknown_name
from dpcdvae.io import CrystalsLike, as_crystals
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.elements import SYMBOLS
from dpcdvae.structures.space_groups import symbols

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]

COLUMNS, MOST = 4, 16
WIDTH, HEIGHT = 1.8, 2.5  # inches of a panel: four of them are as wide as a page
MARGIN = 1.08
HEAD, FOOT = 0.2, 0.08  # of the height, for words
MOST_NAMED = 6  # elements that a panel has room for
LIGHT = np.array([-0.45, 0.6])  # towards the light on the page, beside 0.66 towards the viewer
SHADES = 8  # circles of a ball, each brighter and nearer to the light
STANDARD, FILE = "standard", "file"


@checked
def draw(
    crystals: CrystalsLike,
    path: str | Path | None = None,
    *,
    select: Sequence[str] | None = None,
    n: int = MOST,
    columns: int = COLUMNS,
    bonds: bool = True,
    polyhedra: bool = True,
    outside: bool = False,
    labels: bool = False,
    cell: str = STANDARD,
    along: str = "",
    rotate: str = "",
    dpi: int = DPI,
) -> Figure:
    """Draws crystals side by side. A notebook shows the figure; with a ``path`` it is written too.

    Example:
        >>> dpcdvae.draw("crystals.extxyz", "crystals.svg", n=8, along="c")

    Args:
        crystals: anything that :func:`~dpcdvae.io.as_crystals` takes.
        path: ``.svg``, ``.pdf`` or ``.png``; what is there is replaced.
        select: ids of those to draw, in this order; by default the first ``n`` that can be drawn.
        columns: panels side by side.
        bonds, polyhedra: whether they are drawn; polyhedra where all corners are.
        outside: draw also the atoms outside the cell that are bonded to one in it.
        labels: write symbols on the atoms that are not hidden.
        cell: ``standard``: cell, origin and orientation that do not depend on the file
            (:func:`~dpcdvae.drawing.canonical_cell.canonical_cell`); ``file``: those of the file.
        along: look along the axis ``a``, ``b`` or ``c`` of the drawn cell.
        rotate: turn the crystals about x (right), y (up) and z (towards the viewer), degrees: ``90x,-20y``.
        dpi: dots per inch of a PNG.

    Raises:
        InputError: an unknown id or axis, none that can be drawn, a rotation that cannot be read, or ``path`` cannot
            be written.
    """
    check_dpi(dpi)
    if path is not None:
        check_figure(path)
    if n < 1 or columns < 1:
        raise InputError(f"n {n}, columns {columns}: at least 1 of each is needed")
    if cell not in (STANDARD, FILE):
        raise unknown_name("cell", cell, (STANDARD, FILE))
    look = Look(bonds, polyhedra, outside, along, rotate)
    look.rotation(np.eye(3))  # refused before any work
    given = as_crystals(crystals)
    shown = _chosen(given, select, n)
    drawn = [CanonicalCell(crystal, 0) for crystal in shown] if cell == FILE else _standard(shown, given)
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    with style():
        figure = new_figure(WIDTH * columns, HEIGHT * rows)
        for place, panel in enumerate(drawn):
            row, column = divmod(place, columns)
            axes = figure.add_axes((column / columns, 1 - (row + 1) / rows, 1 / columns, 1 / rows))
            _draw_panel(axes, panel, scene_of(panel.crystal, look), labels=labels)
    if path is not None:
        write_figure(figure, path, dpi)
    return figure


def _chosen(crystals: Sequence[Crystal], select: Sequence[str] | None, n: int) -> list[Crystal]:
    """Those to draw. What cannot be drawn is left out, and named on standard error."""
    if select:
        by_id = {crystal.id: crystal for crystal in reversed(crystals)}
        if (unknown := next((id for id in select if id not in by_id), None)) is not None:
            raise unknown_name("crystal", unknown, [id for id in by_id if id])
        chosen = [by_id[id] for id in select]
        if (broken := next((c for c in chosen if c.problem() is not None), None)) is not None:
            raise InputError(f"cannot draw crystal '{broken.id}': {broken.problem()}")
        return chosen
    possible = [crystal for crystal in crystals if crystal.problem() is None]
    if not possible:
        raise InputError("nothing to draw: no crystal has finite coordinates and a volume")
    if left_out := len(crystals) - len(possible):
        print(f"not drawn, without finite coordinates or a volume: {left_out} of {len(crystals)}", file=sys.stderr)
    return possible[:n]


def _standard(shown: Sequence[Crystal], given: Sequence[Crystal]) -> list[CanonicalCell]:
    """The crystals in their standard cells; the frames of a film in that of its last frame."""
    possible = [crystal for crystal in given if crystal.problem() is None]
    places = {id(crystal): place for place, crystal in enumerate(possible)}
    wanted = [places[id(crystal)] for crystal in shown]
    found: dict[int, CanonicalCell] = {}
    for film in films([crystal.id for crystal in possible]):
        frames = [place for place in film if place in wanted or place == film[-1]]
        if len(frames) > 1:
            found |= zip(frames, canonical_frames([possible[place] for place in frames]), strict=True)
    return [found[place] if place in found else canonical_cell(possible[place]) for place in wanted]


def _draw_panel(axes: Axes, drawn: CanonicalCell, scene: Scene, *, labels: bool) -> None:
    axes.set_axis_off()
    room = HEIGHT * (1 - HEAD - FOOT)  # inches
    middle, size = ((scene.low + scene.high) / 2)[:2], (scene.high - scene.low)[:2]
    scale = MARGIN * max(float(size[0]) / WIDTH, float(size[1]) / room)  # Å per inch
    x, y = middle
    axes.set_xlim(x - scale * WIDTH / 2, x + scale * WIDTH / 2)
    axes.set_ylim(y - scale * (room / 2 + FOOT * HEIGHT), y + scale * (room / 2 + HEAD * HEIGHT))
    _paint(axes, scene, points_per_angstrom=72 / scale)
    if labels:
        _name_atoms(axes, scene)
    _write(axes, drawn)


def _paint(axes: Axes, scene: Scene, points_per_angstrom: float) -> None:
    """All shapes as one artist, the farthest first."""
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path as Outline

    paths, faces, edges, widths = [], [], [], []

    def add(path: Any, face: Colour, edge: Colour, width: float) -> None:
        paths.append(path)
        faces.append(face)
        edges.append(edge)
        widths.append(width)

    circle = _circle()
    for shape in scene.shapes:
        flat = shape.points[:, :2]
        if len(flat) == 1:
            for k, (shift, size, colour) in enumerate(_shades(shape.colour)):
                outline = Outline(circle.vertices * (shape.size * size) + flat[0] + shape.size * shift, circle.codes)
                add(outline, colour, _darker(shape.colour, 0.4) if k == 0 else CLEAR, 0.4 if k == 0 else 0.0)
        elif len(flat) == 3:
            add(Outline([*flat, flat[0]], closed=True), shape.colour, CLEAR, 0.0)
        elif shape.size:
            width = shape.size * points_per_angstrom
            add(Outline(flat), CLEAR, _darker(shape.colour, 0.75), width)
            add(Outline(flat), CLEAR, shape.colour, 0.6 * width)
        else:
            add(Outline(flat), CLEAR, shape.colour, 0.7)
    axes.add_collection(PathCollection(paths, facecolors=faces, edgecolors=edges, linewidths=widths), autolim=False)


def _shades(colour: Colour) -> list[tuple[Array, float, Colour]]:
    """Circles that make a ball of radius 1: shift, radius and colour, from the rim to the highlight."""
    base, light = np.array(colour[:3]), LIGHT * 0.55
    found = []
    for t in np.linspace(0, 1, SHADES):
        bright = base * (0.68 + 0.32 * min(1.0, t / 0.5))
        bright += (1 - bright) * 0.75 * max(0.0, (t - 0.5) / 0.5) ** 1.5
        red, green, blue = (float(part) for part in bright)
        found.append((light * t, 1 - 0.92 * float(t), (red, green, blue, 1.0)))
    return found


def _darker(colour: Colour, by: float) -> Colour:
    return colour[0] * by, colour[1] * by, colour[2] * by, colour[3]


def _circle() -> Any:
    """Four cubic curves: a fifth of a thousandth off, in half the points of matplotlib's own circle."""
    from matplotlib.path import Path as Outline

    k = 0.5522847498
    quarter = np.array([[1, k], [k, 1], [0, 1]])
    turns = [np.array([[c, s], [-s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    points = np.concatenate([[[1.0, 0.0]], *[quarter @ turn for turn in turns]])
    return Outline(points, [Outline.MOVETO, *[Outline.CURVE4] * 12])


def _name_atoms(axes: Axes, scene: Scene) -> None:
    """Symbols on the atoms whose middle no other covers."""
    for number, position in zip(scene.numbers.tolist(), scene.positions, strict=True):
        nearer = scene.positions[:, 2] > position[2] + 1e-6
        covers = np.linalg.norm(scene.positions[:, :2] - position[:2], axis=1) < scene.radii
        if not (nearer & covers).any():
            red, green, blue = element_colour(number)
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
            x, y, _ = position.tolist()
            colour = "white" if dark else "black"
            axes.text(x, y, SYMBOLS[number], ha="center", va="center", fontsize=8, color=colour)


def _write(axes: Axes, drawn: CanonicalCell) -> None:
    """Formula, id, space group and lengths above, the colours of the elements below."""
    crystal = drawn.crystal
    place: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "top"}
    axes.text(0.5, 0.985, title_of(crystal), fontsize=10, color="black", **place)
    id = _fitting(printable(crystal.id))
    lengths = "×".join(f"{length:.2f}" for length in crystal.lengths) + " Å"
    group = f"{group_of(drawn.number)}   " if drawn.number else ""
    axes.text(0.5, 0.918, id, fontsize=8, color="0.35", parse_math=False, **place)
    axes.text(0.5, 0.866 if id else 0.918, group + lengths, fontsize=8, color="0.35", **place)
    elements = sorted(set(crystal.atomic_numbers.tolist()))[:MOST_NAMED]
    for k, number in enumerate(elements):
        x = 0.51 + 0.165 * (k - (len(elements) - 1) / 2)
        colour = element_colour(number)
        axes.plot(x - 0.045, 0.035, "o", ms=6, mfc=colour, mec=colour * 0.5, mew=0.6, transform=axes.transAxes)
        axes.text(x - 0.01, 0.033, SYMBOLS[number], transform=axes.transAxes, va="center", fontsize=8, color="black")


def _fitting(id: str) -> str:
    """The id as far as a panel has room for it."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font, room = FontProperties(size=8), 72 * 0.94 * WIDTH  # points
    for length in range(min(len(id), 80), 0, -1):
        text = id if length == len(id) else id[: length - 1] + "…"
        if text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] <= room:
            return text
    return ""


def title_of(crystal: Crystal) -> str:
    """The reduced formula, digits as subscripts of matplotlib's mathtext."""
    return re.sub(r"(\d+)", r"$_{\1}$", crystal.formula)


def group_of(number: int) -> str:
    """The symbol of a space group in mathtext, such as ``$Pm\\bar{3}m$``."""
    return "$" + re.sub(r"-(\d)", r"\\bar{\1}", symbols()[number]) + "$"
