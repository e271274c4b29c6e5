"""Distances between the distributions of a property in two sets of crystals."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def wasserstein(values: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """1-D Wasserstein distance W1 between two samples, in their unit (scipy's, as in the published protocol)."""
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(np.asarray(values, np.float64), np.asarray(reference, np.float64)))
