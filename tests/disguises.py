"""Other descriptions of the same crystal, under which nothing that is measured may change."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from scipy.spatial.transform import Rotation

from dpcdvae.structures.crystal import Crystal


def rotated(crystal: Crystal, rng: Generator) -> Crystal:
    lattice = crystal.lattice @ Rotation.random(rng=rng).as_matrix()
    return Crystal(crystal.atomic_numbers, crystal.frac_coords, lattice, crystal.id)


def permuted(crystal: Crystal, rng: Generator) -> Crystal:
    order = rng.permutation(crystal.num_atoms)
    return Crystal(crystal.atomic_numbers[order], crystal.frac_coords[order], crystal.lattice, crystal.id)


def translated(crystal: Crystal, rng: Generator) -> Crystal:
    return Crystal(crystal.atomic_numbers, crystal.frac_coords + rng.random(3), crystal.lattice, crystal.id)


def unwrapped(crystal: Crystal, rng: Generator) -> Crystal:
    cells = rng.integers(-3, 4, crystal.frac_coords.shape)
    return Crystal(crystal.atomic_numbers, crystal.frac_coords + cells, crystal.lattice, crystal.id)


def wrapped(crystal: Crystal, rng: Generator) -> Crystal:
    return Crystal(crystal.atomic_numbers, crystal.frac_coords % 1.0, crystal.lattice, crystal.id)


def sheared(crystal: Crystal, rng: Generator) -> Crystal:
    """Another basis of the same lattice, left-handed half of the time."""
    basis = np.eye(3)
    for _ in range(3):
        i, j = rng.permutation(3)[:2]
        basis[i] += rng.choice([-1, 1]) * basis[j]
    return _in_basis(crystal, rng.choice([-1, 1]) * basis[rng.permutation(3)])


def niggli(crystal: Crystal, rng: Generator) -> Crystal:
    return Crystal.from_pymatgen(crystal.to_pymatgen().get_reduced_structure("niggli"), crystal.id)


def doubled(crystal: Crystal, rng: Generator) -> Crystal:
    """A supercell of two cells."""
    size = np.eye(3)
    axis = rng.integers(3)
    size[axis, axis] = 2
    twice = Crystal(
        np.tile(crystal.atomic_numbers, 2),
        np.concatenate([crystal.frac_coords, crystal.frac_coords + np.eye(3)[axis]]),
        crystal.lattice,
        crystal.id,
    )
    return _in_basis(twice, size)


def _in_basis(crystal: Crystal, basis: np.ndarray) -> Crystal:
    frac = crystal.frac_coords @ np.linalg.inv(basis)
    return Crystal(crystal.atomic_numbers, frac, basis @ crystal.lattice, crystal.id)


DISGUISES: dict[str, Callable[[Crystal, Generator], Crystal]] = {
    disguise.__name__: disguise
    for disguise in (rotated, permuted, translated, unwrapped, wrapped, sheared, niggli, doubled)
}
