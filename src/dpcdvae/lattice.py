"""Lattice algebra on tensors: parameters, frames, wrapping. Rows of a lattice are its vectors (Å)."""

from __future__ import annotations

import torch
from torch import Tensor


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
    return torch.linalg.det(lattice).abs()


def heights(lattice: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 3) Å: distances between opposite faces of the cell."""
    faces = torch.linalg.cross(lattice.roll(-1, -2), lattice.roll(-2, -2), dim=-1)
    return volume(lattice)[..., None] / torch.linalg.vector_norm(faces, dim=-1)


def wrap(frac_coords: Tensor) -> Tensor:
    """π(x) = x - floor(x), into [0, 1) (Eq. 3). Tiny negative numbers, which would round to 1, give 0."""
    wrapped = frac_coords - torch.floor(frac_coords)
    return torch.where(wrapped >= 1, torch.zeros_like(wrapped), wrapped)


def frac_to_cart(frac: Tensor, lattice: Tensor) -> Tensor:
    """(n, 3) fractional -> Å; ``lattice`` (n, 3, 3) is that of each atom's crystal."""
    return torch.einsum("ni,nij->nj", frac, lattice)


def cart_to_frac(cart: Tensor, lattice: Tensor) -> Tensor:
    """(n, 3) Å -> fractional; ``lattice`` (n, 3, 3) is that of each atom's crystal."""
    return torch.einsum("ni,nij->nj", cart, torch.linalg.inv(lattice))
