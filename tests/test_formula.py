"""Reduced formulas: those of pymatgen, one for every composition, the same for every cell."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.elements import SYMBOLS
from dpcdvae.structures.formula import reduced_formula


def pymatgens(counts: dict[str, int]) -> str:
    from pymatgen.core import Composition

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that noble gases have no electronegativity
        return Composition(counts).reduced_formula


@pytest.mark.parametrize(
    ("counts", "formula"),
    [
        ({"Cl": 4, "Na": 4}, "NaCl"),
        ({"O": 3, "Sr": 1, "Ti": 1}, "SrTiO3"),
        ({"H": 2, "O": 2, "Ca": 1}, "Ca(HO)2"),
        ({"O": 1}, "O2"),
        ({"Na": 2, "O": 2}, "Na2O2"),
        ({"Xe": 1, "F": 2}, "XeF2"),
        ({"Ne": 1, "F": 2}, "F2Ne"),
    ],
)
def test_formulas_known_by_heart(counts: dict[str, int], formula: str) -> None:
    assert reduced_formula(counts) == formula


def test_formulas_are_those_of_pymatgen_for_all_elements_and_random_compositions() -> None:
    rng = np.random.default_rng(0)
    compositions = [{symbol: n} for symbol in SYMBOLS[1:] for n in (1, 2, 3)]
    compositions += [{symbol: n, "O": m} for symbol in SYMBOLS[1:] if symbol != "O" for n, m in ((1, 1), (2, 6))]
    for _ in range(3000):
        symbols = rng.choice(SYMBOLS[1:], size=rng.integers(2, 6), replace=False).tolist()
        compositions.append({symbol: int(rng.integers(1, 7)) for symbol in symbols})
    assert [reduced_formula(c) for c in compositions] == [pymatgens(c) for c in compositions]
    reduced = {tuple(sorted((s, n // np.gcd.reduce(list(c.values()))) for s, n in c.items())) for c in compositions}
    assert len({reduced_formula(c) for c in compositions}) == len(reduced)  # it stands for the composition


def test_the_formula_does_not_depend_on_the_cell_or_the_order_of_atoms() -> None:
    numbers = np.array([8, 38, 8, 22, 8])
    cell = Crystal(numbers, np.random.default_rng(0).random((5, 3)), np.eye(3) * 4)
    double = Crystal(np.tile(numbers[::-1], 2), np.zeros((10, 3)), np.diag([8.0, 4.0, 4.0]))
    assert cell.formula == double.formula == "SrTiO3"
