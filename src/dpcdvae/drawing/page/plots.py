"""Small plots as SVG inside the page: intervals of rates, and curves. They follow the colours of the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

LEFT, RIGHT, ROW = 190, 500, 26
"""Pixels: where the axis begins and ends, and the height of a row."""

WIDTH, HEIGHT = 560, 230


class Bar(NamedTuple):
    """A rate with its interval, and the same rates of other crystals, all from 0 to 1."""

    title: str
    value: float
    low: float
    high: float
    others: Sequence[float]


def interval_plot(bars: Sequence[Bar], caption: str) -> str:
    """Rates as points with their intervals, hollow points for ``others``."""

    def x(rate: float) -> str:
        return f"{LEFT + (RIGHT - LEFT) * min(max(rate, 0.0), 1.0):.1f}"

    bottom = ROW * len(bars) + 8
    parts = [f'<svg class="plot" role="img" aria-label="{escape(caption)}" viewBox="0 0 {WIDTH} {bottom + 24}">']
    for percent in range(0, 101, 25):
        at = x(percent / 100)
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="4" y2="{bottom}"/>')
        parts.append(f'<text class="quiet" x="{at}" y="{bottom + 16}" text-anchor="middle">{percent}%</text>')
    for row, bar in enumerate(bars):
        y = ROW * row + ROW / 2 + 4
        parts.append(f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(bar.title)}</text>')
        parts += [f'<circle class="other" cx="{x(rate)}" cy="{y}" r="4"/>' for rate in bar.others]
        parts.append(f'<line class="value" stroke-width="2.5" x1="{x(bar.low)}" x2="{x(bar.high)}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="value" cx="{x(bar.value)}" cy="{y}" r="4.5"/>')
        parts.append(f'<text class="quiet" x="{RIGHT + 10}" y="{y + 4}">{100 * bar.value:.1f}%</text>')
    return "".join([*parts, "</svg>"])


def curve_plot(title: str, curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """One or two curves of (x, y) points, the second dashed; y on a logarithmic axis where it spans a factor of ten."""
    points = [point for curve in curves.values() for point in curve]
    low, high = min(y for _, y in points), max(y for _, y in points)
    logarithmic = low > 0 and high > 10 * low
    scale = math.log10 if logarithmic else float
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    bottom, span = scale(low), (scale(high) - scale(low)) or 1.0

    def place(point: tuple[float, float]) -> str:
        across = (point[0] - first) / ((last - first) or 1.0)
        return f"{60 + (WIDTH - 80) * across:.1f},{HEIGHT - 30 - (HEIGHT - 60) * (scale(point[1]) - bottom) / span:.1f}"

    parts = [f'<svg class="plot" role="img" aria-label="{escape(title)}" viewBox="0 0 {WIDTH} {HEIGHT}">']
    parts.append(f'<text x="60" y="16">{escape(title)}</text>')
    for share in (0.0, 0.5, 1.0):
        level = bottom + share * span
        y = HEIGHT - 30 - (HEIGHT - 60) * share
        parts.append(f'<line class="grid" x1="60" x2="{WIDTH - 20}" y1="{y}" y2="{y}"/>')
        label = f"{10**level if logarithmic else level:.3g}"
        parts.append(f'<text class="quiet" x="52" y="{y + 4}" text-anchor="end">{label}</text>')
    parts.append(f'<text class="quiet" x="60" y="{HEIGHT - 10}">epoch {first:g}</text>')
    parts.append(f'<text class="quiet" x="{WIDTH - 20}" y="{HEIGHT - 10}" text-anchor="end">{last:g}</text>')
    for kind, (name, curve) in zip(("curve", "curve second"), curves.items(), strict=False):
        parts.append(
            f'<polyline class="{kind}" points="{" ".join(map(place, curve))}"><title>{escape(name)}</title></polyline>'
        )
    return "".join([*parts, "</svg>"])
