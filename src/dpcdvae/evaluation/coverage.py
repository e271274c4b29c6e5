"""Coverage (COV-R, COV-P): how much of a reference is near a generated crystal, and the other way round.

The definition is CDVAE's (Xie et al., ICLR 2022). The distance of two structures is that of their fingerprints,
the distance of two compositions that of their standardised fingerprints. A crystal is covered if
the nearest structure and the nearest composition on the other side, which may be two different crystals,
both lie within the cut-offs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpcdvae.structures.fingerprints import Fingerprints
from dpcdvae.structures.fingerprints.magpie import standardise_compositions

Floats = npt.NDArray[np.float64]
Cutoffs = tuple[float, float]

DEFAULT_CUTOFFS: Cutoffs = (0.4, 10.0)
"""Of structure and composition, where a data set has none of its own: those of MP-20, the set of all kinds."""

_PAIRS = 2_000_000  # distances held at a time: 16 MB


@dataclass(frozen=True)
class Nearest:
    """For each crystal the distances to the nearest structure and the nearest composition of the other set.

    Attributes:
        structure: (n,) NaN for a crystal without fingerprint, infinite where the other set is empty.
        composition: (n,) standardised; likewise.
    """

    structure: Floats
    composition: Floats

    def covered(self, cutoffs: Cutoffs) -> npt.NDArray[np.bool_]:
        """(n,) a crystal without fingerprint is not covered."""
        return (self.structure <= cutoffs[0]) & (self.composition <= cutoffs[1])


@dataclass(frozen=True)
class Coverage:
    """Result of :func:`coverage`: ``recall`` looks from the reference, ``precision`` from the generated crystals."""

    recall: Nearest
    precision: Nearest


def coverage(generated: Fingerprints, reference: Fingerprints) -> Coverage:
    """Nearest distances between two sets, both ways, without ever holding all pairs."""
    ours, theirs = np.flatnonzero(generated.known), np.flatnonzero(reference.known)
    recall = Nearest(*np.full((2, len(reference.structure)), np.nan))
    precision = Nearest(*np.full((2, len(generated.structure)), np.nan))
    precision.structure[ours], recall.structure[theirs] = nearest(
        generated.structure[ours], reference.structure[theirs]
    )
    precision.composition[ours], recall.composition[theirs] = nearest(
        standardise_compositions(generated.composition[ours]), standardise_compositions(reference.composition[theirs])
    )
    return Coverage(recall, precision)


def nearest(rows: Floats, columns: Floats) -> tuple[Floats, Floats]:
    """Euclidean distance of each row of (n, d) to the nearest of (m, d), and the other way round: (n,), (m,).

    Equal rows are looked at once. Infinite where the other side is empty.
    """
    from scipy.spatial.distance import cdist

    rows, row_of = np.unique(rows, axis=0, return_inverse=True)
    columns, column_of = np.unique(columns, axis=0, return_inverse=True)
    of_rows, of_columns = np.full(len(rows), np.inf), np.full(len(columns), np.inf)
    size = max(1, _PAIRS // max(1, len(columns)))
    for start in range(0, len(rows) if len(columns) else 0, size):
        distances = cdist(rows[start : start + size], columns)
        of_rows[start : start + size] = distances.min(axis=1)
        np.minimum(of_columns, distances.min(axis=0), out=of_columns)
    return of_rows[row_of.ravel()], of_columns[column_of.ravel()]
