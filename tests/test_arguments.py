"""Public functions called with values of the wrong type: one line, whatever the function and the argument."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dpcdvae
from crystal_files import message
from dpcdvae.arguments import _KINDS, checked, checked_value
from dpcdvae.errors import InputError
from dpcdvae.relaxation.minimise import Settings
from dpcdvae.structures.crystal import Crystal

FUNCTIONS = [
    name
    for name in dpcdvae.__all__
    if inspect.isfunction(getattr(dpcdvae, name)) and name != "as_crystals"  # which looks at every item itself
]
WRONG: dict[str, list[Any]] = {
    "bool": [1, 0.0, "yes", None, []],
    "int": [True, np.True_, 1.0, "1", math.nan, [1], 10**400],
    "float": [True, "0.1", math.nan, 1j, [0.1], 10**400, np.zeros(1)],
    "str": [True, 3, b"x", ["x"]],
    "Path": [True, 3, b"x", ""],
    "None": [],
    "Sequence[str]": ["text", 3, [1], {"a": 1}],
    "tuple[float, float]": [1.0, "12", (1, 2, 3), (True, 1), ("1", "2")],
    "Mapping[str, Any]": [3, "text", [1]],
    "list[Failure]": [3, "text", ()],
    "Sequence[Failure]": [3, "text"],
    "dict[str, int]": [3, []],
    "Callable[[float], None]": [3, "text"],
}
OBJECTS = [True, 3, 1.5, "text", [], object()]  # for arguments that are objects of ours


def annotations(name: str) -> dict[str, str]:
    parameters = inspect.signature(getattr(dpcdvae, name)).parameters.values()
    return {p.name: p.annotation for p in parameters if p.kind is not p.VAR_KEYWORD}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_looks_at_its_arguments(name: str) -> None:
    function: Callable[..., Any] = getattr(dpcdvae, name)
    kinds_of = annotations(name)
    needed = {p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty} & set(kinds_of)
    for argument, annotation in kinds_of.items():
        kinds = annotation.split(" | ")
        if not all(kind in _KINDS for kind in kinds):
            assert any(word in annotation for word in ("CrystalsLike", "AnyReference", "Mapping")), (
                f"{argument}: {annotation}"
            )
            continue
        for value in [v for kind in kinds for v in WRONG.get(kind, ())] or OBJECTS:
            if any(_KINDS[kind][1](value) is not _NONE for kind in kinds) and value != "":
                continue  # right for another kind of the union
            given = {other: _right(kinds_of[other]) for other in needed} | {argument: value}
            said = message(lambda given=given: function(**given))  # type: ignore[misc]
            assert said.startswith(f"{argument}: "), (value, said)
            assert "is needed, not " in said, (value, said)
            assert len(said) < 250, (value, said)


_NONE = _KINDS["int"][1]("no number")


def _right(annotation: str) -> Any:
    """Something that passes the check of types, and would not last beyond it."""
    model = type("Model", (), {"config": type("Config", (), {"kind": "generative"})})()
    by_kind = {"int": 1, "str": "x", "Path": "x", "Trainable": model, "CDVAE": model}
    return next((by_kind[kind] for kind in annotation.split(" | ") if kind in by_kind), [])


def test_numbers_of_numpy_are_numbers_and_arrive_as_those_of_python() -> None:
    @checked
    def given(a: int, b: float, c: bool, d: float | None = None) -> tuple[Any, ...]:
        return a, b, c, d

    found = given(np.int64(3), np.float32(0.5), np.True_, d=np.int32(2))
    assert found == (3, 0.5, True, 2.0)
    assert [type(value) for value in found] == [int, float, bool, float]
    assert given(1, 2, False) == (1, 2.0, False, None)
    assert checked_value("x", "kept", "SomethingElse") == "kept"


@pytest.mark.parametrize("wrong", [True, "10", None, math.nan])
def test_settings_of_a_relaxation_likewise(wrong: Any) -> None:
    for name in ("pressure", "max_force", "max_steps"):
        assert message(lambda name=name: Settings.of(**{name: wrong})).startswith(f"{name}: a ")  # type: ignore[misc]
    assert type(Settings.of(max_steps=np.int64(5)).max_steps) is int


def test_an_empty_path_is_not_the_present_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    salt = Crystal([17, 11], [[0.5, 0.5, 0.5], [0, 0, 0]], 4 * np.eye(3), "salt")
    dpcdvae.write(salt, tmp_path / "salt.cif")
    monkeypatch.chdir(tmp_path)
    for call in (lambda: dpcdvae.read(""), lambda: dpcdvae.as_crystals(""), lambda: dpcdvae.draw(salt, "")):
        with pytest.raises(InputError, match="a path is needed"):
            call()


@pytest.mark.parametrize("symmetrise", [True, "0.1", [0.1]])
def test_a_tolerance_is_a_number(symmetrise: Any, tmp_path: Path) -> None:
    salt = Crystal([17, 11], [[0.5, 0.5, 0.5], [0, 0, 0]], 4 * np.eye(3), "salt")
    said = message(lambda: dpcdvae.write(salt, tmp_path / "a.cif", symmetrise=symmetrise))
    assert said.startswith("symmetrise: a number is needed, not ")
    assert not list(tmp_path.iterdir())
