"""Predicted energies of crystals, by a model that comes from outside: nothing here knows how it predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpcdvae.structures.crystal import Crystal


@dataclass(frozen=True)
class EnergyModel:
    """Predicts a property of crystals, in the published protocol their energy.

    Attributes:
        source: the model, for the report.
        property: name of what it predicts, for the report.
        predict: crystals -> (n,) values, NaN where it has no prediction, with the reasons by index.
    """

    source: str
    property: str
    predict: Callable[[Sequence[Crystal]], tuple[npt.NDArray[np.float64], dict[int, str]]]
