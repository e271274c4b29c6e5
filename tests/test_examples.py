"""The scripts in examples/: the shell reads them, and the command line knows their options."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from dpcdvae.cli import main
from dpcdvae.config import Config

SCRIPTS = sorted((Path(__file__).parents[1] / "examples").glob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_shell_and_its_options_are_there(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    text = script.read_text().replace("\\\n", " ")
    calls = re.findall(r"^(?:srun )?dpcdvae (\S+)(.*)$", text, re.MULTILINE)
    assert calls or "vasp" in script.name  # that one runs jobs that are there already
    for command, arguments in calls:
        assert main([command, "--help"]) == 0
        page = capsys.readouterr().out
        for name in re.findall(r"(--[a-z][a-z-]*)", arguments):
            assert re.search(rf"{name}\b", page), (command, name)
        for option in re.findall(r"--set (\S+?)=", arguments):
            assert option in Config.option_names()
