"""The public interface: docs/python.md runs as it stands, and every public name has a docstring with an example."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import dpcdvae
from page_blocks import DOCS, blocks, run

PAGE = DOCS / "python.md"
ACCESSORIES = {
    "__version__",
    "InputError",
    "Crystal",
    "GroundState",
    "Report",
    "SearchResult",
    "StabilityResult",
}  # made by the others


def test_the_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path / "home"))
    names: dict[str, object] = {}
    ran = [run(language, text, names, str(PAGE)) for language, text in blocks(PAGE) if language == "python"]
    assert len(ran) >= 5


def test_the_page_names_every_public_function() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in dpcdvae.__all__ if name != "__version__" and f"`{name}`" not in text] == []


@pytest.mark.parametrize("name", sorted(set(dpcdvae.__all__) - ACCESSORIES))
def test_every_public_function_has_types_and_an_example(name: str) -> None:
    item = getattr(dpcdvae, name)
    assert "Example:\n" in inspect.getdoc(item)
    function = item.__init__ if inspect.isclass(item) else item
    assert all(p.annotation is not p.empty for n, p in inspect.signature(function).parameters.items() if n != "self")
