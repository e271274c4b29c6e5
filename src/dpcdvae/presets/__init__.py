"""Presets: named configurations, put together from small layers that state only what differs.

``SIZE/SYSTEM-DATASET`` lays ``systems/SYSTEM.toml``, ``sizes/SIZE.toml`` and ``datasets/DATASET.toml`` over the
schema's defaults, in this order; ``-DATASET`` may be left out, ``SIZE`` alone means its DP-CDVAE, and ``+CHOICE``
lays ``choices/CHOICE.toml`` on top. A layer ``extends`` another of its folder, and says in ``about`` what it is. Its
tables that are named by a system (or one it extends), a kind of model, a size, ``SIZE/SYSTEM`` or ``SIZE/KIND`` hold
for these alone. Other names are single files here; a file of the user's own extends any of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dpcdvae.errors import InputError, listed, unknown_name
from dpcdvae.files import read_toml

FOLDER = Path(__file__).parent
DEFAULT_SYSTEM = "dp-cdvae"
NO_OPTIONS = ("extends", "about")  # keys of a file that are no options


class Layer(NamedTuple):
    """What one file (or one conditional table of it) states."""

    source: str
    values: dict[str, Any]


class _Name(NamedTuple):
    system: str
    size: str
    dataset: str


def names(folder: str = ".") -> list[str]:
    """The layers of a folder, or (without it) the presets that are single files."""
    return sorted(path.stem for path in (FOLDER / folder).glob("*.toml"))


def preset_names() -> list[str]:
    """Every preset of this package, without the choices that ``+`` adds."""
    return [*names(), *_combinations()]


def about(preset: str) -> str:
    """What a preset of this package is, in one line; of ``+CHOICE``, what the choice changes.

    Raises:
        InputError: no such preset.
    """
    if preset.startswith("+"):
        files = [f"choices/{preset[1:]}"]
    elif preset in names():
        files = [preset]
    else:
        name = _parse(preset)
        files = [f"systems/{name.system}", f"sizes/{name.size}"]
        files += [f"datasets/{name.dataset}"] if name.dataset else []
    return "; ".join(str(_read(FOLDER / f"{file}.toml")["about"]) for file in files)


def load_preset(preset: str | Path) -> dict[str, Any]:
    """The merged values of all layers of a preset, not yet checked against the schema.

    Raises:
        InputError: no such preset (the nearest is offered), system or choice, circular ``extends``, no TOML.
    """
    merged: dict[str, Any] = {}
    for layer in preset_layers(preset):
        merged = merge(merged, layer.values)
    return merged


def preset_layers(preset: str | Path) -> list[Layer]:
    """The layers of a preset, the lowest first."""
    return _layers(str(preset), Path.cwd(), [])


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` on top, table by table.

    The ``options`` of a component belong to its ``name``: a change of name starts from none. Where there are several
    ``names``, those that leave the list take their options along.
    """
    merged = dict(base)
    if "name" in changes and changes["name"] != base.get("name"):
        merged.pop("options", None)
    if "names" in changes and isinstance(merged.get("options"), Mapping):
        merged["options"] = {name: value for name, value in merged["options"].items() if name in changes["names"]}
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _layers(preset: str, folder: Path, seen: list[Path]) -> list[Layer]:
    name, *choices = preset.split("+") if not preset.endswith(".toml") else [preset]
    if name.endswith(".toml"):
        path = (folder / name).resolve()
        if not path.is_file():
            raise InputError(f"no preset file {path}")
        return _file_layers(path, seen)
    for choice in choices:
        if choice not in names("choices"):
            raise unknown_name("choice of a preset", choice, names("choices"))
    if name in names():
        layers, conditions = _file_layers(FOLDER / f"{name}.toml", seen), None
    else:
        layers, conditions = _combined_layers(_parse(name))
    for choice in choices:
        values = _read(FOLDER / "choices" / f"{choice}.toml")
        chosen = [] if conditions is None else _selected(f"choices/{choice}", values, conditions)
        if not any(layer.values for layer in chosen):
            raise InputError(f"preset '{preset}': the choice '{choice}' has nothing to say of '{name}': leave it out")
        layers += chosen
    return layers


def _file_layers(path: Path, seen: list[Path]) -> list[Layer]:
    """A file that stands alone, on what it extends."""
    if path in seen:
        circle = " -> ".join(p.stem for p in [*seen, path])
        raise InputError(f"preset {path}: 'extends' goes in a circle: {circle}")
    values = _read(path)
    base = values.get("extends")
    if base is not None and not isinstance(base, str):
        raise InputError(f"preset {path}: 'extends' names one other preset, not {base!r}")
    below = _layers(base, path.parent, [*seen, path]) if base else []
    return [*below, Layer(str(path), {key: value for key, value in values.items() if key not in NO_OPTIONS})]


def _combined_layers(name: _Name) -> tuple[list[Layer], set[str]]:
    systems = [name.system]
    while base := _read(FOLDER / "systems" / f"{systems[0]}.toml").get("extends"):
        systems.insert(0, base)
    holds = {*systems, _kind(name.system)}
    conditions = {name.size, *holds, *(f"{name.size}/{one}" for one in holds)}
    files = [*(f"systems/{system}" for system in systems), f"sizes/{name.size}"]
    if name.dataset:
        files.append(f"datasets/{name.dataset}")
    layers = []
    for file in files:
        layers += _selected(file, _read(FOLDER / f"{file}.toml"), conditions)
    return layers, conditions


def _selected(file: str, values: Mapping[str, Any], conditions: set[str]) -> list[Layer]:
    """What a file says for everyone, then its tables for those who fulfil their condition."""
    narrower = {*names("systems"), *(_kind(system) for system in names("systems"))}
    conditional = {*narrower, *names("sizes"), *(f"{size}/{one}" for size in names("sizes") for one in narrower)}
    always = {key: value for key, value in values.items() if key not in {*conditional, *NO_OPTIONS}}
    return [Layer(file, always)] + [
        Layer(f"{file} for {key}", value) for key, value in values.items() if key in conditional & conditions
    ]


def _kind(system: str) -> str:
    """The kind of model that a system is (``kind`` in its file, or in the one it extends)."""
    values = _read(FOLDER / "systems" / f"{system}.toml")
    if "kind" in values or "extends" not in values:
        return str(values.get("kind", "generative"))
    return _kind(values["extends"])


def _combinations() -> dict[str, _Name]:
    found = {size: _Name(DEFAULT_SYSTEM, size, "") for size in names("sizes")}
    for size in names("sizes"):
        for system in names("systems"):
            found[f"{size}/{system}"] = _Name(system, size, "")
            found |= {f"{size}/{system}-{data}": _Name(system, size, data) for data in names("datasets")}
    return found


def _parse(name: str) -> _Name:
    combinations = _combinations()
    if name in combinations:
        return combinations[name]
    near = difflib.get_close_matches(name, preset_names(), n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'? " if near else ""
    parts = {folder: listed(names(folder)) for folder in ("sizes", "systems", "datasets", "choices")}
    raise InputError(
        f"unknown preset '{name}': {hint}give {listed(names())}, a TOML file of your own, or "
        f"SIZE/SYSTEM[-DATASET][+CHOICE] of the sizes {parts['sizes']}, the systems {parts['systems']}, "
        f"the data sets {parts['datasets']} and the choices {parts['choices']}"
    )


def _read(path: Path) -> dict[str, Any]:
    return read_toml(path, "preset")
