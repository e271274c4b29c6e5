"""Encoders by name. To add one: a module with a class, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dpcdvae.encoders.dimenet import DimeNetEncoder
from dpcdvae.interfaces import Encoder
from dpcdvae.registry import Registry

# name -> (out_features, max_atoms, options table) -> encoder
ENCODERS: Registry[Callable[[int, int, Mapping[str, Any]], Encoder]] = Registry(
    "encoder",
    {
        "dimenet++": DimeNetEncoder,
    },
)
