"""Basis functions against scipy, quadrature and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dpcdvae.nn.basis import (
    BesselRadialBasis,
    GaussianRadialBasis,
    SphericalBesselBasis,
    fourier_features,
    legendre_harmonics,
    polynomial_envelope,
    sinusoidal_embedding,
    spherical_bessel_zeros,
)
from tensors import default_dtype

CUTOFF, EXPONENT = 7.0, 5
NODES, WEIGHTS = np.polynomial.legendre.leggauss(200)
# Quadrature on [0, 1]
X, W = torch.tensor((NODES + 1) / 2), torch.tensor(WEIGHTS / 2)


def test_bessel_zeros_are_scipys() -> None:
    from scipy.optimize import brentq
    from scipy.special import spherical_jn

    zeros = spherical_bessel_zeros(7, 6)
    assert zeros.shape == (7, 6)
    for order, row in enumerate(zeros):
        grid = np.linspace(order + 0.5, 40, 2000)  # the first zero of j_l lies beyond l
        values = spherical_jn(order, grid)
        signs = np.flatnonzero(np.sign(values[1:]) != np.sign(values[:-1]))[:6]
        expected = [brentq(lambda x, n=order: spherical_jn(n, x), grid[k], grid[k + 1], xtol=1e-14) for k in signs]
        np.testing.assert_allclose(row, expected, rtol=1e-13)


def without_envelope(basis: torch.Tensor, x: torch.Tensor, dims: int) -> torch.Tensor:
    """Every function carries the factor u(x)/x, which is no part of the orthonormal set."""
    factor = polynomial_envelope(x, EXPONENT) / x
    return basis / factor.reshape(-1, *[1] * dims)


def test_spherical_bessel_functions_are_scipys() -> None:
    from scipy.special import spherical_jn

    distances = torch.linspace(0.4, 6.9, 60, dtype=torch.float64)
    x = distances / CUTOFF
    basis = without_envelope(SphericalBesselBasis(7, 6, CUTOFF, EXPONENT)(distances), x, 2)
    zeros = spherical_bessel_zeros(7, 6)
    for order in range(7):
        for n in range(6):
            norm = math.sqrt(2) / abs(spherical_jn(order + 1, zeros[order, n]))
            expected = norm * spherical_jn(order, zeros[order, n] * x.numpy())
            np.testing.assert_allclose(basis[:, order, n], expected, rtol=0, atol=1e-8)


def test_spherical_bessel_basis_is_orthonormal() -> None:
    """∫ f_ln f_lm x² dx = δ_nm on the ball of radius one."""
    keep = X > 0.02  # below, the functions of high order drown in rounding; of low order nothing is lost
    basis = without_envelope(SphericalBesselBasis(7, 6, CUTOFF, EXPONENT)(X * CUTOFF), X, 2)
    for order in range(7):
        chosen = keep if order > 2 else torch.ones_like(keep)
        functions, weight = basis[chosen, order], (W * X**2)[chosen]
        overlap = torch.einsum("xn,xm,x->nm", functions, functions, weight)
        torch.testing.assert_close(overlap, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-5)


def test_radial_bessel_functions_are_orthogonal_and_closed_form() -> None:
    """sin(nπx)/x, as published without the constant √(2/c): ∫ f_n f_m x² dx = δ_nm / 2."""
    with default_dtype(torch.float64):
        basis = BesselRadialBasis(6, CUTOFF, EXPONENT)(X * CUTOFF).detach()
    functions = without_envelope(basis, X, 1)
    overlap = torch.einsum("xn,xm,x->nm", functions / X[:, None], functions / X[:, None], W * X**2)
    torch.testing.assert_close(overlap, torch.eye(6, dtype=torch.float64) / 2, rtol=0, atol=1e-9)
    torch.testing.assert_close(functions[:, 2], torch.sin(3 * math.pi * X), rtol=0, atol=1e-6)


def test_gaussians_are_evenly_spaced() -> None:
    with default_dtype(torch.float64):
        basis = GaussianRadialBasis(8, CUTOFF, EXPONENT)
    centres = torch.linspace(0, CUTOFF, 8, dtype=torch.float64)
    gaussians = basis(centres[:-1]) / polynomial_envelope(centres[:-1] / CUTOFF, EXPONENT)[:, None]
    steps = (torch.arange(7)[:, None] - torch.arange(8)).double()
    torch.testing.assert_close(gaussians, torch.exp(-0.5 * steps**2))


@pytest.mark.parametrize("exponent", [2, 5, 6])
def test_envelope_ends_smoothly(exponent: int) -> None:
    """u(0) = 1; u, u', u'' vanish at 1 from inside (from outside all is zero)."""
    x = torch.tensor([1e-9, 1 - 1e-12], dtype=torch.float64, requires_grad=True)
    u = polynomial_envelope(x, exponent)
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    assert float(u[0].detach()) == pytest.approx(1)
    for end in (u[1], slope[1], curvature[1]):
        assert abs(float(end.detach())) < 1e-8
    beyond = polynomial_envelope(torch.linspace(1, 3, 9), exponent)
    assert beyond.eq(0).all()


def test_envelope_falls_from_one_to_zero() -> None:
    u = polynomial_envelope(torch.linspace(0, 1, 200, dtype=torch.float64), EXPONENT)
    assert (u.diff() <= 1e-12).all()
    assert float(u.min()) >= -1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["gaussian", "bessel", "spherical"])
def test_every_radial_basis_vanishes_at_the_cutoff(kind: str, dtype: torch.dtype) -> None:
    with default_dtype(dtype):
        basis = {
            "gaussian": lambda: GaussianRadialBasis(8, CUTOFF, EXPONENT),
            "bessel": lambda: BesselRadialBasis(6, CUTOFF, EXPONENT),
            "spherical": lambda: SphericalBesselBasis(7, 6, CUTOFF, EXPONENT),
        }[kind]()
    near, far = basis(torch.tensor([CUTOFF - 1e-3, CUTOFF + 1], dtype=dtype)).detach()
    assert near.dtype == dtype
    assert near.abs().max() < 1e-5
    assert far.eq(0).all()


def test_float32_is_as_good_as_its_input() -> None:
    distances = torch.linspace(0.7, 6.9, 100, dtype=torch.float64)
    basis = SphericalBesselBasis(7, 6, CUTOFF, EXPONENT)
    exact = basis(distances)
    torch.testing.assert_close(basis(distances.float()).double(), exact, rtol=1e-4, atol=1e-5)


def test_harmonics_are_those_of_scipy() -> None:
    from scipy.special import sph_harm_y

    angles = np.linspace(0, np.pi, 12).reshape(1, 3, 4)
    for count in (1, 2, 7):
        harmonics = legendre_harmonics(torch.tensor(np.cos(angles)), count)
        assert harmonics.shape == (1, 3, count, 4)
        for order in range(count):
            expected = sph_harm_y(order, 0, angles, 0.0).real
            np.testing.assert_allclose(harmonics[:, :, order], expected, atol=1e-12)


def test_harmonics_are_orthonormal_on_the_sphere() -> None:
    harmonics = legendre_harmonics(torch.tensor(NODES)[None, None], 7)[0, 0]
    overlap = 2 * math.pi * torch.einsum("lx,mx,x->lm", harmonics, harmonics, torch.tensor(WEIGHTS))
    torch.testing.assert_close(overlap, torch.eye(7, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fourier_features_have_period_one_and_no_other(dtype: torch.dtype) -> None:
    x = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    features = fourier_features(x, 0, 5)
    assert features.shape == (20, 36)
    tolerance = 1e-3 if dtype == torch.float32 else 1e-11
    for cells in ([1, 0, 0], [-2, 5, 17]):
        torch.testing.assert_close(fourier_features(x + torch.tensor(cells), 0, 5), features, rtol=0, atol=tolerance)
    assert (fourier_features(x + 0.5, 0, 5) - features).abs().amax(1).min() > 0.1
    torch.testing.assert_close(features.square().sum(1), torch.full((20,), 18.0, dtype=dtype))


def test_published_fourier_features_have_period_one_eighth() -> None:
    """n = 3..8: the crystal moved by an eighth of the cell looks the same; moved by a sixteenth it does not."""
    x = torch.rand(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    features = fourier_features(x, 3, 8)
    assert features.shape == (20, 36)
    torch.testing.assert_close(fourier_features(x + 1 / 8, 3, 8), features, rtol=0, atol=1e-10)
    assert (fourier_features(x + 1 / 16, 3, 8) - features).abs().amax(1).min() > 0.1
    torch.testing.assert_close(features[:, 0], torch.sin(2 * math.pi * 8 * x[:, 0]), rtol=0, atol=1e-10)


def test_time_embedding_differs_between_neighbouring_steps() -> None:
    steps = torch.arange(1, 1001, dtype=torch.float32)
    embedding = sinusoidal_embedding(steps, 128)
    assert embedding.shape == (1000, 128)
    assert embedding.diff(dim=0).norm(dim=1).min() > 1
    apart = torch.cdist(embedding, embedding) + 10 * torch.eye(1000)
    assert apart.min() > 1
    # The public code's t/T: neighbouring steps are nearly the same (one of its traps).
    assert sinusoidal_embedding(steps / 1000, 128).diff(dim=0).norm(dim=1).max() < 0.01


def test_time_embedding_closed_form() -> None:
    embedding = sinusoidal_embedding(torch.tensor([3.0], dtype=torch.float64), 6)[0]
    angles = [3.0, 3.0 / 100, 3.0 / 10_000]
    expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    assert embedding.tolist() == pytest.approx(expected)
