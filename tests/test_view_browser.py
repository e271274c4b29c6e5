"""The page of crystals in a real browser, without a network: it draws, filters, sorts, plays, without an error."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpcdvae.drawing.page.view import view
from pages import PATIENCE, PEROVSKITE, SALT, browser, dark_mode, errors, open_page, requested, wait_for

NASTY = '</script><script>window.broken=1</script><img src=x onerror="window.broken=2">'
FILM = [replace(PEROVSKITE, id=f"path@{k}", lattice=PEROVSKITE.lattice * (1 + k / 50)) for k in range(3)]
NO_ATOMS = replace(SALT, id="broken", frac_coords=np.full((2, 3), np.nan))
CRYSTALS = [PEROVSKITE, *FILM, SALT, replace(SALT, id=NASTY, properties={"energy": -3.5}), NO_ATOMS]
ROWS = "[...document.querySelectorAll('#table tbody tr')].map((row) => row.cells[0].textContent)"

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPCDVAE_HOME", str(path.parent / "home"))
        view(CRYSTALS, path, beside=[replace(SALT, lattice=SALT.lattice * 1.05), PEROVSKITE], workers=0)
    return path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser for all tests: to start it takes longer than any of them."""
    with browser() as window:
        yield window


@pytest.fixture
def window(chromium: Any, page: Path) -> Iterator[Any]:
    """The page with its first crystal drawn; afterwards the browser must have had no error and asked for nothing."""
    open_page(chromium, page, "sto")
    yield chromium
    assert errors(chromium) == []
    assert requested(chromium) == []
    assert chromium.execute_script("return window.broken") is None


def picture(window: Any, id: str = "stage") -> Any:
    """(h, w, 3) what a viewer shows, from 0 to 1."""
    from matplotlib.image import imread

    url = window.execute_script(f"return document.querySelector('#{id} canvas').toDataURL()")
    return imread(io.BytesIO(base64.b64decode(url.partition(",")[2])))[..., :3]


def changed(window: Any, last: Any, seconds: float = PATIENCE) -> Any:
    """The next picture that is not ``last``."""
    end = time.monotonic() + seconds
    while np.abs((now := picture(window)) - last).max() < 0.1:
        assert time.monotonic() < end, "the picture stays the same"
        time.sleep(0.1)
    return now


def colours(image: Any) -> int:
    return len(np.unique((image.reshape(-1, 3) * 15).round(), axis=0))


def enter(window: Any, id: str, value: str, event: str) -> None:
    code = "const box = document.getElementById(arguments[0]);"
    code += "box.value = arguments[1]; box.dispatchEvent(new Event(arguments[2]))"
    window.execute_script(code, id, value, event)


def type_filter(window: Any, text: str) -> list[str]:
    enter(window, "filter", text, "input")
    return window.execute_script(f"return {ROWS}")


def test_both_viewers_draw_and_turn_together(window: Any) -> None:
    before = picture(window), picture(window, "stage2")
    assert min(map(colours, before)) > 20
    window.find_element("id", "stage").send_keys("\ue014")  # arrow right
    after = picture(window), picture(window, "stage2")
    assert all(np.abs(one - other).max() > 0.2 for one, other in zip(before, after, strict=True))
    window.find_element("id", "stage").send_keys("r")
    assert np.abs(picture(window) - before[0]).max() < 0.1


def test_what_is_drawn_can_be_chosen(window: Any) -> None:
    last = picture(window)
    for name in ("polyhedra", "bonds"):
        window.execute_script(f"document.getElementById('{name}').click()")
        last = changed(window, last)
    enter(window, "cells-a", "2", "change")
    changed(window, last)


def test_the_table_filters_and_sorts(window: Any) -> None:
    assert type_filter(window, "Na") == ["salt", NASTY, "broken"]
    assert type_filter(window, "-Na path") == [crystal.id for crystal in FILM]
    assert type_filter(window, "valid=no") == ["broken"]
    assert type_filter(window, "density>4.6 density<5") == ["path@1"]
    assert type_filter(window, "<script>") == [NASTY]
    type_filter(window, "nonsense>3")
    assert "No such column" in window.find_element("id", "found").text
    assert type_filter(window, "") == [crystal.id for crystal in CRYSTALS]
    for ends in ([NASTY, "sto"], ["sto", NASTY]):  # what has no density comes last either way
        window.execute_script("document.querySelectorAll('#table th button')[4].click()")
        assert "density" in window.execute_script("return document.querySelector('[aria-sort]').textContent")
        rows = window.execute_script(f"return {ROWS}")
        assert rows[-1] == "broken"
        assert rows.index(ends[0]) < rows.index(ends[1])


def test_keys_choose_crystals_and_what_cannot_be_drawn_says_why(window: Any) -> None:
    window.find_element("css selector", "#table tbody tr[aria-selected=true]").send_keys("\ue015")  # arrow down
    wait_for(window, "document.getElementById('stage').dataset.drawn === 'path@0'")
    type_filter(window, "id=broken")
    window.execute_script("document.querySelector('#table tbody tr').click()")
    wait_for(window, "document.getElementById('stage').dataset.drawn === 'broken'")
    assert "coordinates are not finite" in window.find_element("id", "stage").text


def test_a_film_plays(window: Any) -> None:
    assert not window.find_element("id", "film").is_displayed()
    type_filter(window, "path@1")
    window.execute_script("document.querySelector('#table tbody tr').click()")
    wait_for(window, "document.getElementById('frame-text').textContent === '2 / 3'")
    window.execute_script("document.getElementById('play').click()")
    wait_for(window, "document.getElementById('stage').dataset.drawn !== 'path@1'")
    assert window.execute_script("return document.getElementById('stage').dataset.drawn").startswith("path@")
    window.execute_script("document.getElementById('play').click()")


def test_the_page_fits_a_phone_and_the_dark(window: Any) -> None:
    assert window.execute_script("return document.documentElement.scrollWidth") <= 400
    light = picture(window)
    assert light[20:30, 20:30].mean() > 0.9
    dark_mode(window, True)
    dark = changed(window, light)
    assert dark[20:30, 20:30].mean() < 0.3
    assert colours(dark) > 20
    dark_mode(window, False)
    changed(window, dark)


def test_a_page_without_crystals_shows_the_rest(chromium: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.csv").write_text("epoch,lr,train/loss,val/loss,val/criterion\n1,0.1,3,3,3\n2,0.1,2,2,2\n")
    view(run, tmp_path / "page.html")
    chromium.get((tmp_path / "page.html").as_uri())
    wait_for(chromium, "document.querySelectorAll('#run polyline').length === 4")
    assert not chromium.find_element("id", "viewing").is_displayed()
    assert errors(chromium) == []


def test_many_crystals_are_pages_of_a_table(chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path / "home"))
    view([SALT.with_id(str(k)) for k in range(130)], tmp_path / "page.html", workers=0)
    open_page(chromium, tmp_path / "page.html", "0")
    assert len(chromium.execute_script(f"return {ROWS}")) == 50
    assert chromium.find_element("id", "page").text == "page 1 of 3"
    chromium.execute_script("document.getElementById('next').click()")
    assert chromium.execute_script(f"return {ROWS}")[0] == "50"
    assert type_filter(chromium, "id=129") == ["129"]  # in the second block of data
    chromium.execute_script("document.querySelector('#table tbody tr').click()")
    wait_for(chromium, "document.getElementById('stage').dataset.drawn === '129'")
    assert errors(chromium) == []
