"""Lattice algebra: closed forms, pymatgen's and ASE's conventions, limits of rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpcdvae.lattice import (
    cart_to_frac,
    frac_to_cart,
    heights,
    lattice_from_parameters,
    parameters_from_lattice,
    volume,
    wrap,
)
from tensors import awkward_crystals, rotation

LATTICES = torch.tensor(np.stack([crystal.lattice for crystal in awkward_crystals()]))
# An angle near 0 or 180 degrees makes the arc cosine lose half its digits; these cells are away from it.
PARAMETERS = torch.tensor(
    [
        [3.0, 3.0, 3.0, 90, 90, 90],
        [2.5, 2.5, 6.7, 90, 90, 120],
        [3.1, 4.2, 5.3, 60, 60, 60],
        [3.1, 14.2, 1.3, 71, 103, 84],
        [2.0, 3.0, 40.0, 35, 110, 120],
    ],
    dtype=torch.float64,
)


def test_parameters_come_back() -> None:
    torch.testing.assert_close(parameters_from_lattice(lattice_from_parameters(PARAMETERS)), PARAMETERS)


def test_lattice_comes_back_up_to_a_rotation() -> None:
    again = lattice_from_parameters(parameters_from_lattice(LATTICES))
    metric = LATTICES @ LATTICES.transpose(1, 2)
    torch.testing.assert_close(again @ again.transpose(1, 2), metric, rtol=1e-9, atol=1e-9)


def test_parameters_do_not_turn_with_the_crystal() -> None:
    turned = LATTICES @ torch.tensor(rotation(0))
    torch.testing.assert_close(parameters_from_lattice(turned), parameters_from_lattice(LATTICES))


@pytest.mark.parametrize("parameters", PARAMETERS.tolist())
def test_orientation_is_pymatgens(parameters: list[float]) -> None:
    from pymatgen.core import Lattice

    expected = torch.tensor(Lattice.from_parameters(*parameters).matrix)
    torch.testing.assert_close(lattice_from_parameters(torch.tensor(parameters).double()), expected)


def test_parameters_are_ases() -> None:
    from ase.geometry import cell_to_cellpar

    expected = torch.tensor(np.stack([cell_to_cellpar(lattice) for lattice in LATTICES.numpy()]))
    torch.testing.assert_close(parameters_from_lattice(LATTICES), expected)


def test_angles_that_close_no_cell_give_nan() -> None:
    impossible = torch.tensor([[3.0, 3, 3, 30, 30, 90], [3.0, 3, 3, 150, 150, 150]])
    assert lattice_from_parameters(impossible).isnan().flatten(1).any(1).all()


def test_volume_and_heights_in_closed_form() -> None:
    a, c = 2.5, 6.7
    hexagonal = lattice_from_parameters(torch.tensor([a, a, c, 90, 90, 120]).double())
    assert float(volume(hexagonal)) == pytest.approx(a * a * c * 0.75**0.5)
    assert heights(hexagonal).tolist() == pytest.approx([a * 0.75**0.5, a * 0.75**0.5, c])
    left_handed = torch.diag(torch.tensor([2.0, 3.0, -4.0]))
    assert float(volume(left_handed)) == pytest.approx(24)
    assert heights(left_handed).tolist() == pytest.approx([2, 3, 4])


def test_heights_are_one_over_the_reciprocal_lengths() -> None:
    from ase.cell import Cell

    expected = [1 / np.linalg.norm(Cell(lattice).reciprocal(), axis=1) for lattice in LATTICES.numpy()]
    torch.testing.assert_close(heights(LATTICES), torch.tensor(np.stack(expected)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wrapped_is_never_one(dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).tiny
    values = torch.tensor([-1e-9, -1e-20, -tiny, -0.0, 0.0, 1.0, -1.0, 5.0, -1e-7, 1e6, -1e6], dtype=dtype)
    wrapped = wrap(values)
    assert ((wrapped >= 0) & (wrapped < 1)).all()
    assert wrapped[[2, 3, 4, 5, 6, 7, 9, 10]].eq(0).all()


@settings(max_examples=50, deadline=None)
@given(st.floats(-1e3, 1e3), st.integers(-100, 100))
def test_wrap_forgets_whole_cells_only(x: float, cells: int) -> None:
    here, there = wrap(torch.tensor([x, x + cells], dtype=torch.float64)).tolist()
    assert 0 <= here < 1
    assert (x - here) == pytest.approx(round(x - here), abs=1e-9)
    assert min(abs(here - there), 1 - abs(here - there)) < 1e-9


def test_frames_come_back_and_rows_are_vectors() -> None:
    frac = torch.randn(len(LATTICES), 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cart = frac_to_cart(frac, LATTICES)
    torch.testing.assert_close(cart_to_frac(cart, LATTICES), frac, rtol=1e-9, atol=1e-9)
    first = torch.tensor([[1.0, 0, 0]], dtype=torch.float64).expand(len(LATTICES), 3)
    torch.testing.assert_close(frac_to_cart(first, LATTICES), LATTICES[:, 0])
