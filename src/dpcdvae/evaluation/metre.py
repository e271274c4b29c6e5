"""METRe: how many crystals of a reference any of the generated ones matches, and how well.

Match Everyone To Reference (Martirossyan et al. 2025, "All that structure matches does not glitter"): a crystal of the
reference is found if a generated one of its composition matches it; cRMSE is the mean rms displacement of the best
matches over all of the reference, where a crystal that nothing matches counts with the site tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dpcdvae.parallel.results import Results
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.match_search import Found
from dpcdvae.structures.match_sets import match_sets
from dpcdvae.structures.tolerances import PUBLISHED


def match_reference(generated: Sequence[Crystal], reference: Sequence[Crystal], results: Results) -> Found:
    """For each crystal of the reference the generated one of the least rms displacement.

    The time limit is for all comparisons of one crystal.
    """
    return match_sets(generated, reference, results, nearest=True)


def corrected_rms(found: Found) -> npt.NDArray[np.float64]:
    """(n,) rms displacement of each crystal's match, the site tolerance where it has none."""
    return np.where(np.isfinite(found.rms), found.rms, PUBLISHED.stol)
