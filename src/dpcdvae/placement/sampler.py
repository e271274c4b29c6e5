"""Crystals placed atom by atom: types are drawn, then places on a grid, until every focus is given up.

What it asks for log-probabilities is a :class:`Predictor`, the model or, in a test, an oracle. Every random number is
counted (:class:`~dpcdvae.tensors.noise.CrystalRandom`): crystal k of a seed gets the same numbers in any batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dpcdvae.placement.geometry import Space
from dpcdvae.placement.grid import Surroundings, choose_place, shell
from dpcdvae.placement.growth import radii_of
from dpcdvae.placement.heads import STOP
from dpcdvae.tensors.noise import CrystalRandom

REASONS = (
    "",
    "stopped before the first atom",
    "unfinished at the largest number of atoms",
    "no place is left around the focus",
    "the prediction is no number",
)
"""Why a crystal was given up; the first is that of a complete one."""

_DONE, _EMPTY, _UNFINISHED, _NO_PLACE, _NO_NUMBER = range(len(REASONS))


class Partial(NamedTuple):
    """A crystals that are partly in place.

    Attributes:
        which: (A,) crystals of the batch.
        numbers: (A, n); positions: (A, n, 3) Å; placed: (A,) atoms in place, the first ones.
        space: of the A crystals; focus: (A,) node of the focus: 0 is the origin, k the k-th atom.
    """

    which: Tensor
    numbers: Tensor
    positions: Tensor
    placed: Tensor
    space: Space
    focus: Tensor


class Prediction(Protocol):
    """What is predicted of the next atom of A crystals."""

    types: Tensor
    """(A, 101) log-probabilities of the types, :data:`~dpcdvae.placement.heads.STOP` first."""

    def distances(self, some: Tensor, types: Tensor) -> Tensor:
        """(B, n + 1, images, bins) log-probabilities of the distances to all nodes, for the crystals ``some`` (B,) and
        the types (B,) of their next atoms."""


class Predictor(Protocol):
    """A model that predicts the next step."""

    @property
    def bin_width(self) -> float:
        """Å of the bins of the distances."""

    def predict(self, partial: Partial) -> Prediction: ...


@dataclass(frozen=True)
class Rules:
    """How atoms are placed.

    Attributes:
        max_atoms: atoms at most.
        inner, outer: radii of the shell around the focus, in sums of covalent radii; inner is also the least distance
            of any two atoms.
        spacing, fine: Å of the grids; temperature: of the places.
    """

    max_atoms: int
    inner: float
    outer: float
    spacing: float
    fine: float
    temperature: float


class Placed(NamedTuple):
    """C crystals. numbers: (C, n) and positions: (C, n, 3) Å, num_atoms: (C,), reason: (C,) index of ``REASONS``;
    steps: all that were made, each of one crystal."""

    numbers: Tensor
    positions: Tensor
    num_atoms: Tensor
    reason: Tensor
    steps: int


@torch.inference_mode()
def place_atoms(
    predictor: Predictor, space: Space, random: CrystalRandom, rules: Rules, contents: Tensor | None, like: Tensor
) -> Placed:
    """Places the atoms of C crystals.

    Args:
        contents: (C, 101) atoms of each atomic number that a crystal gets, exactly; None: the model decides.
        like: a tensor of the type and on the device of the positions, of C rows.
    """
    crystals, device = len(like), like.device
    numbers = torch.zeros((crystals, rules.max_atoms), dtype=torch.long, device=device)
    positions = like.new_zeros((crystals, rules.max_atoms, 3))
    placed, reason = numbers.new_zeros(crystals), numbers.new_zeros(crystals)
    given_up = torch.zeros((crystals, rules.max_atoms), dtype=torch.bool, device=device)
    left = None if contents is None else contents.clone()
    active, steps = torch.arange(crystals, device=device), 0
    for step in range(2 * rules.max_atoms):  # each of the atoms is placed and given up
        waiting = (torch.arange(rules.max_atoms, device=device) < placed[active, None]) & ~given_up[active]
        focus = torch.where(placed[active] > 0, waiting.int().argmax(1) + 1, 0)
        most = int(placed[active].max())
        partial = Partial(
            active, numbers[active, :most], positions[active, :most], placed[active], space.select(active), focus
        )
        prediction = predictor.predict(partial)
        steps += len(active)
        types, last = prediction.types, waiting.sum(1) <= 1
        if left is not None:
            # An element of which nothing is left is not placed, and the last focus is not given up.
            allowed = left[active] > 0
            allowed[:, STOP] = ~last
            types = types.masked_fill(~allowed, -torch.inf)
        drawn = random.select(active)
        chosen = _draw_class(types, drawn.uniform("type", 1, step))
        broken, stops = chosen < 0, chosen == STOP
        full = (chosen > 0) & (placed[active] == rules.max_atoms)
        reason[active[broken]], reason[active[full]] = _NO_NUMBER, _UNFINISHED
        reason[active[stops & (placed[active] == 0)]] = _EMPTY
        ending = (stops & (placed[active] > 0)).nonzero().squeeze(1)
        given_up[active[ending], focus[ending] - 1] = True

        going_on = ((chosen > 0) & ~full).nonzero().squeeze(1)
        rows, new = active[going_on], chosen[going_on]
        if len(rows):
            log_prob, noise = prediction.distances(going_on, new), drawn.select(going_on).uniform("place", 2, step)
            if step:
                around = _surroundings(partial, going_on, new, rules, log_prob, predictor.bin_width)
                place = choose_place(around, rules.spacing, rules.fine, rules.temperature, noise)
            else:
                place = _first_place(log_prob[:, 0, 0], predictor.bin_width, rules.temperature, noise, space)
            numbers[rows, placed[rows]], positions[rows, placed[rows]] = new, place.to(positions)
            placed[rows] += 1
            reason[rows[~place.isfinite().all(-1)]] = _NO_PLACE
            if left is not None:
                left[rows, new] -= 1
        complete = given_up[active].sum(1) == placed[active] if left is None else left[active].sum(1) == 0
        active = active[~complete & (reason[active] == _DONE)]
        if not len(active):
            break
    return Placed(numbers, positions, placed, reason, steps)


def _draw_class(log_prob: Tensor, uniform: Tensor) -> Tensor:
    """(A,) classes drawn with the numbers (A, 1) in (0, 1); -1 where the log-probabilities (A, 101) are no numbers."""
    mass = torch.exp(log_prob.double() - log_prob.double().amax(1, keepdim=True)).cumsum(1)
    chosen = torch.searchsorted(mass, uniform.to(mass) * mass[:, -1:], right=True).squeeze(1)
    return torch.where(mass[:, -1].isfinite(), chosen.clamp(max=mass.shape[1] - 1), -1)


def _surroundings(
    partial: Partial, some: Tensor, types: Tensor, rules: Rules, log_prob: Tensor, bin_width: float
) -> Surroundings:
    """What the next atoms, of ``types`` (B,), find in place in the crystals ``some`` (B,)."""
    nodes = torch.nn.functional.pad(partial.positions[some], (0, 0, 1, 0))
    numbers = torch.nn.functional.pad(partial.numbers[some], (1, 0))
    real = torch.arange(nodes.shape[1], device=nodes.device) <= partial.placed[some, None]
    radii = radii_of(numbers).nan_to_num(0.0).to(nodes)  # of the origin none
    own = radii_of(types).to(nodes)
    sums = torch.where(numbers > 0, radii + own[:, None], 0.0)
    rows = torch.arange(len(some), device=nodes.device)
    focus = partial.focus[some]
    inner, outer = shell(
        log_prob[rows, focus, 0], bin_width, sums[rows, focus] * rules.inner, sums[rows, focus] * rules.outer
    )
    return Surroundings(
        partial.space.select(some),
        nodes[rows, focus],
        inner,
        outer,
        nodes,
        real,
        sums * rules.inner,
        log_prob,
        bin_width,
    )


def _first_place(log_prob: Tensor, bin_width: float, temperature: float, uniform: Tensor, space: Space) -> Tensor:
    """Where the first atoms go: in a periodic crystal to the origin, else along x by the distance from it.

    ``log_prob`` (B, bins) is that of their distance from the origin.
    """
    place = log_prob.new_zeros((len(log_prob), 3))
    if space.lattice is None:
        bins = _draw_class(log_prob / temperature, uniform[:, :1])
        place[:, 0] = torch.where(bins < 0, torch.nan, (bins + 0.5) * bin_width)
    return place
