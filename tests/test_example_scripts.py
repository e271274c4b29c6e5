"""The scripts in examples/scripts run from top to bottom; what they state about their results is asserted in them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "examples" / "scripts").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_runs(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path / "home"))
    assert "import dpcdvae" in script.read_text(encoding="utf-8")
    runpy.run_path(str(script))
