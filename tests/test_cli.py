"""How commands end: one line and code 2 for bad input, a traceback for a bug, quiet on Ctrl-C and closed pipes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer

from dpcdvae.cli import COMMANDS, main
from dpcdvae.cli.exit_codes import run
from dpcdvae.cli.groups import Call, Group, command, option
from dpcdvae.cli.options import Out, Steps
from dpcdvae.cli.outputs import check_paths
from dpcdvae.errors import InputError
from dpcdvae.progress import Progress, duration, progress

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def act(what: str, steps: Annotated[int, typer.Option()] = 1) -> None:
    """A command that ends in every way there is."""
    if what == "input":
        raise InputError("row 17 of x.csv:\n no cif column")
    if what == "bug":
        raise ValueError("a bug")
    if what == "stop":
        raise KeyboardInterrupt
    if what == "pipe":
        raise BrokenPipeError
    if what == "exit":
        raise typer.Exit(3)
    print(steps)


@app.command()
def other() -> None:
    """So that the app is a group."""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["act", "input"], 2, "dpcdvae: error: row 17 of x.csv: no cif column\n"),
        (["act", "stop"], 130, "dpcdvae: stopped\n"),
        (["act", "exit"], 3, ""),
        (["act", "fine", "--steps", "4"], 0, ""),
        (
            ["act", "fine", "--stesp", "4"],
            2,
            "dpcdvae act: error: no such option --stesp: did you mean --steps? (see dpcdvae act --help)\n",
        ),
        (["act", "fine", "--stats"], 2, "no such option --stats: did you mean --steps?"),
        (["act", "fine", "--starts"], 2, "dpcdvae act: error: no such option --starts (see dpcdvae act --help)\n"),
        (["act", "fine", "--zzz"], 2, "dpcdvae act: error: no such option --zzz (see dpcdvae act --help)\n"),
        (["act"], 2, "dpcdvae act: error: missing argument 'what' (see dpcdvae act --help)\n"),
        (["act", "fine", "--steps", "x"], 2, "--steps"),
        (["act", "--steps"], 2, "option '--steps' requires an argument"),
        ([], 2, "missing command"),
        (["atc"], 2, "no such command 'atc'. Did you mean 'act'?"),
    ],
)
def test_how_a_command_ends(arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, arguments) == code
    error = capsys.readouterr().err
    assert message.lower() in error.lower()
    assert error.count("\n") <= 1


def test_a_bug_stays_a_traceback() -> None:
    with pytest.raises(ValueError, match="a bug"):
        run(app, ["act", "bug"])


def test_closed_pipe_is_quiet() -> None:
    done = subprocess.run(
        f'{sys.executable} -c "import sys\nfrom dpcdvae.cli.exit_codes import run\nimport typer\napp = typer.Typer()\n'
        "@app.command()\ndef act() -> None:\n    print('x' * 1000000)\n    print('y' * 1000000)\n"
        'sys.exit(run(app, []))" | head -c 10 > /dev/null; echo ${PIPESTATUS[0]}',
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "141"
    assert done.stderr == ""


def command_paths() -> list[list[str]]:
    groups = {"data": ["list", "get", "add", "info"], "config": ["show"], "models": ["", "get"]}
    return [[name, *inner.split()] for name in COMMANDS for inner in groups.get(name, [""])]


@pytest.mark.parametrize("path", command_paths(), ids=" ".join)
def test_every_help_page_has_an_example(path: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*path, "--help"]) == 0
    page = capsys.readouterr().out
    assert re.search(r"Examples?:?\s*\n", page)
    example = re.search(rf"^\s*(?:\$ )?dpcdvae {' '.join(path)}\b.*$", page.split("Example", 1)[1], re.MULTILINE)
    assert example, page


@pytest.mark.parametrize("path", command_paths(), ids=" ".join)
def test_help_speaks_of_options_that_are_there(path: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Of its own, or of another command that is named before the option."""

    def page_of(words: list[str]) -> str:
        assert main([*words, "--help"]) == 0
        return capsys.readouterr().out

    def options(page: str) -> set[str]:
        return set(re.findall(r"^ {2}(?:-\w, )?(--[a-z][a-z-]*)", page[page.index("Options:") :], re.MULTILINE))

    page = page_of(path)
    said = " ".join(line for line in page.splitlines() if not re.match(r"\s*(\$ )?dpcdvae ", line))
    for before, name in re.findall(r"(\S+)\s+\(?(--[a-z][a-z-]*)", said):
        command = before.strip("(")
        assert name in options(page_of([command]) if command in COMMANDS else page), f"{before} {name}"


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    page = capsys.readouterr().out
    assert all(re.search(rf"^  {name} ", page, re.MULTILINE) for name in COMMANDS)


@dataclass(frozen=True, kw_only=True)
class Heat(Group):
    """Options of two commands."""

    degrees: float = option(..., "In °C.")
    fast: bool = option(False, "In a hurry.", "--fast")


def bake(
    call: Call, heat: Heat, out: Out, cake_: str = option("plain", "A cake.", "--cake"), steps: Steps = None
) -> None:
    CALLS.append((call, heat))


CALLS: list[tuple[Call, Heat]] = []


def test_a_group_of_options_is_declared_once_and_the_call_holds_every_parameter() -> None:
    kitchen = typer.Typer(rich_markup_mode=None)
    kitchen.command("bake")(command(bake))
    kitchen.command("other")(other)
    assert run(kitchen, ["bake", "--degrees", "180", "--fast", "--out", "x", "--cake", "round"]) == 0
    assert run(kitchen, ["bake", "--degrees", "200", "--out", "x", "--steps", "3"]) == 0
    (first, heat), (second, _) = CALLS
    assert (first.command, heat) == ("bake", Heat(degrees=180.0, fast=True))
    # All but the outputs; without the underscore that keeps a name from being a word of Python.
    assert first.arguments == {"degrees": 180.0, "fast": True, "cake": "round", "steps": None}
    assert second.resolved(steps=4, solver="eq7").arguments == {
        "degrees": 200.0,
        "fast": False,
        "cake": "plain",
        "steps": 4,
        "solver": "eq7",
    }
    assert run(kitchen, ["bake", "--out", "x"]) == 2


@pytest.mark.parametrize("path", [[], ["data"], *command_paths()], ids=" ".join)
def test_h_is_help_everywhere(path: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*path, "-h"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: {' '.join(['dpcdvae', *path])}")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("dpcdvae gen", "generate"),
        ("dpcdvae generate --so", "--solver"),
        ("dpcdvae generate perov-5-comp", "perov-5-compact"),
        ("dpcdvae train carb", "carbon_24"),
        ("dpcdvae train --preset energy-g", "energy-gine"),
        ("dpcdvae evaluate x.cif --reference mp_", "mp_20"),
    ],
)
def test_the_shell_completes_commands_options_and_names(words: str, expected: str) -> None:
    environment = {
        **os.environ,
        "_DPCDVAE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    done = subprocess.run(
        [sys.executable, "-m", "dpcdvae"], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout.split(), done.stderr) == ([expected], "")


SLIPS = {
    "train perov_6 --out x": "unknown data set 'perov_6': did you mean 'perov_5'",
    "train prototypes --preset compat --out x": "did you mean 'compact'",
    "train prototypes --init perov --out x": "unknown model 'perov'",
    "export perov-5-compct --out x": "did you mean 'perov-5-compact'",
    "generate perov-5-compct --out x/": "did you mean 'perov-5-compact'",
    "generate perov-5-energy --out x/": "predicts a property",
    "generate perov-5-compact --prior gausian --out x/": "unknown --prior of this model 'gausian'",
    "generate perov-5-compact --solver eq8 --out x/": "unknown --solver of this model 'eq8'",
    "generate perov-5-compact --steps 2000 --out x/": "--steps must lie in 1..1000 for this model, not 2000",
    "generate perov-5-compact --elements Sr,Xx --out x/": "unknown element 'Xx': did you mean",
    "generate perov-5-compact --formula SrTiO3 --formula NaCl --out x/": "perov-5-compact was trained without Cl",
    "generate perov-5-compact --space-group 231 --out x/": "--space-group 231: numbers are 1 to 230",
    "generate perov-5-compact --target gap=1 --property-model perov-5-energy --out x/": "predicts 'heat_ref', but",
    "generate perov-5-compact --like none.cif --out x/": "no such file: none.cif",
    "reconstruct perov-5-compact prototypes --candidates 0 --out x/": "--candidates must lie in 1..1000, not 0",
    "demo --steps 2000 --out d": "--steps must lie in 1..1000 for this model, not 2000",
    "reconstruct perov-5-compact perov_6 --out x/": "unknown data set 'perov_6'",
    "reconstruct perov-5-compct prototypes --out x/": "did you mean 'perov-5-compact'",
    "optimize perov-5-compact --solver eq8 --out x/": "unknown --solver",
    "optimize perov-5-compact --energy-model perov-5-enrgy --out x/": "did you mean 'perov-5-energy'",
    "optimize perov-5-compact --energy-model perov-5-compact --out x/": "predicts no property",
    "interpolate perov-5-compct a b --out x/": "did you mean 'perov-5-compact'",
    "evaluate x.cif --reference perov_6": "unknown reference 'perov_6'",
    "evaluate x.cif --reference perov-5-compact --energy-model perov-5-enrgy": "did you mean 'perov-5-energy'",
    "evaluate x.cif --reference perov-5-compact --phases p --calculator chgnt": "did you mean 'chgnet'",
    "relax x.cif --calculator chgnt --out r.cif": "did you mean 'chgnet'",
    "ground-state x.cif --calculator chgnet,gpw": "did you mean 'gpaw'",
    "benchmark suite.toml --out b": "did you mean 'compact'",
    "demo --model perov-5-compct --out d": "did you mean 'perov-5-compact'",
}


def test_wrong_names_and_numbers_are_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "x.cif").write_text("")
    (tmp_path / "suite.toml").write_text('dataset = "prototypes"\npresets = ["compat"]\nepochs = 1\n')
    program = (
        "import json, sys\nfrom dpcdvae.cli import main\n"
        "for line in json.loads(sys.argv[1]):\n"
        "    print('#', line, file=sys.stderr)\n    assert main(line.split()) == 2\n"
        "    assert not {'torch', 'lightning'} & set(sys.modules), line\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(list(SLIPS))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "DPCDVAE_HOME": str(tmp_path / "home")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = re.findall(r"^# (.*)\n(.*)$", done.stderr, re.MULTILINE)
    assert len(told) == len(SLIPS)
    for line, error in told:
        assert SLIPS[line] in error, line
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["suite.toml", "x.cif"]


def test_unknown_command_offers_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["genrate"]) == 2
    assert "generate" in capsys.readouterr().err


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    from dpcdvae import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"dpcdvae {__version__}\n"


def test_python_m_dpcdvae() -> None:
    done = subprocess.run([sys.executable, "-m", "dpcdvae", "--versoin"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "dpcdvae: error: no such option --versoin: did you mean --version? (see dpcdvae --help)\n"


def test_progress_is_silent_when_short(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress([1, 2, 3], "counting")) == [1, 2, 3]
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_progress_in_a_log(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A line every half minute with the time left, on standard error."""
    clock = iter([0.0, *(10.0 * i for i in range(1, 8)), 70.0])
    now = [0.0]

    def monotonic() -> float:
        return now[0]

    monkeypatch.setattr("dpcdvae.progress.time.monotonic", monotonic)
    with Progress("sampling", total=10) as bar:
        for now[0] in clock:
            if now[0]:
                bar.advance()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["sampling 3/10, 1 min 10 s left", "sampling 6/10, 40 s left"]


def test_a_notebook_shows_one_line_that_is_written_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class ZMQInteractiveShell:
        """What IPython calls the shell of a notebook's kernel."""

    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr("dpcdvae.progress.time.monotonic", lambda: float(next(clock)))
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=ZMQInteractiveShell))
    assert list(progress(range(3), "walking")) == [0, 1, 2]
    written = capsys.readouterr().err
    assert (written.count("\n"), written[-1]) == (1, "\n")
    states = written.strip().split("\r")
    assert len(states) > 2
    assert "walking 3/3" in states[-1]
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))  # imported, not run
    assert list(progress(range(3), "walking")) == [0, 1, 2]
    assert "\r" not in capsys.readouterr().err


def test_durations_are_printed_in_two_units() -> None:
    assert [duration(s) for s in (0.4, 59.4, 130, 3660 * 3)] == ["0 s", "59 s", "2 min 10 s", "3 h 3 min"]


def test_outputs_stay_apart_from_inputs(tmp_path: Path) -> None:
    folder, model = tmp_path / "cifs", tmp_path / "model"
    folder.mkdir()
    model.mkdir()
    (model / "card.json").write_text("{}")
    crystals = folder / "a.cif"
    crystals.write_text("")
    check_paths([tmp_path / "new.json", None], [crystals, folder, "perov_5:test", None])
    check_paths([model / "numbers.json"], [model])  # beside a model nothing is taken for a crystal
    with pytest.raises(InputError, match="is an input"):
        check_paths([folder / ".." / "cifs" / "a.cif"], [crystals])
    with pytest.raises(InputError, match="among the files"):
        check_paths([folder / "numbers.json"], [str(folder)])
    with pytest.raises(InputError, match="would be the manifest of"):
        check_paths([tmp_path / "a.json", tmp_path / "a.json.manifest.json"])
    (tmp_path / "b.json.manifest.json").write_text("{}")
    with pytest.raises(InputError, match="is an input"):
        check_paths([tmp_path / "b.json"], [tmp_path / "b.json.manifest.json"])
