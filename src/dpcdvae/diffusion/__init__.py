"""Coordinate diffusions by name. To add one: a module with a class, and a line here."""

from __future__ import annotations

from collections.abc import Callable

from dpcdvae.config import DiffusionConfig
from dpcdvae.diffusion.ddpm import DDPM
from dpcdvae.interfaces import CoordinateDiffusion
from dpcdvae.registry import Registry

COORDINATE_DIFFUSIONS: Registry[Callable[[DiffusionConfig], CoordinateDiffusion]] = Registry(
    "diffusion",
    {
        "ddpm": DDPM,
    },
)
