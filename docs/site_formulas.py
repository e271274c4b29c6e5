"""A formula in TeX as an SVG picture, drawn by matplotlib when the site is built.

Its shapes are in the picture, so no font, script or network is needed to see it; it takes the colour of the text.
"""

from __future__ import annotations

import html
import re
from functools import cache

from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser
from matplotlib.path import Path
from matplotlib.textpath import TextToPath

SIZE = 100.0  # units of the picture for 1 em
TAG = re.compile(r"\\tag\{(.*?)\}")
LETTERS = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C", Path.CLOSEPOLY: "Z"}
FONT = FontProperties(size=SIZE, math_fontfamily="cm")


def formula(tex: str, *, display: bool) -> str:
    """HTML of a formula in a line of text, or of one on a line of its own with its number (``\\tag``) at the right."""
    tag = TAG.search(tex)
    picture = _picture(TAG.sub("", tex).strip())
    if not display:
        return picture
    number = f'<span class="formula-number">({html.escape(tag.group(1))})</span>' if tag else ""
    return f'<div class="formula">{picture}{number}</div>'


@cache
def _picture(tex: str) -> str:
    text = f"${tex}$"
    width, height, depth, *_ = MathTextParser("path").parse(text, dpi=72, prop=FONT)
    vertices, codes = TextToPath().get_text_path(FONT, text, ismath=True)
    # Every shape begins with a MOVETO and has y upwards; SVG has it downwards.
    parts = []
    for points, code in Path(vertices, codes).iter_segments(curves=True, simplify=False):
        numbers = [] if code == Path.CLOSEPOLY else [f"{v if k % 2 == 0 else -v:.0f}" for k, v in enumerate(points)]
        parts.append(LETTERS[code] + " ".join(numbers))
    size = f"width:{width / SIZE:.3f}em;height:{height / SIZE:.3f}em;vertical-align:{-depth / SIZE:.3f}em"
    box = f"0 {depth - height:.0f} {width:.0f} {height:.0f}"
    label = html.escape(tex, quote=True)
    return (
        f'<svg class="formula" role="img" aria-label="{label}" viewBox="{box}" style="{size}">'
        f'<path fill="currentColor" d="{"".join(parts)}"/></svg>'
    )
