"""Encoders by name. To add one: a module with a class, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dpcdvae.config import EncoderConfig
from dpcdvae.encoders.composed import Concatenation
from dpcdvae.encoders.composition import CompositionEncoder
from dpcdvae.encoders.dimenet import DimeNetEncoder
from dpcdvae.encoders.gine import GINEEncoder
from dpcdvae.encoders.lattice import LatticeEncoder
from dpcdvae.encoders.num_atoms import NumAtomsEncoder
from dpcdvae.interfaces import Encoder
from dpcdvae.registry import Registry

# name -> (out_features, max_atoms, options table) -> encoder
ENCODERS: Registry[Callable[[int, int, Mapping[str, Any]], Encoder]] = Registry(
    "encoder",
    {
        "composition": CompositionEncoder,
        "dimenet++": DimeNetEncoder,
        "gine": GINEEncoder,
        "lattice": LatticeEncoder,
        "num_atoms": NumAtomsEncoder,
    },
)


def build_encoder(config: EncoderConfig, out_features: int, max_atoms: int) -> Encoder:
    """The encoder of a configuration, from bonded crystals to (C, out_features); several names: their concatenation.

    A part is ``out_features`` wide unless its options say otherwise. One encoder of the right width needs no mixer.

    Args:
        max_atoms: size of the largest crystal the model is made for.

    Raises:
        InputError: what :meth:`dpcdvae.config.EncoderConfig.parts` finds wrong.
    """
    config.parts()
    parts = {name: ENCODERS[name](out_features, max_atoms, config.options.get(name, {})) for name in config.names}
    first, *others = parts.values()
    if not others and first.out_features == out_features:
        return first
    return Concatenation(parts, out_features, config.mixer_layers, config.mixer_width)
