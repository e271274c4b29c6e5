"""Any value of any option of any command, read from the commands themselves: what cannot be meant is refused.

Code 2, one line that names the option, no traceback, no words of the library that parses, nothing written.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from dpcdvae.cli import build_app
from dpcdvae.cli.exit_codes import run

APP = build_app()
COMMAND: Any = typer.main.get_command(APP)  # made once, as that is what takes time

NO_NUMBER = ("", "x", "nan", "-inf", "1e999", "0x10", "1_0", "\u0661")
ANY_NUMBER = ("-1", "9" * 30, "-" + "9" * 400, "1e-320")  # some are allowed: the command then ends at what is missing
ANY_TEXT = ("\x1b[31m\nx", "x" * 5000, "a\0b", "/dev/null/x", "é" * 200, "-")


def commands(app: typer.Typer = APP, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for entry in app.registered_commands:
        yield (*path, entry.name or entry.callback.__name__), entry.callback  # type: ignore[union-attr]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from commands(group.typer_instance, (*path, str(group.name)))


def described(parameter: inspect.Parameter) -> Any:
    """What typer is told of a parameter: in its annotation, or as its default."""
    extra = getattr(parameter.annotation, "__metadata__", ())
    return extra[0] if extra else parameter.default


def words(parameter: inspect.Parameter, value: str) -> list[str]:
    """The parameter on the command line, as often as it takes a value."""
    if isinstance(described(parameter), typer.models.ArgumentInfo):
        return [value]
    return [name_of(parameter), *[value] * (2 if "tuple" in str(parameter.annotation) else 1)]


def name_of(parameter: inspect.Parameter) -> str:
    given = [name for name in described(parameter).param_decls or () if name.startswith("-")]
    return str(given[0]) if given else f"--{parameter.name.replace('_', '-')}"


def line(parameters: list[inspect.Parameter], tried: inspect.Parameter, value: str) -> list[str]:
    """All that must be given, and a model where one would be taken, is missing; ``tried`` has the value."""
    found, options = [], []
    for parameter in parameters:
        required = parameter.default is inspect.Parameter.empty or getattr(parameter.default, "default", None) is ...
        is_argument = isinstance(described(parameter), typer.models.ArgumentInfo)
        if parameter is tried or required or parameter.name == "model":
            more = words(parameter, value if parameter is tried else f"missing-{parameter.name}")
            (found if is_argument else options).append(more)
    return [word for part in (*options, ["--"], *found) for word in part]


def kinds(parameter: inspect.Parameter) -> str:
    hint = str(getattr(parameter.annotation, "__origin__", parameter.annotation))
    return next((kind for kind in ("bool", "int", "float") if kind in hint), "text")


each_command = pytest.mark.parametrize(
    ("path", "function"), [pytest.param(*pair, id=" ".join(pair[0])) for pair in commands()]
)


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a home that is not there yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path / "home"))
    return tmp_path


@each_command
def test_a_value_that_cannot_be_meant_is_one_line(
    path: tuple[str, ...], function: Any, empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = list(inspect.signature(function).parameters.values())
    for parameter in parameters:
        kind = kinds(parameter)
        if kind == "bool":
            continue
        refused = NO_NUMBER if kind != "text" else ("",)
        for value in (*refused, *(ANY_NUMBER if kind != "text" else ANY_TEXT)):
            arguments = [*path, *line(parameters, parameter, value)]
            assert run(COMMAND, arguments) == 2, arguments
            said = capsys.readouterr().err.splitlines()
            assert len(said) == 1, arguments
            assert said[0].startswith("dpcdvae"), arguments
            assert said[0].isprintable(), arguments
            assert len(said[0]) < 900, arguments
            assert not any(word in said[0] for word in ("Input should", "validation", "unable to parse", "pydantic"))
            if value in refused and value:
                assert name_of(parameter) in said[0], arguments
            if value == "":
                assert "a value is needed" in said[0], arguments
    assert not list(empty_folder.iterdir())


NAMES_OF_PYTHON = re.compile(r"\bErrno\b|[a-z]Error\b|Exception")


@each_command
def test_a_folder_as_any_value_is_one_line(
    path: tuple[str, ...], function: Any, empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("folder").mkdir()
    parameters = list(inspect.signature(function).parameters.values())
    for parameter in (some for some in parameters if kinds(some) == "text"):
        arguments = [*path, *line(parameters, parameter, "folder")]
        assert run(COMMAND, arguments) == 2, arguments
        *begun, said = capsys.readouterr().err.splitlines()
        assert begun in ([], ["reading folder"])
        assert not NAMES_OF_PYTHON.search(said), said
    assert [entry.name for entry in empty_folder.rglob("*")] == ["folder"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("view c.extxyz --out p.html --beside folder", "folder: no crystals in it"),
        ("view c.extxyz --out p.html --report folder", "folder: no report"),
        ("view c.extxyz --out p.html --crystal-table folder", "is a directory: folder"),
        ("evaluate c.extxyz --reference folder", "folder: no crystals in it"),
        ("evaluate c.extxyz --reference c.extxyz --relaxed folder", "folder: no crystals in it"),
        ("evaluate c.extxyz --reference c.extxyz --training folder", "folder: no crystals in it"),
        ("evaluate c.extxyz --reference c.extxyz --energy-model folder", "folder is no model"),
        ("evaluate c.extxyz --reference c.extxyz --scheduler slurm:folder", "cannot read cluster file folder"),
        ("relax --out r.extxyz --read-jobs folder", "folder is no folder of jobs"),
        ("generate perov-5-compact -n 1 --out g.extxyz --like folder", "folder is a folder; give a file of one"),
        ("benchmark folder --out b", "cannot read suite folder"),
        ("models score perov-5-compact folder", "cannot read folder"),
        ("data get perov_5 --from c.extxyz", "c.extxyz is no folder; give that of train"),
        ("film perov-5-compact --out f.extxyz --frames 3", "no such option --frames (see"),
        ("evaluate c.extxyz --reference c.extxyz --cutoffs nan,1", "--cutoffs: two numbers with a space between them"),
        ("evaluate c.extxyz --reference c.extxyz --cutoffs 1 inf", "--cutoffs: a finite number is needed, not inf"),
    ],
)
def test_what_is_wrong_with_a_value_is_said_with_its_name(
    arguments: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path / "home"))
    Path("folder").mkdir()
    Path("c.extxyz").write_text('1\nLattice="3 0 0 0 3 0 0 0 3"\nC 0 0 0\n')
    assert run(COMMAND, arguments.split()) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert said in error
    assert not NAMES_OF_PYTHON.search(error)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["c.extxyz", "folder"]
