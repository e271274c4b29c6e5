"""The tutorials: each runs from top to bottom in an empty folder; commands for a cluster are known to the program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from page_blocks import DOCS, blocks, commands, run

from dpcdvae.cli import main

PAGES = sorted((DOCS / "tutorials").glob("*.md"))
NOTEBOOKS = ("own-crystals.md", "score.md")
OPTION = re.compile(r"--[a-z][a-z-]*")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_tutorial_runs_from_top_to_bottom(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "chgnet" in page.read_text(encoding="utf-8"):
        pytest.importorskip("chgnet", reason="no CHGNet: pip install 'dpcdvae[relaxation]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("dpcdvae.parallel.available_cores", lambda: 0)  # work in this process
    names: dict[str, object] = {}
    ran = [run(language, text, names, str(page)) for language, text in blocks(page) if language in ("python", "bash")]
    assert len(ran) >= 2


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_has_the_cells_of_its_page(name: str) -> None:
    jupytext = pytest.importorskip("jupytext", reason="no jupytext: pip install 'dpcdvae[docs]'")
    page = DOCS / "tutorials" / name
    cells = [cell.source for cell in jupytext.read(page).cells if cell.cell_type == "code"]
    shown = [text.rstrip() for language, text in blocks(page) if language in ("python", "bash")]
    assert [cell.removeprefix("%%bash\n") for cell in cells] == shown


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda path: path.stem)
def test_the_options_of_every_command_on_a_page_are_there(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(text for language, text in blocks(page) if language in ("", "sh", "bash"))
    for words in commands(re.sub(r"^\$ ", "", text, flags=re.MULTILINE)):
        asked = [word for word in words if OPTION.fullmatch(word)]
        name = [word for word in words[:2] if re.fullmatch("[a-z][a-z-]*", word)]
        group = name[:2] if name[:1] in (["data"], ["config"], ["models"]) and len(name) == 2 else name[:1]
        assert main([*group, "--help"]) == 0, words
        known = OPTION.findall(capsys.readouterr().out)
        assert [option for option in asked if option not in known] == [], words
