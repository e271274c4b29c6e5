"""How commands end: one line and code 2 for bad input, a traceback for a bug, quiet on Ctrl-C and closed pipes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer

from dpcdvae.cli import COMMANDS, main
from dpcdvae.cli.common import check_apart, run
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
        (["act", "fine", "--zzz"], 2, "dpcdvae act: error: no such option --zzz (see dpcdvae act --help)\n"),
        (["act"], 2, "dpcdvae act: error: missing argument 'what' (see dpcdvae act --help)\n"),
        (["act", "fine", "--steps", "x"], 2, "invalid value for '--steps'"),
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
        f'{sys.executable} -c "import sys\nfrom dpcdvae.cli.common import run\nimport typer\napp = typer.Typer()\n'
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
    groups = {"data": ["list", "get", "add", "info"]}
    return [[name, *inner.split()] for name in COMMANDS for inner in groups.get(name, [""])]


@pytest.mark.parametrize("path", command_paths(), ids=" ".join)
def test_every_help_page_has_an_example(path: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*path, "--help"]) == 0
    page = capsys.readouterr().out
    assert re.search(r"Examples?:?\s*\n", page)
    example = re.search(rf"^\s*(?:\$ )?dpcdvae {' '.join(path)}\b.*$", page.split("Example", 1)[1], re.MULTILINE)
    assert example, page


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    page = capsys.readouterr().out
    assert all(re.search(rf"^  {name} ", page, re.MULTILINE) for name in COMMANDS)


def test_unknown_command_offers_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["genrate"]) == 2
    assert "generate" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
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


def test_durations() -> None:
    assert [duration(s) for s in (0.4, 59.4, 130, 3660 * 3)] == ["0 s", "59 s", "2 min 10 s", "3 h 3 min"]


def test_outputs_stay_apart_from_inputs(tmp_path: Path) -> None:
    folder, model = tmp_path / "cifs", tmp_path / "model"
    folder.mkdir()
    model.mkdir()
    (model / "card.json").write_text("{}")
    crystals = folder / "a.cif"
    crystals.write_text("")
    check_apart([tmp_path / "new.json", None], [crystals, folder, "perov_5:test", None])
    check_apart([model / "numbers.json"], [model])  # beside a model nothing is taken for a crystal
    with pytest.raises(InputError, match="is an input"):
        check_apart([folder / ".." / "cifs" / "a.cif"], [crystals])
    with pytest.raises(InputError, match="among the crystals"):
        check_apart([folder / "numbers.json"], [str(folder)])
