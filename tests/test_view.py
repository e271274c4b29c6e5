"""The page of crystals without a browser: what it holds is right and complete, nothing in it is markup of others."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dpcdvae
from dpcdvae.cli import main
from dpcdvae.drawing.cell_contents import cell_bonds, viewing_rotation
from dpcdvae.drawing.page import view as viewing
from dpcdvae.drawing.page.document import LIBRARY, LIBRARY_SHA256, asset
from dpcdvae.drawing.page.geometry import films, geometry, partners
from dpcdvae.drawing.page.view import view
from dpcdvae.drawing.polyhedra import polyhedra_of
from dpcdvae.errors import InputError
from dpcdvae.structures.crystal import Crystal
from pages import PEROVSKITE, SALT, Page, report_of

NASTY = '</script><script>alert(1)</script><img src=x onerror="alert(2)">\'"&amp;{{data}}'
BROKEN = replace(SALT, id="broken", frac_coords=np.full((2, 3), np.nan))


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path / "home"))


def page_of(tmp_path: Path, crystals: Any, **more: Any) -> Page:
    view(crystals, tmp_path / "page.html", workers=0, **more)
    return Page(tmp_path / "page.html")


def test_the_table_holds_what_is_known_of_each_crystal(tmp_path: Path) -> None:
    close = replace(PEROVSKITE, id="close", lattice=np.eye(3) * 0.5, properties={"latent_distance": 1.25})
    page = page_of(tmp_path, [PEROVSKITE, SALT, close, BROKEN])
    assert page.column("id") == ["sto", "salt", "close", "broken"]
    assert page.column("formula") == ["SrTiO3", "NaCl", "SrTiO3", "NaCl"]
    assert page.column("space_group")[:2] == ["Pm-3m", "Fm-3m"]
    assert page.column("group")[:2] == [221, 225]
    assert page.column("density")[0] == pytest.approx(PEROVSKITE.density, rel=1e-4)
    assert page.column("density")[3] is None
    assert page.column("valid") == [True, True, False, False]
    assert page.column("problem") == [None, None, "atoms are 0.25 Å apart", "coordinates are not finite"]
    assert page.column("latent_distance") == [None, None, 1.25, None]
    assert page.unpacked("crystals-0")[3] is None  # in the table, but not to be drawn


def test_nothing_from_outside_is_markup(tmp_path: Path) -> None:
    """Ids, properties, titles, reports and reasons, whatever they hold: the page has the same elements as without."""
    (tmp_path / "junk").mkdir()
    harmless = page_of(tmp_path, [SALT], title="t", report=report_of(1, NASTY))
    named = replace(SALT, id=NASTY, properties={NASTY: 1.0})
    report = json.loads(json.dumps(report_of(1, NASTY)).replace("validity", NASTY.replace('"', r"\"")))
    report["metrics"][0]["gate"] = report["headline"][0]["gate"] = report["metrics"][0]["unit"] = NASTY
    page = page_of(
        tmp_path, dpcdvae.CrystalList([named], [dpcdvae.io.Failure("f", NASTY, NASTY)]), title=NASTY, report=report
    )
    assert page.column("id") == [NASTY]
    assert NASTY in page.words
    plain = [(tag, sorted(attributes)) for tag, attributes in harmless.tags]
    added = [tag for tag in page.tags if (tag[0], sorted(tag[1])) not in plain]
    assert not [tag for tag, _ in added if tag in ("script", "img", "iframe", "style")]
    assert [tag for tag, _ in page.tags].count("script") == [tag for tag, _ in harmless.tags].count("script")


def test_the_policy_allows_the_scripts_of_the_page_and_nothing_else(tmp_path: Path) -> None:
    page = page_of(tmp_path, [PEROVSKITE])
    policy = page.policy()

    def hashes(tag: str) -> set[str]:
        texts = [text for name, attributes, text in page.texts if name == tag and "type" not in attributes]
        assert texts
        return {f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts}

    assert policy["default-src"] == ["'none'"]
    assert set(policy["script-src"]) == hashes("script")
    assert set(policy["style-src"]) == hashes("style")
    assert not any("unsafe" in source for sources in policy.values() for source in sources)
    for tag, attributes in page.tags:
        assert not {name for name in attributes if name.startswith("on") or name in ("src", "style", "srcset")}, tag
        assert tag not in ("link", "iframe", "object", "embed", "base")


def test_the_same_crystals_give_the_same_page(tmp_path: Path) -> None:
    pages = [page_of(tmp_path, [PEROVSKITE, SALT], title="t").source for _ in range(2)]
    assert pages[0] == pages[1]


def test_3dmol_is_the_file_of_its_package_and_has_its_licence_beside_it() -> None:
    text = asset(LIBRARY)
    assert hashlib.sha256(text.encode()).hexdigest() == LIBRARY_SHA256
    assert "BSD-3-Clause" in asset("3dmol/LICENSE")
    assert "</script" not in text.lower()
    assert "<!--" not in text


@pytest.mark.parametrize("path", sorted(Path(viewing.__file__).parent.glob("assets/*.*")), ids=lambda path: path.name)
def test_scripts_and_styles_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_bonds_and_polyhedra_do_not_depend_on_the_description() -> None:
    """SrTiO3: one octahedron about titanium, whatever cell translations and rotation the file has."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    other = Crystal(
        PEROVSKITE.atomic_numbers, PEROVSKITE.frac_coords + rng.integers(-3, 3, (5, 3)), PEROVSKITE.lattice @ turn
    )
    for crystal in (PEROVSKITE, other):
        bonds = cell_bonds(crystal)
        assert len(bonds.first) == 2 * 6
        (octahedron,) = polyhedra_of(crystal, bonds)
        assert crystal.atomic_numbers[octahedron.centre] == 22
        assert (len(octahedron.corners), len(octahedron.triangles), len(octahedron.edges)) == (6, 8, 12)
        assert len(geometry(crystal)["bonds"]) == 5 * 6


def test_bonds_are_those_of_ase() -> None:
    from ase.neighborlist import neighbor_list

    from dpcdvae.drawing.cell_contents import BOND_FACTOR, SHELL_FACTOR, drawn_radii

    rng = np.random.default_rng(1)
    for n in (1, 2, 7, 20):
        crystal = Crystal(
            rng.integers(3, 60, n), rng.random((n, 3)), np.eye(3) * (20 * n) ** (1 / 3) + rng.normal(0, 0.4, (3, 3))
        )
        reach = BOND_FACTOR * drawn_radii()[crystal.atomic_numbers]
        i, j, d, shift = neighbor_list("ijdS", crystal.to_ase(), 2 * reach.max())
        shell = np.full(n, np.inf)
        np.minimum.at(shell, i, d)
        near = (d <= SHELL_FACTOR * np.minimum(shell[i], shell[j])) & (d <= reach[i] + reach[j]) & (d > 0.1)
        bonds = cell_bonds(crystal)
        found = np.column_stack([bonds.first, bonds.second, bonds.images])
        expected = np.column_stack([i, j, shift])[near]
        assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, expected.tolist()))
        there = crystal.frac_coords[bonds.second] + bonds.images - crystal.frac_coords[bonds.first]
        np.testing.assert_allclose(there @ crystal.lattice, bonds.vectors, atol=1e-9)


def test_a_crystal_is_looked_at_and_not_its_mirror_image() -> None:
    for seed in range(20):
        lattice = np.random.default_rng(seed).normal(size=(3, 3))
        rotation = viewing_rotation(lattice)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1)


def test_a_face_of_four_corners_has_four_edges() -> None:
    """CsCl: eight neighbours in a cube, whose faces are cut into triangles but drawn without diagonals."""
    crystal = Crystal([55, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], np.eye(3) * 4.12)
    (cube,) = polyhedra_of(crystal, cell_bonds(crystal))
    assert (len(cube.corners), len(cube.triangles), len(cube.edges)) == (8, 12, 12)


def test_crystals_too_flat_or_too_crowded_have_no_bonds() -> None:
    crowded = Crystal(np.full(2000, 26), np.random.default_rng(0).random((2000, 3)), np.eye(3) * 5)
    for crystal in (replace(SALT, lattice=np.diag([0.3, 4.0, 4.0])), crowded):
        assert geometry(crystal)["bonds"] == geometry(crystal)["polyhedra"] == []
    assert geometry(BROKEN) is None


def test_films_are_crystals_whose_ids_count() -> None:
    assert films(["a-b@1", "x", "a-b@0", "a-b@10", "c@5", "a-b@2"]) == [[2, 0, 5, 3]]
    assert films(["a", "b", "@", "a@b"]) == []


def test_all_crystals_are_one_film_where_that_is_asked_for(tmp_path: Path) -> None:
    assert page_of(tmp_path, [PEROVSKITE, SALT], film=True).unpacked("data")["films"] == [[0, 1]]
    assert page_of(tmp_path, [SALT], film=True).unpacked("data")["films"] == []


def test_crystals_stand_beside_those_of_their_id_or_of_their_place(tmp_path: Path) -> None:
    other = replace(SALT, id="other")
    assert partners([PEROVSKITE, SALT, other], [SALT, PEROVSKITE]) == [1, 0, None]
    assert partners([SALT, other], [PEROVSKITE.with_id("p"), SALT.with_id("q")]) == [0, 1]
    with pytest.raises(InputError, match="cannot stand beside"):
        partners([SALT, other], [PEROVSKITE.with_id("p")])
    larger = replace(SALT, lattice=SALT.lattice * 1.1)
    page = page_of(tmp_path, [SALT], beside=[larger])
    assert page.unpacked("data")["changes"] == ["volume +33.1%"]
    assert page.unpacked("beside-0") == [geometry(larger)]


def test_many_crystals_are_unpacked_in_parts(tmp_path: Path) -> None:
    page = page_of(tmp_path, [SALT.with_id(str(k)) for k in range(250)])
    assert [len(page.unpacked(f"crystals-{k}")) for k in range(3)] == [100, 100, 50]


def test_what_is_too_much_for_a_page_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewing, "MOST_CRYSTALS", 2)
    with pytest.raises(InputError, match=r"3 crystals with 6 atoms are too many .* give a file of those to look at"):
        page_of(tmp_path, [SALT] * 3)
    with pytest.raises(InputError, match="too many"):
        page_of(tmp_path, [SALT], beside=[SALT] * 3)
    assert not (tmp_path / "page.html").exists()


def test_the_numbers_of_a_report_stand_on_the_page_with_their_intervals(tmp_path: Path) -> None:
    report = dpcdvae.evaluate([PEROVSKITE, SALT], [PEROVSKITE, SALT], baselines=(), workers=0)
    page = page_of(tmp_path, [PEROVSKITE, SALT], report=report)
    for name, number in report.numbers:
        assert name.replace("_", " ") in page.words
        assert all(text in page.words for text in number.shown(dpcdvae.evaluation.METRICS[name].unit))
    for line in report.to_json()["headline"]:
        assert line["verdict"] in page.words
    assert page.column("same_structure") == [1, 1]  # of the report's table
    assert any(tag == "svg" for tag, _ in page.tags)


@pytest.mark.parametrize("damage", ["metrics", "reference", "crystals", "headline"])
def test_a_damaged_report_is_one_line(tmp_path: Path, damage: str) -> None:
    for value in (None, 3, [1], {"a": "b"}, [{"name": 1, "value": "x", "n": 2, "interval": [1]}]):
        with pytest.raises(InputError, match="evaluate --json"):
            page_of(tmp_path, [SALT], report=report_of(1, NASTY) | {damage: value})


def test_the_command_line_makes_a_page_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dpcdvae.write([PEROVSKITE, SALT], "c.extxyz")
    dpcdvae.write([SALT, PEROVSKITE], "relaxed.extxyz")
    assert main("evaluate c.extxyz --reference c.extxyz --workers 0 --json n.json --table t.csv".split()) == 0
    options = "--beside relaxed.extxyz --report n.json --crystal-table t.csv --workers 0"
    assert main(f"view c.extxyz {options} --out p.html".split()) == 0
    page = Page(tmp_path / "p.html")
    assert page.column("covered") == [True, True]
    assert page.unpacked("data")["beside"] == [1, 0]
    assert page.unpacked("data")["names"] == ["c.extxyz", "relaxed.extxyz"]
    assert "validity" in page.words
    assert main("view n.json --workers 0 --out of_report.html".split()) == 0  # the report knows its crystals
    assert Page(tmp_path / "of_report.html").column("id") == ["sto", "salt"]
    assert json.loads(Path("p.html.manifest.json").read_text())["beside_sha256"]


def test_a_run_shows_its_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    head = "epoch,lr,train/loss,val/loss,val/criterion\n"
    Path("run/metrics.csv").write_text(head + "1,0.001,100,90,80\n2,0.001,nan,9,8\n3,0.0005,4,5,6\n")
    assert main("view run --out run.html".split()) == 0
    page = Page(tmp_path / "run.html")
    lines = [str(attributes["points"]).split() for tag, attributes in page.tags if tag == "polyline"]
    assert [len(points) for points in lines] == [2, 3, 3, 3]
    assert page.unpacked("data") == {"size": 0}
    Path("run/metrics.csv").write_text(head)
    assert main("view run --out again.html".split()) == 2


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("view empty --out p.html", "no crystals"),
        ("view gone.cif --out p.html", "no such file"),
        ("view molecule.xyz --out p.html", "no .*cell|no three-dimensional cell"),
        ("view c.extxyz --out p.png", "written as a file .html"),
        ("view c.extxyz --out c.extxyz --overwrite", "is an input"),
        ("view c.extxyz --report c.extxyz --out p.html", "no report"),
        ("view c.extxyz --crystal-table c.extxyz --out p.html", "no table of crystals"),
        ("view c.extxyz --crystal-table other.csv --out p.html", "none of the crystals' ids"),
        ("view c.extxyz --crystal-table twice.csv --out p.html", "different rows of the id 'sto'"),
        ("view c.extxyz --crystal-table columns.csv --out p.html", "two columns are called 'novel'"),
        ("view c.extxyz --beside c2.extxyz --out p.html", "cannot stand beside"),
        ("view c.extxyz --beside odd.csv --out p.html", "odd.csv: no crystals to stand beside these: "),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("molecule.xyz").write_text("2\n\nH 0 0 0\nH 0 0 0.74\n")
    Path("other.csv").write_text("id,novel\nx,true\n")
    Path("odd.csv").write_text("cif\nnone\n")
    Path("twice.csv").write_text("id,novel\nsto,true\nsto,false\n")
    Path("columns.csv").write_text("id,novel,novel\nsto,true,true\n")
    dpcdvae.write([PEROVSKITE, SALT], "c.extxyz")
    dpcdvae.write([SALT.with_id("another")], "c2.extxyz")
    assert main(command.split()) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(message, error), error
    assert not Path("p.html").exists()
    assert not Path("p.html.manifest.json").exists()


def test_a_report_or_table_of_other_crystals_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the hash in its manifest; by the ids of a report object; by their number where no more is known."""
    monkeypatch.chdir(tmp_path)
    dpcdvae.write([PEROVSKITE, SALT], "c.extxyz")
    dpcdvae.write([SALT.with_id("sto"), PEROVSKITE.with_id("salt")], "same_ids.extxyz")
    assert main("evaluate c.extxyz --reference c.extxyz --workers 0 --json n.json --table t.csv".split()) == 0
    capsys.readouterr()
    for option in ("--report n.json", "--crystal-table t.csv"):
        assert main(f"view same_ids.extxyz {option} --workers 0 --out p.html".split()) == 2
        (error,) = capsys.readouterr().err.strip().splitlines()
        assert "is not about same_ids.extxyz" in error
    assert main("view n.json --crystal-table t.csv --workers 0 --out right.html".split()) == 0
    for name in ("n.json", "t.csv"):
        Path(f"{name}.manifest.json").unlink()
    assert main("view same_ids.extxyz --report n.json --workers 0 --out unknown.html".split()) == 0
    with pytest.raises(InputError, match="the report is about 2 crystals, these are 1"):
        page_of(tmp_path, [SALT], report="n.json")
    report = dpcdvae.evaluate([PEROVSKITE, SALT], [SALT], baselines=(), workers=0)
    assert page_of(tmp_path, [SALT], report=report).column("id") == ["salt"]  # a part of them
    with pytest.raises(InputError, match="the report is about other crystals: none of them is 'other'"):
        page_of(tmp_path, [SALT, SALT.with_id("other")], report=report)
