"""Tables of element properties that the published protocol uses, frozen in files that name their source."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt


@cache
def table(name: str) -> dict[str, npt.NDArray[np.float64]]:
    """The rows of ``data/NAME.json`` by name; NaN where the file has null. Not to be written to."""
    return {key: np.array(row, np.float64) for key, row in _content(name)["values"].items()}


def _content(name: str) -> Any:
    return json.loads(files("dpcdvae.structures").joinpath("data", f"{name}.json").read_text(encoding="utf-8"))


def by_atomic_number(name: str, row: str) -> npt.NDArray[np.float64]:
    """(119,) a row of 118 elements, indexed by atomic number; NaN for number 0."""
    return np.concatenate([[np.nan], table(name)[row]])


def covalent_radii() -> npt.NDArray[np.float64]:
    """(119,) Å by atomic number (Cordero et al., Dalton Trans. 2008, 2832), NaN beyond Cm.

    As in pymatgen: carbon as in sp2 bonds, Mn, Fe and Co between low and high spin.
    """
    return by_atomic_number("crystal_nn", "covalent_radius")


@cache
def cgcnn_vectors() -> npt.NDArray[np.float64]:
    """(101, 92) CGCNN's vectors of zeros and ones (``data/cgcnn_elements.json``) by atomic number; zeros for 0."""
    content = _content("cgcnn_elements")
    vectors = np.zeros((len(content["ones"]) + 1, content["width"]))
    for number, ones in content["ones"].items():
        vectors[int(number), ones] = 1
    return vectors
