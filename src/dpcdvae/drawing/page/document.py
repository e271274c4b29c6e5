"""One HTML file of everything: styles, scripts, 3Dmol.js and the data, under a policy that lets nothing else in."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.metadata import version
from importlib.resources import files
from typing import Any

SCRIPTS = ("scene.js", "viewer.js", "table.js", "main.js")

LIBRARY = "3dmol/3Dmol-min.js"
LIBRARY_VERSION = "2.5.5"
"""Of 3Dmol.js (Rego and Koes, Bioinformatics 31, 1322 (2015)), ``build/3Dmol-min.js`` of its npm package ``3dmol``."""
LIBRARY_SHA256 = "f7cc78921ae72e7623e89cdd111434f58c2efddd2ffda1cd212644b406fb8016"

BLOCK = 100
"""Crystals that the browser unpacks together."""


def document(
    title: str, summary: str, data: Mapping[str, Any], sets: Mapping[str, Sequence[Any]], sections: Sequence[str]
) -> str:
    """The page.

    Args:
        title, summary: texts.
        data: JSON values for ``main.js``.
        sets: lists of JSON values by name, which are unpacked :data:`BLOCK` at a time.
        sections: HTML, in which every text is escaped already.
    """
    style, library = asset("page.css"), asset(LIBRARY)
    scripts = '(() => {\n"use strict";\n' + "\n".join(map(asset, SCRIPTS)) + "\n})();\n"
    blocks = [_block("data", data)]
    for name, values in sets.items():
        starts = range(0, len(values), BLOCK)
        blocks += [_block(f"{name}-{k}", values[start : start + BLOCK]) for k, start in enumerate(starts)]
    parts = {
        "policy": policy([library, scripts], [style]),
        "title": escape(title),
        "summary": escape(summary),
        "style": style,
        "sections": "\n".join(sections),
        "version": escape(version("dpcdvae")),
        "version3dmol": LIBRARY_VERSION,
        "licence": escape(asset("3dmol/LICENSE")),
        "data": "\n".join(blocks),
        "library": library,
        "scripts": scripts,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], asset("page.html"))


def policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """The content-security policy: these scripts and styles by their hashes, pictures that they draw, nothing else."""
    allowed = {
        "default-src": ["'none'"],
        "script-src": [_hash(text) for text in scripts],
        "style-src": [_hash(text) for text in styles],
        "img-src": ["data:"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }
    return "; ".join(f"{name} {' '.join(sources)}" for name, sources in allowed.items())


def asset(name: str) -> str:
    """A file of ``assets/``, its lines ended as a browser takes them for the hash."""
    text = files("dpcdvae.drawing.page").joinpath("assets", name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _block(id: str, value: Any) -> str:
    """JSON as gzip in base64: a tenth of the size, and no text of the data can end the element that holds it."""
    packed = gzip.compress(json.dumps(value, allow_nan=False, separators=(",", ":")).encode(), 6, mtime=0)
    return f'<script type="application/octet-stream" id="{id}">{base64.b64encode(packed).decode()}</script>'
