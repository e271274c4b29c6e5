"""Configurations from presets, with overrides of single options."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpcdvae.arguments import checked
from dpcdvae.config.schema import AnyConfig, config_from_dict, unknown_option
from dpcdvae.errors import InputError
from dpcdvae.presets import load_preset, merge


@checked
def load_config(preset: str | Path, overrides: Sequence[str] = ()) -> AnyConfig:
    """The configuration of a preset with ``section.option=value`` overrides on top.

    Example:
        >>> config = dpcdvae.load_config("compact", ["train.max_epochs=50"])

    Args:
        preset: the name of a preset in this package (``compact``, ``paper/dp-cdvae-perov_5``) or the
            path of a TOML file of your own, which may extend either.
        overrides: values as TOML writes them; a value that is no TOML is taken as a string.

    Raises:
        InputError: unknown preset or option (the nearest name is offered), wrong type, circular
            ``extends``, a file that is not TOML.
    """
    return override_config(config_from_dict(load_preset(preset), where=f"preset '{preset}'"), overrides)


def override_config(config: AnyConfig, overrides: Sequence[str]) -> AnyConfig:
    """``config`` with ``section.option=value`` overrides on top; raises as :func:`load_config` does."""
    if not overrides:
        return config
    for override in overrides:
        changed = merge(config.to_dict(), _parse_override(type(config), override))
        config = type(config).from_sections(changed, f"--set {override}")
    return config.with_checked_components(", ".join(f"--set {override}" for override in overrides))


def _parse_override(kind: type[AnyConfig], override: str) -> dict[str, Any]:
    option, equals, text = override.partition("=")
    option = option.strip()
    parts = option.split(".")
    if not equals or not all(parts):
        raise InputError(f"--set {override}: write section.option=value, such as train.max_epochs=10")
    if option in kind.section_names():
        raise InputError(f"--set {override}: '{option}' is a section: write {option}.option=value")
    if option not in kind.option_names() and ".".join(parts[:2]) not in kind.free_form:
        raise unknown_option(kind, option, f"--set {override}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    nested: dict[str, Any] = {parts[-1]: value}
    for part in reversed(parts[:-1]):
        nested = {part: nested}
    return nested
