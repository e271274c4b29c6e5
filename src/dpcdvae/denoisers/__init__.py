"""Denoisers by name. To add one: a module with a class, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dpcdvae.denoisers.gemnet import GemNetDenoiser
from dpcdvae.interfaces import Denoiser
from dpcdvae.registry import Registry

# name -> (latent_dim, options table) -> denoiser
DENOISERS: Registry[Callable[[int, Mapping[str, Any]], Denoiser]] = Registry(
    "denoiser",
    {
        "gemnet-t": GemNetDenoiser,
    },
)
