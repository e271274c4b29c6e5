"""FTCP's matrix: what it says of a crystal, what it does not depend on, and the crystal that it is read as."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dpcdvae.config import FTCPConfig
from dpcdvae.errors import InputError
from dpcdvae.ftcp import decoding
from dpcdvae.ftcp.decoding import crystals_of
from dpcdvae.ftcp.padded_sites import parts
from dpcdvae.ftcp.reciprocal import POINTS, reciprocal_points
from dpcdvae.ftcp.representation import Representation
from dpcdvae.ftcp.scaling import RowScaler
from dpcdvae.io import Failure
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.element_data import cgcnn_vectors
from tensors import awkward_crystals, batch_of, random_crystal

PLUS = {"fourier": "structure-factor", "coordinates": "periodic", "order": "canonical", "empty_sites": "skip"}
VARIANTS = [{}, PLUS]
CRYSTALS = [random_crystal(seed, num_atoms=seed % 7 + 1, side=7) for seed in range(14)]


def representation(max_atoms: int = 8, max_elements: int = 4, **options: Any) -> Representation:
    values = {"model": {"max_atoms": max_atoms}, "representation": {"max_elements": max_elements, **options}}
    return Representation(FTCPConfig.from_dict(values)).double()


def matrices(crystals: Sequence[Crystal], **options: Any) -> Tensor:
    found: Tensor = representation(**options)(batch_of(crystals))
    return found


def read(crystals: Representation, matrix: Tensor, **how: bool) -> list[Crystal | Failure]:
    ids = [f"number {k}" for k in range(len(matrix))]
    return crystals_of(crystals, matrix, ids, **{"most_likely": False, "hydrogen": False, **how})


# what the matrix holds


def test_the_published_matrix_of_one_crystal_by_hand() -> None:
    """Every number of it, from the definition (Ren et al. 2022), with loops."""
    crystal = Crystal(
        np.array([22, 8, 8]), np.array([[0.1, 0.2, 0.3], [0.5, 0.25, 0.0], [0.9, 0.4, 0.7]]),
        np.array([[3.0, 0, 0], [0.4, 3.5, 0], [0.1, -0.2, 4.2]]), "one",
    )  # fmt: skip
    expected = np.zeros((208, 64))
    expected[21, 0] = expected[7, 1] = 1
    expected[103, :3], expected[104, :3] = crystal.lengths, crystal.angles
    expected[105:108, :3] = crystal.frac_coords
    expected[110, 0] = expected[111, 1] = expected[112, 1] = 1
    reciprocal = np.linalg.inv(crystal.lattice).T
    inside = [
        (sum(map(abs, hkl)), *(-index for index in hkl))
        for hkl in product(range(-9, 10), repeat=3)
        if 0 < np.linalg.norm(np.array(hkl) @ reciprocal) <= 1.297
    ]
    vectors = cgcnn_vectors()
    expected[116:208, 0], expected[116:208, 1] = vectors[22], vectors[8]
    for j, (_, *negative) in enumerate(sorted(inside)[:59]):
        hkl = -np.array(negative)
        expected[115, 5 + j] = np.linalg.norm(hkl @ reciprocal)
        for number, site in zip(crystal.atomic_numbers, crystal.frac_coords, strict=True):
            expected[116:208, 5 + j] += vectors[number] * math.pi * (hkl @ site)
    (found,) = matrices([crystal], max_atoms=5, max_elements=5).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("atoms", "elements", "shape"), [(5, 5, (208, 64)), (24, 1, (248, 62)), (20, 7, (240, 66)), (40, 4, (280, 63))]
)
def test_the_size_is_that_of_the_published_matrices(atoms: int, elements: int, shape: tuple[int, int]) -> None:
    made = representation(max_atoms=atoms, max_elements=elements)
    assert (made.height, made.width) == shape


def test_the_element_vectors_are_one_hot_in_nine_properties() -> None:
    vectors = cgcnn_vectors()
    assert vectors.shape == (101, 92)
    assert set(np.unique(vectors)) == {0.0, 1.0}
    assert not vectors[0].any()
    assert [int(vectors[number].sum()) for number in (1, 6, 8, 26, 92)] == [9, 9, 9, 9, 8]


def test_points_of_reciprocal_space_lie_within_the_sphere_and_are_the_first_of_their_order() -> None:
    """Also of needles, slivers and tiny cells, of which some have fewer in the sphere than there are columns."""
    crystals = awkward_crystals()
    hkl, lengths = reciprocal_points(torch.tensor(np.array([crystal.lattice for crystal in crystals])))
    for crystal, found, size in zip(crystals, hkl.numpy().astype(int), lengths.numpy(), strict=True):
        reciprocal = np.linalg.inv(crystal.lattice).T
        bound = [int(1.4 * length) for length in crystal.lengths]
        box = np.array([*np.ndindex(*(2 * b + 1 for b in bound))]) - bound
        norm = np.linalg.norm(box @ reciprocal, axis=1)
        radius = 1.297 if ((norm > 0) & (norm <= 1.297)).sum() >= POINTS else 1.4
        rows = box[(norm > 0) & (norm <= radius)]
        rows = rows[np.lexsort((-rows[:, 2], -rows[:, 1], -rows[:, 0], np.abs(rows).sum(1)))][:POINTS]
        np.testing.assert_array_equal(found[: len(rows)], rows, err_msg=crystal.id)
        assert not found[len(rows) :].any()
        np.testing.assert_allclose(size, np.linalg.norm(found @ reciprocal, axis=1), atol=1e-12)


# there and back


@pytest.mark.parametrize("options", VARIANTS)
def test_a_crystal_read_from_its_matrix_has_the_same_matrix(options: dict[str, Any]) -> None:
    made = representation(**options)
    matrix = made(batch_of(CRYSTALS))
    found = read(made, matrix)
    assert [crystal.id for crystal in found] == [f"number {k}" for k in range(len(CRYSTALS))]
    assert all(isinstance(crystal, Crystal) for crystal in found)
    again = made(batch_of([crystal for crystal in found if isinstance(crystal, Crystal)]))
    torch.testing.assert_close(again, matrix, rtol=0, atol=1e-9)


@pytest.mark.parametrize("how", [{}, {"most_likely": True}, {"hydrogen": True}])
def test_the_crystal_read_from_a_perfect_matrix_is_the_crystal(how: dict[str, bool]) -> None:
    """Whichever rule says which sites are occupied."""
    made = representation()
    for crystal, found in zip(CRYSTALS, read(made, made(batch_of(CRYSTALS)), **how), strict=True):
        assert isinstance(found, Crystal)
        assert found.atomic_numbers.tolist() == crystal.atomic_numbers.tolist()
        np.testing.assert_allclose(found.frac_coords, crystal.frac_coords, atol=1e-9)
        np.testing.assert_allclose([*found.lengths, *found.angles], [*crystal.lengths, *crystal.angles], atol=1e-9)


def test_scaling_brings_every_row_of_the_training_set_to_0_to_1_and_back() -> None:
    matrix = matrices(CRYSTALS)
    scaler = RowScaler(matrix.shape[1]).double()
    scaler.fit(part for part in matrix.split(5))
    scaled = scaler(matrix)
    low, high = scaled.amin((0, 2)), scaled.amax((0, 2))
    constant = matrix.amin((0, 2)) == matrix.amax((0, 2))
    assert constant.any()
    torch.testing.assert_close(low, torch.zeros_like(low))
    torch.testing.assert_close(high, torch.where(constant, 0.0, 1.0).to(high))
    torch.testing.assert_close(scaler.inverse(scaled), matrix)


def test_parts_of_a_batch_are_its_crystals() -> None:
    made, batch = representation(), batch_of(CRYSTALS)
    torch.testing.assert_close(torch.cat([made(part) for part in parts(batch, 4)]), made(batch))


# what it does not depend on


def moved(crystal: Crystal, atom: int, image: Sequence[int]) -> Crystal:
    frac = crystal.frac_coords.copy()
    frac[atom] += image
    return replace(crystal, frac_coords=frac)


def blocks(crystal: Crystal, *names: str, **options: Any) -> list[Tensor]:
    made = representation(**options)
    (matrix,) = made(batch_of([crystal]))
    return [matrix[made.rows[name]] for name in names]


def test_a_lattice_translation_of_a_site_changes_the_linear_block_and_not_the_structure_factors() -> None:
    crystal = random_crystal(3)
    other = moved(crystal, 2, (1, -2, 0))
    for fourier, coordinates, same in (("linear", "plain", False), ("structure-factor", "periodic", True)):
        options = {"fourier": fourier, "coordinates": coordinates}
        before, after = (blocks(one, "properties", "coordinates", **options) for one in (crystal, other))
        for old, new in zip(before, after, strict=True):
            assert torch.allclose(old, new, atol=1e-9) is same


def test_structure_factors_are_those_of_the_definition() -> None:
    """Σ Z exp(2πi k·r), the real parts first."""
    crystal = random_crystal(4)
    (block,) = blocks(crystal, "properties", fourier="structure-factor")
    hkl = reciprocal_points(torch.tensor(crystal.lattice)[None])[0][0].numpy()
    phases = np.exp(2j * np.pi * crystal.frac_coords @ hkl.T)
    expected = cgcnn_vectors()[crystal.atomic_numbers].T @ phases
    np.testing.assert_allclose(block[:, 4:].numpy(), np.hstack([expected.real, expected.imag]), atol=1e-9)


SYMMETRIC = [
    Crystal([38, 22, 8, 8, 8], [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]], 3.9 * np.eye(3)),
    Crystal([6, 6], [[0, 0, 0], [1 / 3, 2 / 3, 0.5]], [[2.46, 0, 0], [-1.23, 2.46 * 0.75**0.5, 0], [0, 0, 6.7]]),
    Crystal([11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], 2.8 * (np.ones((3, 3)) - np.eye(3))),
]


@pytest.mark.parametrize("coordinates", ["plain", "periodic"])
def test_the_canonical_order_forgets_the_order_of_the_atoms_and_the_origin(coordinates: str) -> None:
    rng = np.random.default_rng(0)
    for crystal in [*CRYSTALS, *SYMMETRIC]:
        order = rng.permutation(crystal.num_atoms)
        frac = (crystal.frac_coords + rng.random(3))[order] + rng.integers(-2, 3, (crystal.num_atoms, 3))
        other = replace(crystal, atomic_numbers=crystal.atomic_numbers[order], frac_coords=frac)
        one, two = matrices([crystal, other], order="canonical", coordinates=coordinates, fourier="structure-factor")
        torch.testing.assert_close(one, two, rtol=0, atol=1e-9, msg=crystal.id)
        file_order = matrices([crystal, other], coordinates=coordinates)
        assert not torch.allclose(*file_order, atol=1e-3)


def test_canonical_atoms_come_by_element_and_distance_from_one_of_the_rarest() -> None:
    crystal = Crystal(
        np.array([8, 22, 8, 8]), np.array([[0.5, 0.1, 0], [0.1, 0.1, 0], [0.1, 0.9, 0], [0.1, 0.1, 0.6]]), 5 * np.eye(3)
    )
    sites = representation(order="canonical").sites_of(batch_of([crystal]))
    assert sites.numbers[0, :4].tolist() == [8, 8, 8, 22]
    expected = [[0, 0.8, 0], [0.4, 0, 0], [0, 0, 0.6], [0, 0, 0]]  # 1, 2, 2 Å: of the same distance the smaller x first
    np.testing.assert_allclose(sites.frac[0, [0, 2, 1, 3]], expected, atol=1e-12)


# what is no crystal


def spoilt(block: str, value: float, row: int = 0, columns: slice = slice(None)) -> Tensor:
    """The matrix of one crystal of two atoms, with one row of a block replaced."""
    made = representation()
    matrix = made(batch_of([random_crystal(0, 2)]))
    matrix[0, made.rows[block].start + row, columns] = value
    return matrix


def without(block: str) -> Tensor:
    made = representation()
    matrix = made(batch_of([random_crystal(0, 2)]))
    matrix[0, made.rows[block]] = 0
    return matrix


@pytest.mark.parametrize(
    ("matrix", "reason"),
    [
        (without("occupancy"), decoding.NO_SITE),
        (without("elements"), decoding.NO_ELEMENT),
        (spoilt("lengths", -1.0, columns=slice(1, 2)), decoding.NO_LENGTH),
        (spoilt("lengths", 0.0), decoding.NO_LENGTH),
        (spoilt("angles", 150.0), decoding.NO_CELL),
        (spoilt("angles", 0.0), decoding.NO_CELL),
        (spoilt("angles", math.nan), decoding.NO_CELL),
        (without("coordinates"), decoding.TOO_CLOSE),
        (spoilt("lengths", 0.3), decoding.TOO_CLOSE),
    ],
)
def test_each_matrix_that_is_no_crystal_says_why(matrix: Tensor, reason: str) -> None:
    """And its neighbour in the batch is read all the same."""
    made = representation()
    good = random_crystal(1)
    bad, other = read(made, torch.cat([matrix, made(batch_of([good]))]))
    assert isinstance(bad, Failure)
    assert (bad.id, bad.reason) == ("number 0", reason)
    assert isinstance(other, Crystal)
    assert other.composition == good.composition


def test_an_empty_site_before_an_occupied_one_is_hydrogen_as_published_or_no_atom() -> None:
    made = representation()
    crystal = random_crystal(5, 4, elements=(8, 22))
    matrix = made(batch_of([crystal]))
    matrix[0, made.rows["occupancy"].start + 1] = 0
    (hydrogen,), (skipped,) = read(made, matrix, hydrogen=True), read(made, matrix)
    assert isinstance(hydrogen, Crystal)
    assert isinstance(skipped, Crystal)
    z = crystal.atomic_numbers.tolist()
    assert hydrogen.atomic_numbers.tolist() == [z[0], 1, *z[2:]]
    assert skipped.atomic_numbers.tolist() == [z[0], *z[2:]]


@pytest.mark.parametrize(
    ("crystal", "message"),
    [
        (random_crystal(0, 9), r"9 atoms; this representation has 8 sites .*--set model.max_atoms=9"),
        (
            random_crystal(0, 8, elements=range(20, 60)),
            r"elements; this representation has columns for 4 .*max_elements=",
        ),
        (random_crystal(0, 2, elements=[101]), r"a crystal has Md: element vectors end with Fm \(100\)"),
    ],
)
def test_a_crystal_that_does_not_fit_is_refused_in_one_line(crystal: Crystal, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        matrices([random_crystal(1), crystal])
    assert "\n" not in str(error.value)
