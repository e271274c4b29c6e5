"""Noise processes on coordinates and on atom types, by name. To add one: a module with a class, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from dpcdvae.diffusion.atom_types import MixedWithComposition
from dpcdvae.diffusion.ddpm import DDPM
from dpcdvae.diffusion.score_matching import ScoreMatching
from dpcdvae.diffusion.wrapped_normal import WrappedNormal
from dpcdvae.interfaces import CoordinateDiffusion, TypeDiffusion
from dpcdvae.registry import Registry

# name -> (number of noise levels, options table) -> diffusion
COORDINATE_DIFFUSIONS: Registry[Callable[[int, Mapping[str, Any]], CoordinateDiffusion]] = Registry(
    "diffusion",
    {
        "ddpm": DDPM,
        "score-matching": ScoreMatching,
        "wrapped-normal": WrappedNormal,
    },
)

# name -> (number of noise levels, smallest and largest σ') -> diffusion
TYPE_DIFFUSIONS: Registry[Callable[[int, float, float], TypeDiffusion]] = Registry(
    "type noise",
    {
        "sum": partial(MixedWithComposition, form="sum"),
        "softmax": partial(MixedWithComposition, form="softmax"),
    },
)
