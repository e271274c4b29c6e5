"""The cells in which structures are compared: primitive, Niggli-reduced, each crystal's found once."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import reason_of
from dpcdvae.parallel.results import Kind, Result, Results
from dpcdvae.structures.content import content_hash, pymatgen_version
from dpcdvae.structures.crystal import Crystal

ALGORITHM = "1"
"""To be raised with every change of the cells."""


@dataclass(frozen=True)
class PrimitiveCells:
    """Result of :func:`primitive_cells`.

    Attributes:
        cells: one for each crystal, None where there is none.
        reasons: crystal -> why there is none, apart from crystals that are none (:meth:`Crystal.problem`).
    """

    cells: list[Crystal | None]
    reasons: dict[int, str]


def primitive_cells(crystals: Sequence[Crystal], results: Results) -> PrimitiveCells:
    """The cells in which pymatgen's StructureMatcher compares."""
    possible = [k for k, crystal in enumerate(crystals) if crystal.problem() is None]
    keys = [content_hash(crystals[k]) for k in possible]
    kind = Kind("primitive-cell", ALGORITHM, {"pymatgen": pymatgen_version()})
    vectors, reasons = results.compute(reduce, [crystals[k] for k in possible], keys, kind, "primitive cells")
    cells: list[Crystal | None] = [None] * len(crystals)
    for k, vector in zip(possible, vectors, strict=True):
        cells[k] = None if vector is None else _unpack(vector, crystals[k].id)
    return PrimitiveCells(cells, {possible[n]: reason for n, reason in reasons.items()})


def reduce(crystal: Crystal) -> Result:
    """The primitive cell as one vector: lattice, atomic numbers, coordinates; or the reason why there is none."""
    try:
        with quiet():
            structure = crystal.to_pymatgen()
            reduced = structure.get_reduced_structure(reduction_algo="niggli").get_primitive_structure()
        cell = Crystal.from_pymatgen(reduced)
    except Exception as error:  # pymatgen breaks in many ways on odd cells: counted, with the reason
        return reason_of(error)
    if (problem := cell.problem()) is not None:
        return f"reduced, {problem}"
    return np.concatenate([cell.lattice.ravel(), cell.atomic_numbers, cell.frac_coords.ravel()])


def _unpack(vector: npt.NDArray[np.float64], id: str) -> Crystal:
    n = (len(vector) - 9) // 4
    return Crystal(vector[9 : 9 + n].astype(np.int64), vector[9 + n :].reshape(n, 3), vector[:9].reshape(3, 3), id)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without pymatgen's warnings, which would come once for each odd crystal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
