"""Encoders by name. To add one: a module with a class, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dpcdvae.config import EncoderConfig
from dpcdvae.encoders.composed import Concatenation
from dpcdvae.encoders.dimenet import DimeNetEncoder
from dpcdvae.encoders.gine import GINEEncoder
from dpcdvae.encoders.lattice import LatticeEncoder
from dpcdvae.encoders.num_atoms import NumAtomsEncoder
from dpcdvae.errors import InputError
from dpcdvae.interfaces import Encoder
from dpcdvae.registry import Registry

# name -> (out_features, max_atoms, options table) -> encoder
ENCODERS: Registry[Callable[[int, int, Mapping[str, Any]], Encoder]] = Registry(
    "encoder",
    {
        "dimenet++": DimeNetEncoder,
        "gine": GINEEncoder,
        "lattice": LatticeEncoder,
        "num_atoms": NumAtomsEncoder,
    },
)
ITSELF = ("concatenation", "concat")  # no entry: a list of several encoders is one


def build_encoder(config: EncoderConfig, out_features: int, max_atoms: int) -> Encoder:
    """The encoder named, or the concatenation of those named: crystals with bonds -> (C, out_features).

    A part is ``out_features`` wide unless its options say otherwise. One encoder of the width asked for needs no mixer.

    Args:
        max_atoms: size of the largest crystal the model is made for.

    Raises:
        InputError: no name, a name twice or unknown, the concatenation itself, options of an encoder that is not named.
    """
    names, known = ", ".join(config.names), ", ".join(ENCODERS)
    if not config.names:
        raise InputError(f"encoder.names is empty: name one encoder or more of {known}")
    for name in config.names:
        if config.names.count(name) > 1:
            raise InputError(f"encoder.names = [{names}]: '{name}' stands there twice; name each encoder once")
        if name in ITSELF:
            raise InputError(
                f"encoder.names = [{names}]: the list itself is the concatenation; name its parts: {known}"
            )
    factories = {name: ENCODERS[name] for name in config.names}
    for name in config.options:
        if name not in factories:
            raise InputError(
                f"encoder.options.{name}: there is no '{name}' in encoder.names = [{names}]; options are written "
                f"under the name of their encoder, such as encoder.options.{config.names[0]}"
            )
    parts = {
        name: factory(out_features, max_atoms, config.options.get(name, {})) for name, factory in factories.items()
    }
    first, *others = parts.values()
    if not others and first.out_features == out_features:
        return first
    return Concatenation(parts, out_features, config.mixer_layers, config.mixer_width)
