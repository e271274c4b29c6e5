"""Lattice algebra: closed forms, pymatgen's and ASE's conventions, limits of rounding."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dpcdvae.tensors.lattice import (
    cart_to_frac,
    frac_to_cart,
    heights,
    lattice_from_parameters,
    minimum_image,
    parameters_from_lattice,
    reduced_basis,
    volume,
    wrap,
)
from tensors import UNIMODULAR, awkward_crystals, cubic, rotation

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
def test_orientation_is_that_of_pymatgen(parameters: list[float]) -> None:
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


# short vectors and nearest images


def unwieldy_lattices() -> Tensor:
    """The awkward ones, those with many equal distances, and all of them in far worse bases."""
    crystals = [*awkward_crystals(), *(cubic(kind, 4.0) for kind in ("sc", "bcc", "fcc"))]
    lattices = torch.tensor(np.stack([crystal.lattice for crystal in crystals]))
    worse = [UNIMODULAR[2] @ UNIMODULAR[0], UNIMODULAR[0] @ UNIMODULAR[2] @ UNIMODULAR[3] @ UNIMODULAR[0]]
    return torch.cat([lattices, *(torch.tensor(basis).double() @ lattices for basis in worse)])


def displacements(count: int) -> Tensor:
    return 3 * torch.randn(count, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def shortest_by_brute_force(frac_delta: Tensor, lattice: Tensor, least: int = 3) -> Tensor:
    """(n,) Å: over at least (2 least + 1)^3 images, as many as half the sum of the edges may span."""
    reach = torch.linalg.vector_norm(lattice, dim=-1).sum() / 2
    box = torch.floor(reach / heights(lattice) + 0.5).clamp(min=least).long().tolist()
    images = torch.tensor(list(product(*(range(-b, b + 1) for b in box)))).double()
    delta = frac_delta - frac_delta.round()
    return torch.stack([torch.linalg.vector_norm((one + images) @ lattice, dim=-1).amin() for one in delta])


@pytest.mark.parametrize("number", range(len(unwieldy_lattices())))
def test_no_image_is_shorter_than_the_minimum_image(number: int) -> None:
    lattice, deltas = unwieldy_lattices()[number], displacements(40)
    found = minimum_image(deltas, lattice.expand(40, 3, 3))
    expected = shortest_by_brute_force(deltas, lattice)
    torch.testing.assert_close(torch.linalg.vector_norm(found, dim=-1), expected)
    cells = cart_to_frac(found, lattice.expand(40, 3, 3)) - deltas
    torch.testing.assert_close(cells, cells.round(), rtol=0, atol=1e-9)


def test_the_nearest_27_cells_do_not_hold_every_minimum_image() -> None:
    """Why the search reduces the basis first: half of these lattices hide it elsewhere."""
    deltas, images = displacements(40), torch.tensor(list(product(range(-1, 2), repeat=3))).double()
    missed = 0
    for lattice in unwieldy_lattices():
        vectors = ((deltas - deltas.round())[:, None] + images) @ lattice
        nearest = torch.linalg.vector_norm(vectors, dim=-1).amin(1)
        true = torch.linalg.vector_norm(minimum_image(deltas, lattice.expand(40, 3, 3)), dim=-1)
        missed += bool((nearest > true + 0.01).any())
    assert missed > 10


def test_minimum_images_are_ases() -> None:
    from ase.geometry import find_mic

    deltas = displacements(100)
    for lattice in unwieldy_lattices():
        vectors, _ = find_mic((deltas @ lattice).numpy(), lattice.numpy())
        found = minimum_image(deltas, lattice.expand(100, 3, 3))
        torch.testing.assert_close(found, torch.tensor(vectors), rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_lattices_at_once_are_each_alone(dtype: torch.dtype) -> None:
    lattices = unwieldy_lattices()
    deltas = displacements(len(lattices))
    together = minimum_image(deltas.to(dtype), lattices.to(dtype))
    assert together.dtype == dtype
    for delta, lattice, found in zip(deltas, lattices, together, strict=True):
        alone = minimum_image(delta[None], lattice[None])[0]
        torch.testing.assert_close(found.double(), alone, rtol=0, atol=1e-3 if dtype is torch.float32 else 1e-9)


def test_minimum_image_turns_with_the_crystal_and_back_with_the_displacement() -> None:
    lattices, turn = unwieldy_lattices(), torch.tensor(rotation(3, mirror=True))
    deltas = displacements(len(lattices))
    found = minimum_image(deltas, lattices)
    torch.testing.assert_close(minimum_image(deltas, lattices @ turn), found @ turn, rtol=0, atol=1e-9)
    torch.testing.assert_close(minimum_image(-deltas, lattices), -found, rtol=0, atol=1e-9)
    torch.testing.assert_close(minimum_image(deltas + 7, lattices), found, rtol=0, atol=1e-9)


def test_minimum_image_of_a_rectangular_cell_in_closed_form() -> None:
    sides = torch.tensor([1.0, 3.0, 17.0], dtype=torch.float64)
    deltas = displacements(50)
    found = minimum_image(deltas, torch.diag(sides).expand(50, 3, 3))
    torch.testing.assert_close(found, (deltas - deltas.round()) * sides)
    halves = minimum_image(torch.full((1, 3), 0.5).double(), torch.diag(sides)[None])
    torch.testing.assert_close(halves.abs()[0], sides / 2)


def test_reduced_basis_is_the_same_lattice_sorted_and_not_leaning() -> None:
    lattices = unwieldy_lattices()
    reduced = reduced_basis(lattices)
    change = reduced @ torch.linalg.inv(lattices)
    torch.testing.assert_close(change, change.round(), rtol=0, atol=1e-9)
    torch.testing.assert_close(volume(reduced), volume(lattices))
    lengths = torch.linalg.vector_norm(reduced, dim=-1)
    assert (lengths.diff(dim=-1) >= -1e-9).all()
    # R of the QR factors: how far each vector leans along the part of the shorter ones that is square to the rest.
    factors = torch.linalg.qr(reduced.mT).R
    leaning = (factors / factors.diagonal(dim1=1, dim2=2)[..., None]).triu(1).abs()
    assert leaning.amax() <= 0.5 + 1e-9
    # Two of these lattices are one: the same vectors come out of any basis, up to lengths that are equal.
    torch.testing.assert_close(lengths[:12], lengths[12:24])
    torch.testing.assert_close(lengths[:12], lengths[24:])
