"""The types of a crystal's atoms chosen together, so that their numbers agree with the composition decoded from z.

The denoiser judges each atom by itself, and may give a crystal one atom of an element too many; the composition knows
how many there should be, but not which atoms they are. Together: the types of the highest

    Σ_i log p_i(a_i) - w Σ_e (n_e - N c_e)²,

with the denoiser's probabilities p, the number n_e of atoms of element e, the composition c and a weight w. Tried are
the elements of which the composition expects some, and each atom's likeliest.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

LEAST_SHARE = 0.0025
"""Elements of a smaller share of the composition (0.05 of 20 atoms) are taken where they are an atom's likeliest."""

MOST_ATOMS = 200
"""The assignment takes 35 ms here, and grows as the cube: in a larger crystal each atom has its own likeliest type."""

Values = npt.NDArray[np.float64]


def types_with_counts(logits: Tensor, expected: Tensor, num_atoms: Tensor, weight: float) -> Tensor:
    """Atomic numbers (N,) of the highest joint score, crystal by crystal.

    Each atom's likeliest in a crystal of more than ``MOST_ATOMS`` atoms, or whose logits or composition are not finite.

    Args:
        logits: (N, 100) of the denoiser; -inf where an element is not allowed.
        expected: (C, 100) atoms of each element by the composition; num_atoms: (C,).
        weight: w, up to 1e4.
    """
    found = (logits.argmax(-1) + 1).cpu().numpy()
    scores = logits.double().log_softmax(-1).cpu().numpy()
    ends = np.cumsum(num_atoms.cpu().numpy())
    for start, end, counts in zip([0, *ends[:-1]], ends, expected.double().cpu().numpy(), strict=True):
        own = scores[start:end]
        if end - start <= MOST_ATOMS and np.isfinite(own.max(axis=1)).all() and np.isfinite(counts).all():
            found[start:end] = _jointly(own, counts, weight)
    return torch.from_numpy(found).to(logits.device)


def _jointly(scores: Values, expected: Values, weight: float) -> npt.NDArray[np.int64]:
    """The types (n,) of one crystal, an assignment of its atoms to places.

    Element e has n places. The k-th costs what the sum of squares grows by from k - 1 atoms to k. That grows with k, so
    the best assignment fills the places of an element in their order.
    """
    from scipy.optimize import linear_sum_assignment

    atoms = len(scores)
    elements = np.union1d(np.flatnonzero(expected > LEAST_SHARE * atoms), scores.argmax(axis=1))
    places = np.arange(atoms)
    growth = weight * (2 * (places - expected[elements][:, None]) + 1)  # (elements, atoms)
    cost = np.minimum(-scores[:, elements], 1e9)[:, :, None] + growth  # it takes no inf
    rows, columns = linear_sum_assignment(cost.reshape(atoms, -1))
    types = np.empty(atoms, np.int64)
    types[rows] = elements[columns // atoms] + 1
    return types
