"""Lattice algebra on tensors: parameters, frames, wrapping. Rows of a lattice are its vectors (Å)."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from itertools import product
from typing import TypeVar

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., object])

# Far more than the reduction of any lattice needs whose volume is not 0 in floating-point numbers.
REDUCTION_PASSES = 100
# Images that could win only a tie, to this many cells, are not searched: none at all in a rectangular cell.
TIE = 1e-5
MIN_FACE_DISTANCE = 0.5
"""Å between opposite faces of a cell: the neighbour search needs about (cutoff / this distance)^3 images."""


def full_precision(function: Function) -> Function:
    """Keeps automatic mixed precision out: in half precision an atom 10 Å away is known to 0.04 Å."""

    @wraps(function)
    def inner(*args: object, **kwargs: object) -> object:
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            return function(*args, **kwargs)

    return inner  # type: ignore[return-value]  # of the same signature


def lattice_from_parameters(parameters: Tensor) -> Tensor:
    """Lattice in the standard orientation (c along z, a in the xz plane), as pymatgen builds it.

    Args:
        parameters: (..., 6), lengths in Å and angles in degrees.

    Returns:
        (..., 3, 3). Angles that close no cell give NaN.
    """
    a, b, c = parameters[..., :3].unbind(-1)
    angles = torch.deg2rad(parameters[..., 3:])
    cos_alpha, cos_beta, cos_gamma = torch.cos(angles).unbind(-1)
    sin_alpha, sin_beta, _ = torch.sin(angles).unbind(-1)
    cos_gamma_star = (cos_alpha * cos_beta - cos_gamma) / (sin_alpha * sin_beta)
    sin_gamma_star = torch.sqrt(1 - cos_gamma_star**2)
    zero = torch.zeros_like(a)
    return torch.stack(
        [
            torch.stack([a * sin_beta, zero, a * cos_beta], -1),
            torch.stack([-b * sin_alpha * cos_gamma_star, b * sin_alpha * sin_gamma_star, b * cos_alpha], -1),
            torch.stack([zero, zero, c], -1),
        ],
        -2,
    )


def parameters_from_lattice(lattice: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 6), lengths in Å and angles in degrees."""
    lengths = torch.linalg.vector_norm(lattice, dim=-1)
    unit = lattice / lengths[..., None]
    a, b, c = unit.unbind(-2)
    cosines = torch.stack([(b * c).sum(-1), (a * c).sum(-1), (a * b).sum(-1)], -1)
    return torch.cat([lengths, torch.rad2deg(torch.arccos(cosines.clamp(-1, 1)))], -1)


def volume(lattice: Tensor) -> Tensor:
    """(..., 3, 3) -> (...,) Å^3, never negative."""
    determinant: Tensor = torch.linalg.det(lattice)
    return determinant.abs()


def heights(lattice: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 3) Å: distances between opposite faces of the cell."""
    faces = torch.linalg.cross(lattice.roll(-1, -2), lattice.roll(-2, -2), dim=-1)
    areas: Tensor = torch.linalg.vector_norm(faces, dim=-1)
    return volume(lattice)[..., None] / areas


def wrap(frac_coords: Tensor) -> Tensor:
    """π(x) = x - floor(x), into [0, 1) (Eq. 3). Tiny negative numbers, which would round to 1, give 0."""
    wrapped = frac_coords - torch.floor(frac_coords)
    return torch.where(wrapped >= 1, torch.zeros_like(wrapped), wrapped)


@full_precision
def frac_to_cart(frac: Tensor, lattice: Tensor) -> Tensor:
    """(n, 3) fractional -> Å; ``lattice`` (n, 3, 3) is that of each atom's crystal."""
    return torch.einsum("ni,nij->nj", frac, lattice)


@full_precision
def cart_to_frac(cart: Tensor, lattice: Tensor) -> Tensor:
    """(n, 3) Å -> fractional; ``lattice`` (n, 3, 3) is that of each atom's crystal."""
    return torch.einsum("ni,nij->nj", cart.to(lattice.dtype), torch.linalg.inv(lattice))


@full_precision
def reduced_basis(lattice: Tensor) -> Tensor:
    """(..., 3, 3) -> short vectors of the same lattice, the shortest first.

    Size reduction with the vectors sorted by length, until nothing changes: every vector then leans by at most
    half of each shorter one (as Lenstra, Lenstra & Lovász 1982 mean it), whatever basis it was given.
    """
    for _ in range(REDUCTION_PASSES):
        order = torch.linalg.vector_norm(lattice, dim=-1).argsort(dim=-1, stable=True)
        a, b, c = lattice.gather(-2, order[..., None].expand_as(lattice)).unbind(-2)
        in_b = _lean(b, a)
        b = b - in_b.round() * a
        across = b - _lean(b, a) * a
        in_c = _lean(c, across)
        c = c - in_c.round() * b
        last = _lean(c, a)
        c = c - last.round() * a
        lattice = torch.stack([a, b, c], -2)
        if not bool(torch.stack([in_b, in_c, last]).round().any()):
            break
    return lattice


def _lean(vector: Tensor, on: Tensor) -> Tensor:
    """(..., 1) component of ``vector`` along ``on``, in units of the latter."""
    return (vector * on).sum(-1, keepdim=True) / on.square().sum(-1, keepdim=True)


def search_box(basis: Tensor, least: int = 0) -> list[int]:
    """How many cells (3) each way hold the shortest image of every displacement that is rounded to the nearest cell.

    A vector x that no lattice vector shortens has |x·b_i| <= b_i²/2 for every vector b_i of the basis, which
    bounds its fractional coordinates f = G⁻¹ (x·b_i), G the metric tensor: |f_k| <= Σ_i |G⁻¹_ki| G_ii / 2.

    Args:
        basis: (n, 3, 3) Å, reduced; the box serves all of them. least: cells each way at least.
    """
    metric = basis @ basis.mT
    bound = torch.linalg.inv(metric).abs() @ metric.diagonal(dim1=-2, dim2=-1)[..., None] / 2
    box: list[int] = (torch.ceil(bound.squeeze(-1) + 0.5 - TIE) - 1).long().amax(0).clamp(min=least).tolist()
    return box


@full_precision
def minimum_image(frac_delta: Tensor, lattice: Tensor) -> Tensor:
    """The shortest of all periodic images of each displacement, in any cell, however skewed.

    All images within the bounds of :func:`search_box` are searched, in a reduced basis, where they are few (27 or
    less, nearly always).

    Args:
        frac_delta: (n, 3) fractional; lattice: (n, 3, 3) Å, that of each one's crystal, not degenerate.

    Returns:
        (n, 3) Å, Cartesian. Of images of equal length, any.
    """
    basis = reduced_basis(lattice)
    frac = cart_to_frac(frac_to_cart(frac_delta - frac_delta.round(), lattice), basis)
    cart = frac_to_cart(frac - frac.round(), basis)
    box = search_box(basis)
    if not any(box):
        return cart
    images = torch.tensor(list(product(*(range(-b, b + 1) for b in box)))).to(basis)
    candidates = cart[:, None] + images @ basis
    shortest = candidates.square().sum(-1).argmin(-1)
    return candidates[torch.arange(len(cart), device=cart.device), shortest]
