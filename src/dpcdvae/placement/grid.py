"""Where the next atom goes: the points of a grid around the focus, weighed by the predicted distances.

A point's log-probability is the sum of those of its distances to all nodes in place, divided by the temperature
(Gebauer et al. 2019). Points are searched twice: on a coarse grid of the shell around the focus, then
on a fine one about the point that was drawn. Between the centres of two bins the log-probability is interpolated.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from dpcdvae.placement.geometry import Space

UNLIKELY = 1e-3  # probability of a distance from the focus on either side of the shell that is searched
MAX_POINTS = 30_000  # of a coarse grid; in a larger shell both grids are wider by one factor
MAX_NUMBERS = 6_000_000  # held in memory at once


class Surroundings(NamedTuple):
    """What A next atoms find in place, m nodes each.

    Attributes:
        space: of the A crystals; focus: (A, 3) Å; inner, outer: (A,) Å, radii of the shell around the focus.
        nodes: (A, m, 3) Å; real: (A, m) which there are; closest: (A, m) Å, nearer than which no atom may lie.
        log_prob: (A, m, images, bins) of the distances; bin_width: Å.
    """

    space: Space
    focus: Tensor
    inner: Tensor
    outer: Tensor
    nodes: Tensor
    real: Tensor
    closest: Tensor
    log_prob: Tensor
    bin_width: float

    def select(self, some: Tensor) -> Surroundings:
        fields = (value[some] if isinstance(value, Tensor) else value for value in self)
        return Surroundings(*fields)._replace(space=self.space.select(some))  # type: ignore[arg-type]

    def scores(self, points: Tensor) -> Tensor:
        """(A, G) log-probability of points (A, G, 3) Å; -inf where an atom is too close."""
        images = self.log_prob.shape[2]
        distances = self.space.distances(points[:, :, None] - self.nodes[:, None], images)  # (A, G, m, images)
        too_close = ((distances[..., 0] < self.closest[:, None]) & self.real[:, None]).any(-1)
        bins = self.log_prob.shape[-1]
        place = (distances / self.bin_width - 0.5).clamp_(0, bins - 1)
        low = place.floor().clamp_(max=bins - 2)
        part = place - low
        rows = torch.arange(self.log_prob[..., 0].numel(), device=place.device).view(self.log_prob.shape[:3])
        index = (low.long() + (rows * bins)[:, None]).flatten()
        flat = self.log_prob.flatten()
        below, above = flat.index_select(0, index).view_as(place), flat.index_select(0, index + 1).view_as(place)
        total = (torch.lerp(below, above, part) * self.real[:, None, :, None]).sum((-1, -2))
        return total.masked_fill(too_close, -torch.inf)


def choose_place(around: Surroundings, spacing: float, fine: float, temperature: float, uniform: Tensor) -> Tensor:
    """Positions (A, 3) Å of the next atoms, NaN where every point is too close to an atom.

    Args:
        spacing: Å of the grid; fine: Å of the second grid, 0 for none.
        uniform: (A, 2) in (0, 1), chooses the points.
    """
    volume = (around.outer**3 - around.inner**3) * (4 * math.pi / 3)
    spacings = (volume / MAX_POINTS).pow(1 / 3).clamp(min=spacing)
    inner, outer = around.inner / spacings, around.outer / spacings
    ball, radii = _ball(math.ceil(float(outer.max())))
    ball, radii = ball.to(around.focus), radii.to(around.focus)
    start, stop = torch.searchsorted(radii, inner), torch.searchsorted(radii, outer)
    counts = (stop - start).clamp(min=1)
    drawn = torch.full_like(around.focus, torch.nan)
    order = counts.argsort(stable=True)  # crystals of grids of like size together
    each = around.nodes.shape[1] * max(around.space.width, 3 * around.log_prob.shape[2])
    for some in _chunks(counts[order].tolist(), each):
        rows = order[some]
        part = around.select(rows)
        column = torch.arange(int(counts[rows].max()), device=rows.device)
        points = ball[(start[rows, None] + column).clamp(max=len(ball) - 1)] * spacings[rows, None, None]
        points += part.focus[:, None]
        scores = _in_parts(part, points, each).masked_fill(column >= (stop - start)[rows, None], -torch.inf)
        drawn[rows] = _draw(points, scores, temperature, uniform[rows, 0])
    if fine:
        half = math.ceil(spacing / fine)
        offsets = torch.arange(-half, half + 1, device=drawn.device) * fine
        cube = torch.cartesian_prod(offsets, offsets, offsets).to(drawn)
        there = drawn.isfinite().all(1).nonzero().squeeze(1)
        for some in _chunks([len(cube)] * len(there), each):
            rows = there[some]
            points = drawn[rows, None] + cube * (spacings[rows, None, None] / spacing)
            drawn[rows] = _draw(points, around.select(rows).scores(points), temperature, uniform[rows, 1])
    return drawn


def shell(log_prob: Tensor, bin_width: float, inner: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
    """Radii (A,) Å of the shell around the focus that is searched: where its distances (A, bins) are likely at all.

    Only within ``inner`` and ``outer`` (A,) Å; all between them, where the likely distances lie outside.
    """
    share = torch.softmax(log_prob, -1).cumsum(-1)
    lowest = ((share < UNLIKELY).sum(-1) - 1) * bin_width
    highest = ((share < 1 - UNLIKELY).sum(-1) + 2) * bin_width
    low, high = torch.maximum(lowest, inner), torch.minimum(highest, outer)
    return torch.where(low < high, low, inner), torch.where(low < high, high, outer)


def _in_parts(around: Surroundings, points: Tensor, each: int) -> Tensor:
    """Scores of points (A, G, 3), of so few at a time that they fit in memory."""
    step = max(1, MAX_NUMBERS // (each * len(points)))
    return torch.cat([around.scores(some) for some in points.split(step, 1)], 1)


def _draw(points: Tensor, scores: Tensor, temperature: float, uniform: Tensor) -> Tensor:
    """One of the points (A, G, 3) for each row, NaN where all scores are -inf."""
    best = scores.amax(1, keepdim=True)
    weights = torch.exp((scores - best.clamp(min=-1e30)).double() / temperature)
    mass = weights.cumsum(1)
    chosen = torch.searchsorted(mass, (uniform.double() * mass[:, -1])[:, None], right=True).clamp(
        max=scores.shape[1] - 1
    )
    place = points.gather(1, chosen[..., None].expand(-1, -1, 3)).squeeze(1)
    return place.masked_fill(~best.isfinite(), torch.nan)


def _chunks(counts: list[int], each: int) -> list[Tensor]:
    """Rows in turn, together as long as their padded points fit in memory; ``counts`` ascend."""
    chunks, begin = [], 0
    for row, count in enumerate(counts):
        if row > begin and (row + 1 - begin) * count * each > MAX_NUMBERS:
            chunks.append(torch.arange(begin, row))
            begin = row
    return [*chunks, torch.arange(begin, len(counts))] if counts else []


@lru_cache(maxsize=4)
def _ball(radius: int) -> tuple[Tensor, Tensor]:
    """Whole numbers (G, 3) within a radius of zero, and their distances (G,) from it, which ascend."""
    line = torch.arange(-radius, radius + 1, dtype=torch.get_default_dtype())
    points = torch.cartesian_prod(line, line, line)
    lengths = torch.linalg.vector_norm(points, dim=-1)
    points, lengths = points[lengths <= radius], lengths[lengths <= radius]
    order = lengths.argsort(stable=True)
    return points[order], lengths[order]
