"""The picture: what is drawn is right and does not depend on the description, and a file comes out for any crystal."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import dpcdvae
from disguises import DISGUISES
from dpcdvae.cli import main
from dpcdvae.drawing.canonical_cell import MOST_ATOMS, canonical_cell, canonical_frames
from dpcdvae.drawing.cell_contents import atoms_of_cell, cell_bonds
from dpcdvae.drawing.picture import draw, group_of, title_of
from dpcdvae.drawing.scene import Look, scene_of
from dpcdvae.errors import InputError
from dpcdvae.prototypes import build_prototypes
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.space_groups import SYMPREC
from pages import PEROVSKITE, SALT

BROKEN = Crystal([6], [[np.nan, 0, 0]], np.eye(3), id="broken")


def random_crystal(n: int, seed: int) -> Crystal:
    """Of no symmetry, with a skewed cell."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(3, 60, n)
    return Crystal(numbers, rng.random((n, 3)), np.eye(3) * (22 * n) ** (1 / 3) + rng.normal(0, 0.5, (3, 3)), f"P1-{n}")


def some_of_each() -> list[Crystal]:
    kinds = {crystal.id.partition("-")[0]: crystal for crystal in build_prototypes()}
    names = "fcc hcp diamond graphite rock_salt perovskite rutile spinel cadmium_chloride chalcopyrite a15 delafossite"
    noisy = replace(kinds["perovskite"], id="noisy")
    shifts = np.random.default_rng(0).normal(0, 0.02, noisy.frac_coords.shape)
    noisy = replace(noisy, frac_coords=noisy.frac_coords + shifts)
    quartz = Crystal.from_parameters(
        [14] * 3 + [8] * 6,
        [
            [0.47, 0, 2 / 3], [0, 0.47, 1 / 3], [0.53, 0.53, 0],
            [0.4135, 0.2669, 0.7858], [0.7331, 0.1466, 0.4525], [0.8534, 0.5865, 0.1191],
            [0.2669, 0.4135, 0.2142], [0.1466, 0.7331, 0.5475], [0.5865, 0.8534, 0.8809],
        ],
        [4.914, 4.914, 5.405],
        [90, 90, 120],
        "quartz",
    )  # fmt: skip
    return [*(kinds[name] for name in names.split()), noisy, quartz, random_crystal(1, 0), random_crystal(6, 1)]


def drawn(crystal: Crystal) -> np.ndarray:
    """(m, 4) atomic number and place on the page, Å, of everything that the picture shows as a ball."""
    scene = scene_of(canonical_cell(crystal).crystal, Look())
    return np.column_stack([scene.numbers, scene.positions])


def same(rows: np.ndarray, others: np.ndarray, tolerance: float = 1e-3) -> bool:
    distance = np.abs(rows[:, None] - others).max(-1)
    return len(rows) == len(others) and bool(
        (distance.min(0) < tolerance).all() and (distance.min(1) < tolerance).all()
    )


@pytest.mark.parametrize("crystal", some_of_each(), ids=lambda crystal: crystal.id)
def test_a_crystal_is_drawn_the_same_whatever_its_description(crystal: Crystal) -> None:
    """Cells, origins, orientations, orders of atoms: the same balls in the same places, the same space group."""
    rng = np.random.default_rng(1)
    expected, number = drawn(crystal), canonical_cell(crystal).number
    for name, disguise in DISGUISES.items():
        other = disguise(disguise(crystal, rng), rng)
        assert same(drawn(other), expected), name
        assert canonical_cell(other).number == number, name


def test_the_canonical_cell_is_that_of_the_crystal() -> None:
    """Atoms stay where they are: distances, density and handedness are those of the crystal as given."""
    for crystal in some_of_each():
        found = canonical_cell(crystal).crystal
        assert np.linalg.det(found.lattice) > 0
        assert found.density == pytest.approx(crystal.density)
        assert (found.id, found.formula) == (crystal.id, crystal.formula)
        one = [sorted(np.round(np.linalg.norm(cell_bonds(c).vectors, axis=1), 5)) for c in (found, crystal)]
        times = found.num_atoms / crystal.num_atoms
        assert np.unique(one[0]).tolist() == pytest.approx(np.unique(one[1]).tolist(), abs=1e-4)
        assert len(one[0]) == round(times * len(one[1]))


def test_a_mirror_image_of_a_chiral_crystal_looks_different() -> None:
    (quartz,) = (crystal for crystal in some_of_each() if crystal.id == "quartz")
    mirrored = replace(quartz, lattice=quartz.lattice * [1, 1, -1])
    assert not same(drawn(quartz), drawn(mirrored), 0.1)
    assert sorted([canonical_cell(quartz).number, canonical_cell(mirrored).number]) == [152, 154]


def test_perovskites_look_alike() -> None:
    """The large cation in the corners, the small one in its octahedron in the middle, whatever the origin."""
    for a, b in ((38, 22), (55, 82), (19, 41), (57, 13)):
        for shift in (0.0, 0.5):
            crystal = replace(
                PEROVSKITE, atomic_numbers=[a, b, 8, 8, 8], frac_coords=PEROVSKITE.frac_coords + shift + [0.004, 0, 0]
            )
            found = canonical_cell(crystal).crystal
            assert found.atomic_numbers[np.abs(found.frac_coords).max(1) < 0.01].tolist() == [a]
            assert found.atomic_numbers[np.abs(found.frac_coords - 0.5).max(1) < 0.01].tolist() == [b]


def test_what_has_no_canonical_cell_is_drawn_as_it_is() -> None:
    close = Crystal([6, 6], [[0, 0, 0], [0.5 * SYMPREC / 3, 0, 0]], np.eye(3) * 3)
    many = Crystal([6] * (MOST_ATOMS + 1), np.random.default_rng(0).random((MOST_ATOMS + 1, 3)), np.eye(3) * 20)
    for crystal in (close, many):
        assert canonical_cell(crystal).crystal is crystal
        assert canonical_cell(crystal).number == 0


def test_a_cell_is_drawn_with_the_atoms_on_all_its_faces() -> None:
    """SrTiO3: eight corners, a centre, six faces, whatever lattice translation the file gives the atoms."""
    for shift in (0, -1e-9, 3):
        crystal = replace(PEROVSKITE, frac_coords=PEROVSKITE.frac_coords + shift)
        atoms = atoms_of_cell(crystal)
        numbers = crystal.atomic_numbers[atoms.index]
        assert [int((numbers == z).sum()) for z in (38, 22, 8)] == [8, 1, 6]
        assert len(np.unique(atoms.positions.round(3), axis=0)) == 15


def shapes(look: Look, crystal: Crystal = PEROVSKITE) -> dict[str, int]:
    found = scene_of(crystal, look).shapes
    kinds = [
        "ball" if len(s.points) == 1 else "face" if len(s.points) == 3 else "bond" if s.size else "line" for s in found
    ]
    return {kind: kinds.count(kind) for kind in ("ball", "face", "bond", "line")}


def test_bonds_and_polyhedra_are_there_where_they_are_asked_for() -> None:
    """The titanium of SrTiO3 has six oxygens, all drawn: one octahedron; strontium, whose oxygens are far, no bond."""
    bare = shapes(Look(bonds=False, polyhedra=False))
    assert bare == {"ball": 15, "face": 0, "bond": 0, "line": 12 * 12}
    full = shapes(Look(polyhedra=False))
    assert 6 + 6 <= full["bond"] <= 6 + 6 + 6  # both halves, and a stump of each oxygen that is not towards the viewer
    assert shapes(Look()) == {**full, "face": 8, "line": full["line"] + 12}
    assert shapes(Look(outside=True))["ball"] == 15 + 6  # the titanium behind each oxygen
    assert shapes(Look(), SALT.with_id("x"))["face"] == 0


def test_rotations_turn_what_is_drawn() -> None:
    plain, turned = (scene_of(PEROVSKITE, Look(along="c", rotate=rotate)) for rotate in ("", "90z"))
    np.testing.assert_allclose(turned.positions, plain.positions @ [[0, 1, 0], [-1, 0, 0], [0, 0, 1]], atol=1e-12)
    for axis, name in enumerate("abc"):
        crystal = random_crystal(4, 2)
        rotation = Look(along=name).rotation(crystal.lattice)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1)
        np.testing.assert_allclose((crystal.lattice @ rotation)[axis, :2], 0, atol=1e-12)
        assert (crystal.lattice @ rotation)[axis, 2] > 0


def test_formulas_and_space_groups_read_as_in_a_paper() -> None:
    assert title_of(PEROVSKITE) == "SrTiO$_{3}$"
    assert group_of(221) == r"$Pm\bar{3}m$"
    assert group_of(194) == "$P6_3/mmc$"


def panels(figure: object) -> list[list[str]]:
    """The words of each panel."""
    return [[text.get_text() for text in axes.texts] for axes in figure.axes]


@pytest.mark.parametrize("letter", "iW")
def test_no_id_is_wider_than_its_panel(letter: str) -> None:
    figure = draw([PEROVSKITE.with_id(letter * 99)])
    figure.draw_without_rendering()
    (axes,) = figure.axes
    box = axes.texts[1].get_window_extent()
    assert 0.7 * axes.bbox.width < box.width <= axes.bbox.width


def test_a_panel_says_what_it_shows() -> None:
    """Ids are text as they stand, also where they look like mathematics or would be obeyed by a terminal."""
    ids = ["sto", "$x^{", "a\x1b[31mb", "i" * 99]
    for words, id in zip(panels(draw([PEROVSKITE.with_id(id) for id in ids])), ids, strict=True):
        assert words[0] == "SrTiO$_{3}$"
        if len(id) < 30:
            assert words[1] == ("a [31mb" if "\x1b" in id else id)
        else:
            assert words[1].rstrip("…") == id[: len(words[1]) - 1]
        assert words[2].split() == [r"$Pm\bar{3}m$", "3.90×3.90×3.90", "Å"]
        assert words[3:] == ["O", "Ti", "Sr"]


@pytest.mark.parametrize("suffix", ["svg", "pdf", "png"])
def test_the_same_crystals_give_the_same_file(tmp_path: Path, suffix: str) -> None:
    files = [tmp_path / f"{k}.{suffix}" for k in range(2)]
    for file in files:
        draw([PEROVSKITE, SALT], file)
    start = {"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG"}[suffix]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes().startswith(start)


def test_crystals_are_chosen_by_id_or_the_first_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    many = [BROKEN, *(SALT.with_id(str(k)) for k in range(20))]
    assert [words[1] for words in panels(draw(many))] == [str(k) for k in range(16)]
    assert "without finite coordinates or a volume: 1 of 21" in capsys.readouterr().err
    assert [words[1] for words in panels(draw(many, n=2))] == ["0", "1"]
    assert [words[1] for words in panels(draw(many, select=["7", "3"]))] == ["7", "3"]
    with pytest.raises(InputError, match="unknown crystal '77'"):
        draw(many, select=["77"])
    with pytest.raises(InputError, match="coordinates are not finite"):
        draw(many, select=["broken"])


def test_a_notebook_shows_the_figure() -> None:
    assert draw([SALT])._repr_png_().startswith(b"\x89PNG")


def test_odd_crystals_are_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    odd = [
        Crystal([6, 6], np.zeros((2, 3)), np.eye(3) * 3),
        Crystal([6], [[0, 0, 0]], np.diag([0.3, 5.0, 5.0])),
        Crystal([118], [[0.5, 0.5, 0.5]], -np.eye(3) * 4),
        Crystal([1], [[0, 0, 0]], np.eye(3) * 1e4),
        Crystal(np.arange(1, 31), rng.random((30, 3)), np.eye(3) * 9),
        Crystal([6], [[0, 0, 0]], [[3.0, 0, 0], [2.9, 0.8, 0], [-2.9, 0.3, 40.0]]),
    ]
    draw(odd, tmp_path / "odd.png", labels=True, outside=True)
    draw(odd, tmp_path / "as_they_are.svg", cell="file")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("draw c.extxyz --out p.jpg", "written as .svg, .pdf or .png"),
        ("draw c.extxyz --out p", "written as .svg, .pdf or .png"),
        ("draw c.extxyz --out c.extxyz --overwrite", "is an input"),
        ("draw gone.cif --out p.png", "gone.cif"),
        ("draw empty --out p.png", "no crystals|nothing"),
        ("draw c.extxyz --select stoo --out p.png", "did you mean 'sto'"),
        ("draw c.extxyz --along d --out p.png", "a, b or c is needed"),
        ("draw c.extxyz --rotate 90 --out p.png", "such as 90x,-20y"),
        ("draw c.extxyz --cell primitive --out p.png", "unknown cell 'primitive'"),
        ("draw c.extxyz -n 0 --out p.png", "-n"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    dpcdvae.write([PEROVSKITE, SALT], "c.extxyz")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main(command.split()) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, error), error
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_command_draws_what_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dpcdvae.write([PEROVSKITE, SALT], "c.extxyz")
    options = "--select salt --select sto --columns 1 --no-bonds --outside --labels --along a --rotate 5x,-3.5y"
    assert main(f"draw c.extxyz {options} --out two.svg".split()) == 0
    assert Path("two.svg.manifest.json").exists()
    draw(
        [SALT, PEROVSKITE], "same.svg", columns=1, bonds=False, outside=True, labels=True, along="a", rotate="5x,-3.5y"
    )
    assert Path("two.svg").read_bytes() == Path("same.svg").read_bytes()
    assert main("draw c.extxyz --out two.svg".split()) == 2


def test_a_file_without_a_readable_crystal_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "unknown.extxyz"
    path.write_text('1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3\nQq 0 0 0\n')
    assert main(["draw", str(path), "--out", str(tmp_path / "p.png")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "'Qq' is not an element" in error


@pytest.mark.parametrize("seed", range(3))
def test_the_frames_of_a_film_have_the_cell_and_origin_of_the_last_one(seed: int) -> None:
    """Which is drawn as it is alone; an atom that does not move stands still on the page."""
    rng = np.random.default_rng(seed)
    turn = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    last = replace(PEROVSKITE, frac_coords=(PEROVSKITE.frac_coords + rng.random(3)) @ turn.T, id="a@3")
    moves = [np.where(np.arange(5)[:, None] == 0, 0.0, rng.normal(0, 0.2 * (3 - k), (5, 3))) for k in range(3)]
    frames = [replace(last, frac_coords=last.frac_coords + move, id=f"a@{k}") for k, move in enumerate(moves)]
    drawn = canonical_frames([*frames, last])
    alone = canonical_cell(last).crystal
    assert drawn[-1].number == 221
    for item in drawn:
        np.testing.assert_allclose(item.crystal.lattice, alone.lattice, atol=1e-9)
        np.testing.assert_allclose(off_by(item.crystal.frac_coords[0], drawn[-1].crystal.frac_coords[0]), 0, atol=1e-9)
    for number, place in zip(alone.atomic_numbers, alone.frac_coords, strict=True):
        there = drawn[-1].crystal.frac_coords[drawn[-1].crystal.atomic_numbers == number]
        assert np.abs(off_by(there, place)).max(axis=1).min() < 1e-3
    for item, frame in zip(drawn, [*frames, last], strict=True):  # the same crystal, in other words
        steps = off_by(item.crystal.frac_coords, drawn[-1].crystal.frac_coords) @ item.crystal.lattice
        expected = off_by(frame.frac_coords, last.frac_coords) @ last.lattice
        np.testing.assert_allclose(np.linalg.norm(steps, axis=1), np.linalg.norm(expected, axis=1), atol=1e-6)


def off_by(coords: np.ndarray, others: np.ndarray) -> np.ndarray:
    apart = coords - others
    return apart - np.round(apart)


def test_a_film_of_a_supercell_is_drawn_as_it_is_described() -> None:
    """Its picture shows a primitive or conventional cell, which is no other choice of the supercell's vectors."""
    cubic = Crystal([26, 26], [[0, 0, 0], [0.5, 0.5, 0.5]], 2.87 * np.eye(3), "a@1")
    for basis in ([[0.5, 0.5, -0.5], [1, 1, 1], [0, 1, 0]], [[1, 1, 0], [-1, 1, 0], [0, 0, 1]], 2 * np.eye(3)):
        crystal = cell_of(cubic, np.array(basis))
        for item in canonical_frames([replace(crystal, id="a@0"), crystal]):
            volume = abs(np.linalg.det(item.crystal.lattice)) / item.crystal.num_atoms
            assert volume == pytest.approx(2.87**3 / 2)
            assert np.abs(item.crystal.lattice).max() < 20


def cell_of(crystal: Crystal, basis: np.ndarray) -> Crystal:
    """A crystal described by other vectors of its lattice, all its atoms in their cell."""
    lattice = basis @ crystal.lattice
    shifts = np.array(list(product(range(-4, 5), repeat=3)))
    places = (crystal.frac_coords[:, None] + shifts).reshape(-1, 3) @ np.linalg.inv(basis)
    inside = ((places > -1e-6) & (places < 1 - 1e-6)).all(axis=1)
    numbers = np.repeat(crystal.atomic_numbers, len(shifts))[inside]
    return Crystal(numbers, places[inside], lattice, crystal.id)


def test_frames_of_other_cells_are_drawn_each_as_its_own_crystal() -> None:
    larger = replace(PEROVSKITE, lattice=1.1 * PEROVSKITE.lattice)
    for item, crystal in zip(canonical_frames([larger, PEROVSKITE]), (larger, PEROVSKITE), strict=True):
        np.testing.assert_array_equal(item.crystal.frac_coords, canonical_cell(crystal).crystal.frac_coords)
