"""The pages of the documentation: tutorials run in an empty folder, options are there, every metric is defined."""

from __future__ import annotations

import contextlib
import io
import re
from functools import cache
from pathlib import Path

import pytest

from dpcdvae.cli import main
from dpcdvae.evaluation import METRICS
from page_blocks import DOCS, blocks, commands, run

PAGES = [DOCS.parent / "README.md", DOCS / "index.md", *sorted((DOCS / "tutorials").glob("*.md"))]
NOTEBOOKS = ("own-crystals.md", "score.md")
OPTION = re.compile(r"--[a-z][a-z-]*")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_tutorial_runs_from_top_to_bottom(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if any(language == "bash" and "chgnet" in text for language, text in blocks(page)):
        pytest.importorskip("chgnet", reason="no CHGNet: pip install 'dpcdvae[relaxation]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("dpcdvae.parallel.available_cores", lambda: 0)  # work in this process
    names: dict[str, object] = {}
    ran = [run(language, text, names, str(page)) for language, text in blocks(page) if language in ("python", "bash")]
    assert ran


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_has_the_cells_of_its_page(name: str) -> None:
    jupytext = pytest.importorskip("jupytext", reason="no jupytext: pip install 'dpcdvae[docs]'")
    page = DOCS / "tutorials" / name
    cells = [cell.source for cell in jupytext.read(page).cells if cell.cell_type == "code"]
    shown = [text.rstrip() for language, text in blocks(page) if language in ("python", "bash")]
    assert [cell.removeprefix("%%bash\n") for cell in cells] == shown


@cache
def options(*command: str) -> set[str]:
    """The options that the help of a command shows."""
    with contextlib.redirect_stdout(io.StringIO()) as page:
        assert main([*command, "--help"]) == 0
    return set(OPTION.findall(page.getvalue()))


@pytest.mark.parametrize("page", [PAGES[0], *sorted(DOCS.rglob("*.md"))], ids=lambda path: path.stem)
def test_the_options_of_every_command_on_a_page_are_there(page: Path) -> None:
    text = "\n".join(text for language, text in blocks(page) if language in ("", "sh", "bash"))
    for words in commands(re.sub(r"^\$ ", "", text, flags=re.MULTILINE)):
        command = words[: 2 if words[0] in ("data", "models") and len(words) > 1 else 1]
        asked = {word for word in words if OPTION.fullmatch(word)}
        assert asked - options(*command) == set(), words


@pytest.mark.parametrize("page", [*DOCS.parent.glob("*.md"), *sorted(DOCS.rglob("*.md"))], ids=lambda path: path.stem)
def test_links_lead_to_files_of_the_repository(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s#:]+)(?=[)#])", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_metric_is_defined_on_a_page() -> None:
    text = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("evaluation-definitions.md", "stability.md"))
    assert [name for name in METRICS if f"`{name}`" not in text] == []
