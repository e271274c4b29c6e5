"""Local structure order parameters: how much the neighbours of an atom look like a known motif.

The definitions are those of Zimmermann and Jain, RSC Adv. 10, 6063 (2020), doi:10.1039/c9ra07755c, with
the parameters of pymatgen's ``LocalStructOrderParams`` in the selection of matminer's
``CrystalNNFingerprint`` (preset "ops"). There a loop in Python runs over all triples of neighbours; here
the triples of many atoms are one array.

Each neighbour j in turn is put to the north pole, each other one k on the prime meridian, and the rest
are described by their polar angle theta and azimuth phi. The score of a view (j, k) is a mean of terms between
0 and 1, that of the motif is the best over all views.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Score = Callable[["Views"], Floats]

ON_AXIS = 1e-12
"""A neighbour closer to the polar axis than this (of the unit length) has no azimuth."""

SOUTH = 2.356194490192345
"""Radians. The motifs with a neighbour at the south pole look for it from here on."""


@dataclass(frozen=True)
class Views:
    """The angles of ``units`` (b, n, 3), unit vectors from each of b atoms to its n neighbours.

    Indices are (b, j, k) and (b, j, k, m): j the north pole, k the prime meridian, m another neighbour.
    """

    units: Floats

    @property
    def count(self) -> int:
        return int(self.units.shape[1])

    @cached_property
    def cos_theta(self) -> Floats:
        """(b, n, n)"""
        cosine: Floats = np.clip(np.einsum("bjx,bkx->bjk", self.units, self.units), -1.0, 1.0)
        return cosine

    @cached_property
    def theta(self) -> Floats:
        """(b, n, n) polar angle of k from j, radians; 0 for k = j."""
        theta = np.arccos(self.cos_theta)
        diagonal = np.arange(self.count)
        theta[:, diagonal, diagonal] = 0.0
        return theta

    @cached_property
    def _azimuths(self) -> tuple[npt.NDArray[np.bool_], Floats]:
        across = self.units[:, None, :, :] - self.cos_theta[..., None] * self.units[:, :, None, :]
        lengths = np.sqrt(np.einsum("bjkx,bjkx->bjk", across, across))
        turned = (lengths >= ON_AXIS) & ~np.eye(self.count, dtype=bool)
        across = np.where(turned[..., None], across / np.where(turned, lengths, 1.0)[..., None], 0.0)
        return turned, np.clip(across @ across.swapaxes(-1, -2), -1.0, 1.0)

    @property
    def turned(self) -> npt.NDArray[np.bool_]:
        """(b, n, n) whether k lies off the axis of j and so has an azimuth."""
        return self._azimuths[0]

    @property
    def cos_phi(self) -> Floats:
        """(b, n, n, n) cosine of the azimuth of m from k."""
        return self._azimuths[1]

    @cached_property
    def others(self) -> npt.NDArray[np.bool_]:
        """(b, n, n, n) whether k and m both have an azimuth and are not the same."""
        return self.turned[..., None] & self.turned[:, :, None, :] & ~np.eye(self.count, dtype=bool)

    def best(self, total: Floats, number: Floats) -> Floats:
        """(b,) the best view of each atom; terms are never negative, and a view without any scores 0."""
        mean = np.where(number > 0, total / np.maximum(number, 1e-300), 0.0)
        best: Floats = (mean * ~np.eye(self.count, dtype=bool)).max(axis=(1, 2))
        return best


def _bell(x: Floats) -> Floats:
    bell: Floats = np.exp(-0.5 * x * x)
    return bell


def _cos_multiple(cosine: Floats, multiple: int) -> Floats:
    """cos(multiple * phi) from cos(phi): the Chebyshev polynomial."""
    before, value = np.ones_like(cosine), cosine
    for _ in range(multiple - 1):
        before, value = value, 2 * cosine * value - before
    return value


def _bell_at(width: float, target: float) -> Callable[[Floats], Floats]:
    """A bell over theta; ``target`` and the inverse ``width`` in units of 180 degrees."""
    return lambda theta: _bell(width * (theta / np.pi - target))


def _pentagon(theta: Floats) -> Floats:
    return _bell(19.333 * (theta / np.pi - np.where(theta <= 0.6 * np.pi, 0.4, 0.8)))


def _hexagon(theta: Floats) -> Floats:
    return _bell(25 * (np.abs(theta / np.pi - 0.5) - 0.16666667))


def _bent(width: float, target: float) -> Score:
    """Mean over the angles between two neighbours."""

    def score(views: Views) -> Floats:
        n = views.count
        terms = _bell_at(width, target)(views.theta) * ~np.eye(n, dtype=bool)
        mean: Floats = terms.sum(axis=(1, 2)) / (n * (n - 1))
        return mean

    return score


def _motif(
    polar: Callable[[Floats], Floats],
    folds: int,
    *,
    south: float = np.inf,
    south_width: float = 0.0,
    azimuth_below: float = np.inf,
) -> Score:
    """A motif of one pole, or of two if there is a ``south`` (radians) from which on a neighbour lies there.

    Args:
        polar: term of the polar angle for neighbours that are not at the south pole.
        folds: the term of the azimuth is cos^2(folds / 2 * phi).
        south_width: inverse width of the bell at the south pole, in units of 180 degrees.
        azimuth_below: neighbours of larger azimuth (radians) do not count.
    """

    def score(views: Views) -> Floats:
        around = views.theta < south
        terms = polar(views.theta) * around
        azimuth = 0.5 + 0.5 * _cos_multiple(views.cos_phi, folds)
        counted = views.others & around[..., None] & around[:, :, None, :]
        if azimuth_below < np.inf:
            counted &= np.arccos(views.cos_phi) < azimuth_below
        total = terms + np.einsum("bjkm,bjm->bjk", azimuth * counted, terms)
        number = around + counted.sum(axis=3, dtype=np.float64)
        if south < np.inf:
            below = ~around
            tail = _bell(south_width * (views.theta / np.pi - 1.0)) * below
            total += views.turned * (tail.sum(axis=2, keepdims=True) - tail)
            number += views.turned * (below.sum(axis=2, keepdims=True) - below.astype(np.float64))
        return views.best(total, number)

    return score


def body_centred_pairs(views: Views) -> Floats:
    """(b, n, n) terms of the views (j, k) in the body-centred cubic score; those with j < k are summed.

    (Peters, J. Chem. Phys. 131, 244103 (2009).) The terms of (j, k) and (k, j) differ, so the score depends on
    the order of the neighbours.
    """
    theta = views.theta
    opposite = theta >= 2.5261129449194057
    poles = 6 * _bell(15 * (theta / np.pi - 1.0)) * opposite
    tilt = (theta - np.pi / 2) / np.arcsin(1 / 3)
    terms = np.exp(0.5) * tilt * _bell(tilt)
    sign = np.where(theta > np.pi / 2, 1.0, -1.0) * ~opposite
    pairs: Floats = poles + sign * np.einsum("bjkm,bjm->bjk", _cos_multiple(views.cos_phi, 3) * views.others, terms)
    return pairs


def _body_centred_cubic(views: Views) -> Floats:
    n = views.count
    score: Floats = np.triu(body_centred_pairs(views), k=1).sum(axis=(1, 2)) / (0.5 * n * (6 + (n - 2) * (n - 3)))
    return score


def _cuboctahedron(views: Views) -> Floats:
    """Three rings of neighbours around the axis, at 60, 90 and 120 degrees, and one at the south pole."""
    low, high, south = 1.3089969389957472, 1.8325957145940461, 2.792526803190927
    theta, third = views.theta, 1 / 3
    middle = (low < theta) & (theta < high)
    ring = _bell(25.5 * (theta / np.pi - 0.5)) * middle
    upper, lower = theta < low, (theta > high) & (theta < south)
    caps = _bell(31.25 * (theta / np.pi - third)) * upper + _bell(31.25 * (theta / np.pi - 2 * third)) * lower
    counted = views.others & middle[..., None]
    cosine = views.cos_phi
    sine = np.sqrt(np.maximum(0.0, 1.0 - cosine**2))
    total = np.einsum("bjkm,bjm->bjk", cosine**2 * counted, ring)
    total += np.einsum("bjkm,bjm->bjk", _bell(0.0556 * (sine - 0.81649658)) * counted, caps)
    number = np.einsum("bjkm,bjm->bjk", counted.astype(np.float64), (middle | upper | lower).astype(np.float64))
    opposite = theta >= south
    total += 1.8 * _bell(28.75 * (theta / np.pi - 1.0)) * opposite
    return views.best(total, number + 1.8 * opposite)


def _steinhardt(degree: int) -> Score:
    """Bond-orientational order q_l (Steinhardt et al., Phys. Rev. B 28, 784 (1983)).

    By the addition theorem the sum over m of |mean Y_lm|^2 is a mean of P_l over all pairs.
    """

    coefficients = np.eye(degree + 1)[degree]

    def score(views: Views) -> Floats:
        values = np.polynomial.legendre.legval(views.cos_theta, coefficients)
        order: Floats = np.sqrt(np.maximum(0.0, values.mean(axis=(1, 2))))
        return order

    return score


def _single_bond(views: Views) -> Floats:
    return np.ones(len(views.units))


_TETRAHEDRON = 0.6081734479693927
_Q = {"q2": _steinhardt(2), "q4": _steinhardt(4), "q6": _steinhardt(6)}

MOTIFS: Mapping[int, Mapping[str, Score]] = {
    1: {"sgl_bd": _single_bond},
    2: {
        "L-shaped": _bent(15.15, 0.5),
        "water-like": _bent(13.95, 0.5802777777777778),
        "bent 120 degrees": _bent(13.25, 0.666666666667),
        "bent 150 degrees": _bent(12.45, 0.833333333333333),
        "linear": _bent(8.667, 1.0),
    },
    3: {
        "trigonal planar": _motif(_bell_at(17.5, 0.66666666667), 2),
        "trigonal non-coplanar": _motif(_bell_at(18.33, _TETRAHEDRON), 3),
        "T-shaped": _motif(_bell_at(15.5, 0.5), 2),
    },
    4: {
        "square co-planar": _motif(_bell_at(17.7, 0.5), 2, south=SOUTH, south_width=13.5),
        "tetrahedral": _motif(_bell_at(18.5, _TETRAHEDRON), 3),
        "rectangular see-saw-like": _motif(
            _bell_at(27.0, 0.5), 4, south=SOUTH, south_width=11.5, azimuth_below=0.75 * np.pi
        ),
        "see-saw-like": _motif(_bell_at(15.75, 0.5), 3, south=SOUTH, south_width=12.75),
        "trigonal pyramidal": _motif(_bell_at(15.5, 0.5), 3),
    },
    5: {
        "pentagonal planar": _motif(_pentagon, 2),
        "square pyramidal": _motif(_bell_at(14.9, 0.5), 4),
        "trigonal bipyramidal": _motif(_bell_at(16.6, 0.5), 3, south=SOUTH, south_width=12.0),
    },
    6: {
        "hexagonal planar": _motif(_hexagon, 2, south=2.6179938779914944, south_width=7.5),
        "octahedral": _motif(_bell_at(18.0, 0.5), 4, south=SOUTH, south_width=15.0),
        "pentagonal pyramidal": _motif(_bell_at(13.8, 0.5), 5),
    },
    7: {
        "hexagonal pyramidal": _motif(_bell_at(12.5, 0.5), 6),
        "pentagonal bipyramidal": _motif(_bell_at(14.75, 0.5), 5, south=SOUTH, south_width=12.5),
    },
    8: {
        "body-centered cubic": _body_centred_cubic,
        "hexagonal bipyramidal": _motif(_bell_at(13.6, 0.5), 6, south=SOUTH, south_width=14.1),
    },
    9: _Q,
    10: _Q,
    11: _Q,
    12: {"cuboctahedral": _cuboctahedron, **_Q},
}
"""The motifs of each coordination number, in the order of the fingerprint."""


def motif_scores(units: Floats) -> Floats:
    """(b, motifs) scores of b atoms with n neighbours each, for the motifs of coordination number n.

    Args:
        units: (b, n, 3) unit vectors to the neighbours, n one of the numbers in :data:`MOTIFS`.
    """
    views = Views(units)
    return np.stack([score(views) for score in MOTIFS[views.count].values()], axis=1)
