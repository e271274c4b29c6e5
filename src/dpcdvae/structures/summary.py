"""The statistics that stand for a set of crystals where the crystals themselves do not travel along."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError
from dpcdvae.intervals import LARGEST
from dpcdvae.structures.crystal import Crystal

Array = npt.NDArray[np.float64]

NUM_LEVELS = 1001

MOST_CRYSTALS = 10**8
"""Behind statistics: their densities take 0.8 GB."""


@dataclass(frozen=True)
class ReferenceStatistics:
    """What is left of a data set in a model card: enough for the distributions, too little to copy a crystal.

    Attributes:
        source: name of the data set and split, e.g. ``perov_5:train``.
        sha256: hash of the file it came from.
        count: number of crystals.
        density_quantiles: g/cm^3 at min(count, 1001) equally spaced levels from 0 to 1, ends included.
        num_elements: number of elements -> number of crystals.
        num_atoms: number of atoms in the cell -> number of crystals.
    """

    source: str
    sha256: str
    count: int
    density_quantiles: tuple[float, ...]
    num_elements: Mapping[int, int]
    num_atoms: Mapping[int, int]

    @classmethod
    def from_crystals(cls, crystals: Iterable[Crystal], *, source: str, sha256: str) -> ReferenceStatistics:
        """Raises InputError when there are no crystals, or one without a density."""
        crystals = list(crystals)
        densities = np.array([crystal.density for crystal in crystals])
        if len(crystals) == 0 or not np.isfinite(densities).all():
            raise InputError(f"no statistics of {source}: it has no crystals, or one whose density is not finite")
        levels = np.linspace(0.0, 1.0, min(len(crystals), NUM_LEVELS))
        return cls(
            source=source,
            sha256=sha256,
            count=len(crystals),
            # Seven digits are far below what the interpolation between the levels loses.
            density_quantiles=tuple(float(f"{q:.7g}") for q in np.quantile(densities, levels)),
            num_elements=_histogram(element_counts(crystals)),
            num_atoms=_histogram([crystal.num_atoms for crystal in crystals]),
        )

    @property
    def densities(self) -> Array:
        """(count,) g/cm^3, sorted: the quantile function read at as many levels as there were crystals.

        Exact (to seven digits) for up to 1001 crystals; beyond, each value lies between the two
        stored quantiles around it, so the Wasserstein distance to the true set is at most
        (maximum - minimum) / 1000.
        """
        levels = np.linspace(0.0, 1.0, self.count)
        return np.interp(levels, np.linspace(0.0, 1.0, len(self.density_quantiles)), self.density_quantiles)

    @property
    def element_counts(self) -> Array:
        """(count,) exact."""
        return np.repeat(
            np.fromiter(self.num_elements.keys(), np.float64), np.fromiter(self.num_elements.values(), np.int64)
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> ReferenceStatistics:
        """Raises InputError when ``value`` is not what :meth:`to_json` gives."""
        try:
            statistics = cls(
                source=str(value["source"]),
                sha256=str(value["sha256"]),
                count=int(value["count"]),
                density_quantiles=tuple(float(q) for q in value["density_quantiles"]),
                num_elements={int(k): int(n) for k, n in value["num_elements"].items()},
                num_atoms={int(k): int(n) for k, n in value["num_atoms"].items()},
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise InputError(f"these are not statistics of a data set ({type(error).__name__}: {error})") from error
        quantiles = np.array(statistics.density_quantiles)
        if (
            statistics.count < 1
            or len(quantiles) != min(statistics.count, NUM_LEVELS)
            or statistics.count > MOST_CRYSTALS
            or not ((quantiles >= 0) & (quantiles <= LARGEST)).all()
            or min(statistics.num_elements.values(), default=0) < 0
            or sum(statistics.num_elements.values()) != statistics.count
        ):
            raise InputError("these are not statistics of a data set (count, quantiles and histograms do not agree)")
        return statistics


def _histogram(values: Iterable[float]) -> dict[int, int]:
    return {int(k): n for k, n in sorted(Counter(values).items())}


def element_counts(crystals: Iterable[Crystal]) -> Array:
    """(n,) number of different elements of each crystal."""
    return np.array([len(np.unique(crystal.atomic_numbers)) for crystal in crystals], dtype=np.float64)
