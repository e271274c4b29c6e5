"""The types of a crystal's atoms chosen together, so that their numbers agree with the composition decoded from z.

The denoiser judges each atom by itself, and may give a crystal one atom of an element too many; the composition knows
how many there should be, but not which atoms they are. Together: the types of the highest

    Σ_i log p_i(a_i) - Σ_e (n_e - N c_e)² / (2 s²),

with the denoiser's probabilities p, the number n_e of atoms of element e, the composition c and a spread of s atoms.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

LEAST_EXPECTED = 0.05
"""Elements of which so few atoms are expected are taken only where they are some atom's likeliest."""

Values = npt.NDArray[np.float64]


def types_with_counts(logits: Tensor, expected: Tensor, num_atoms: Tensor, spread: float) -> Tensor:
    """Atomic numbers (N,) of the highest joint score, crystal by crystal.

    A crystal whose logits are not finite gets each atom's likeliest type.

    Args:
        logits: (N, 100) of the denoiser; -inf where an element is not allowed.
        expected: (C, 100) atoms of each element by the composition; num_atoms: (C,).
        spread: s, in atoms, above 0.
    """
    found = (logits.argmax(-1) + 1).cpu().numpy()
    scores = logits.double().log_softmax(-1).cpu().numpy()
    ends = np.cumsum(num_atoms.cpu().numpy())
    for start, end, counts in zip([0, *ends[:-1]], ends, expected.double().cpu().numpy(), strict=True):
        own = scores[start:end]
        if np.isfinite(own.max(axis=1)).all():
            found[start:end] = _jointly(own, counts, spread)
    return torch.from_numpy(found).to(logits.device)


def _jointly(scores: Values, expected: Values, spread: float) -> npt.NDArray[np.int64]:
    """The types (n,) of one crystal, an assignment of its atoms to places.

    Element e has n places. The k-th costs what the sum of squares grows by from k - 1 atoms to k. That grows with k, so
    the best assignment fills the places of an element in their order.
    """
    from scipy.optimize import linear_sum_assignment

    atoms = len(scores)
    elements = np.union1d(np.flatnonzero(expected > LEAST_EXPECTED), scores.argmax(axis=1))
    places = np.arange(atoms)
    growth = (2 * (places - expected[elements][:, None]) + 1) / (2 * spread**2)  # (elements, atoms)
    cost = np.minimum(-scores[:, elements], 1e9)[:, :, None] + growth  # it takes no inf
    rows, columns = linear_sum_assignment(cost.reshape(atoms, -1))
    types = np.empty(atoms, np.int64)
    types[rows] = elements[columns // atoms] + 1
    return types
