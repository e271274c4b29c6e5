"""What decoding may choose: numbers of atoms and types that are allowed, and types that together keep a condition.

Forbidden types are masked in the composition and in the types after every step. What all atoms must keep together,
every element of a chemical system or balanced charges, changes as few and as cheap types as it can, where the cost of
a change is the difference of the denoiser's logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dpcdvae.model.stats import Statistics
from dpcdvae.sampling.atom_conditions import AtomConditions
from dpcdvae.structures.elements import NUM_ELEMENTS

CHANGES = 48
"""The cheapest changes of one atom that balanced charges are looked for among, alone and in pairs."""

Costs = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DecodingConstraints:
    """What a crystal VAE may choose while it decodes: :class:`AtomConditions` without formulas, which fix everything.

    Attributes:
        sizes: numbers of atoms; all where empty. elements: atomic numbers; all where empty.
        every_element, neutral: as in :class:`AtomConditions`.
    """

    sizes: tuple[int, ...] = ()
    elements: tuple[int, ...] = ()
    every_element: bool = False
    neutral: bool = False

    @classmethod
    def of(cls, conditions: AtomConditions) -> DecodingConstraints:
        if conditions.formulas:
            return cls()
        return cls(conditions.sizes, conditions.elements, conditions.every_element, conditions.neutral)

    def sized(self, logits: Tensor) -> Tensor:
        """Logits (..., max_atoms + 1) of the numbers of atoms, -inf for those that are not allowed."""
        least = len(self.elements) if self.every_element else 1
        sizes = [size for size in self.sizes or range(1, logits.shape[-1]) if least <= size < logits.shape[-1]]
        return _only(logits, sizes)

    def masked(self, logits: Tensor) -> Tensor:
        """Logits (..., 100) of the elements, -inf for those that are not allowed."""
        return _only(logits, [number - 1 for number in self.elements]) if self.elements else logits

    def log_likelihood(self, decoded: Statistics) -> Tensor:
        """(...) log probability that a crystal is as allowed, by what was decoded from its z.

        Atoms are taken as independent, and so are the elements that must all occur among the allowed ones.
        """
        sizes = decoded.num_atoms.log_softmax(-1)
        chosen = self.sized(sizes)
        total = chosen.logsumexp(-1) if self.sizes else torch.zeros_like(chosen[..., 0])
        if self.elements:
            num_atoms = chosen.argmax(-1)
            masked = self.masked(decoded.composition.log_softmax(-1))
            total = total + num_atoms * masked.logsumexp(-1)
            if self.every_element:
                shares = masked.softmax(-1)[..., [number - 1 for number in self.elements]]
                tiny = torch.finfo(shares.dtype).tiny
                occurs = -torch.expm1(num_atoms[..., None] * torch.log1p(-shares.clamp(max=1 - 1e-6)))
                total = total + occurs.clamp(min=tiny).log().sum(-1)
        return total

    def together(self, types: Tensor, logits: Tensor, num_atoms: Tensor) -> Tensor:
        """Types (N,) changed, crystal by crystal, so that they keep what all atoms must keep together.

        For a chemical system they are the likeliest types in which every element occurs. For balanced charges they are
        the likeliest that differ in one or two atoms, among the ``CHANGES`` cheapest changes; where there are none, the
        types are left as they are.

        Args:
            types: each atom's likeliest allowed type; logits: (N, 100), masked; num_atoms: (C,).
        """
        if not (self.every_element or self.neutral):
            return types
        found = types.cpu().numpy().copy()
        ends = np.cumsum(num_atoms.cpu().numpy())
        values = logits.double().cpu().numpy()
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            atoms, scores = found[start:end], values[start:end]
            if not np.isfinite(scores.max(axis=1)).all():
                continue  # the crystal diverged
            if self.every_element:
                atoms[:] = _with_every_element(atoms, scores, self.elements)
            if self.neutral:
                atoms[:] = _nearest(atoms, scores, self._problem)
        return torch.from_numpy(found).to(types)

    def _problem(self, numbers: list[int]) -> bool:
        return AtomConditions((), (), self.elements, self.every_element, self.neutral).problem(numbers) is not None


UNCONSTRAINED = DecodingConstraints()


def _only(logits: Tensor, places: list[int]) -> Tensor:
    mask = torch.ones(logits.shape[-1], dtype=torch.bool, device=logits.device)
    mask[places] = False
    return logits.masked_fill(mask, -math.inf)


def _with_every_element(
    types: npt.NDArray[np.int64], scores: Costs, elements: tuple[int, ...]
) -> npt.NDArray[np.int64]:
    """The types (n,) of the highest total score in which every element occurs.

    Some atom stands for each element, and the others have their own likeliest type: which atoms lose least by that is
    a problem of assignment.
    """
    if set(elements) <= set(types.tolist()):
        return types
    from scipy.optimize import linear_sum_assignment

    places = np.array(elements) - 1
    loss = scores.max(axis=1, keepdims=True) - scores[:, places]
    atoms, which = linear_sum_assignment(np.minimum(loss, 1e9))  # it takes no inf
    changed = types.copy()
    changed[atoms] = places[which] + 1
    return changed


def _nearest(
    types: npt.NDArray[np.int64], scores: Costs, problem: Callable[[list[int]], bool]
) -> npt.NDArray[np.int64]:
    """The likeliest types without a problem that differ in at most two atoms; the types themselves where none are."""
    if not problem(types.tolist()):
        return types
    cost = scores[np.arange(len(types)), types - 1][:, None] - scores
    cost[np.arange(len(types)), types - 1] = np.inf
    cheapest = np.argsort(cost, axis=None, kind="stable")[:CHANGES]
    single = [(float(cost.flat[k]), (divmod(int(k), NUM_ELEMENTS),)) for k in cheapest if np.isfinite(cost.flat[k])]
    pairs = [(a + b, (*first, *second)) for (a, first), (b, second) in combinations(single, 2)]
    for _, changes in sorted([*single, *pairs], key=lambda entry: entry[0]):
        if len({atom for atom, _ in changes}) == len(changes):
            changed = types.copy()
            for atom, place in changes:
                changed[atom] = place + 1
            if not problem(changed.tolist()):
                return changed
    return types
