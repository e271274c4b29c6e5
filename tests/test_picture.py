"""The picture: what is drawn is right (copies on faces, bonds), and a PNG comes out for any crystal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dpcdvae.drawing.cell_contents import atoms_of_cell, bonds_of
from dpcdvae.drawing.picture import draw, title_of
from dpcdvae.errors import InputError
from dpcdvae.structures.crystal import Crystal

PEROVSKITE = Crystal(
    [38, 22, 8, 8, 8],
    [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    np.eye(3) * 3.905,
)


def picture_size(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def test_a_cell_is_drawn_with_the_atoms_on_all_its_faces() -> None:
    """SrTiO3: eight corners, a centre, six faces, whatever lattice translation the file gives the atoms."""
    for shift in (0, -1e-9, 3):
        crystal = Crystal(PEROVSKITE.atomic_numbers, PEROVSKITE.frac_coords + shift, PEROVSKITE.lattice)
        atoms = atoms_of_cell(crystal)
        drawn = crystal.atomic_numbers[atoms.index]
        assert [int((drawn == z).sum()) for z in (38, 22, 8)] == [8, 1, 6]
        assert len(np.unique(atoms.positions.round(3), axis=0)) == 15


def test_bonds_are_those_of_the_first_shell() -> None:
    """The titanium of SrTiO3 has six oxygens, all drawn; strontium, whose oxygens have nearer partners, none."""
    atoms = atoms_of_cell(PEROVSKITE)
    bonds = list(bonds_of(PEROVSKITE, atoms))
    drawn = PEROVSKITE.atomic_numbers[atoms.index]
    titanium = [(vector, inside) for place, vector, inside in bonds if drawn[place] == 22]
    assert len(titanium) == 6
    assert all(inside for _, inside in titanium)
    np.testing.assert_allclose([np.linalg.norm(vector) for vector, _ in titanium], 3.905 / 2)
    assert not any(drawn[place] == 38 for place, _, _ in bonds)


def test_formula_reads_as_chemists_write_it() -> None:
    assert title_of(PEROVSKITE) == "SrTiO$_{3}$"


def test_sixteen_of_many_and_fewer_than_a_row(tmp_path: Path) -> None:
    draw([PEROVSKITE] * 17, tmp_path / "many.png")
    draw([PEROVSKITE] * 16, tmp_path / "sixteen.png")
    draw([PEROVSKITE] * 2, tmp_path / "two.png")
    width, height = picture_size(tmp_path / "sixteen.png")
    assert (tmp_path / "many.png").read_bytes() == (tmp_path / "sixteen.png").read_bytes()
    assert picture_size(tmp_path / "two.png") == (width // 2, height // 4)


def test_odd_crystals_are_drawn_or_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    odd = [
        Crystal([6, 6], np.zeros((2, 3)), np.eye(3) * 3),
        Crystal([6], [[0, 0, 0]], np.diag([0.3, 5.0, 5.0])),
        Crystal([118], [[0.5, 0.5, 0.5]], -np.eye(3) * 4),
        Crystal([1], [[0, 0, 0]], np.eye(3) * 1e4),
        Crystal(np.arange(1, 31), rng.random((30, 3)), np.eye(3) * 9),
        Crystal([6], [[0, 0, 0]], [[3.0, 0, 0], [2.9, 0.8, 0], [-2.9, 0.3, 40.0]]),
        Crystal([6], [[np.nan, 0, 0]], np.eye(3)),
    ]
    draw(odd, tmp_path / "odd.png")
    picture_size(tmp_path / "odd.png")


def test_nothing_to_draw_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no crystal has finite coordinates"):
        draw([Crystal([6], [[np.nan, 0, 0]], np.eye(3))], tmp_path / "none.png")
    assert not list(tmp_path.iterdir())
