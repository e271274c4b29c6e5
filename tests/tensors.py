"""What the tests of the tensor code share: crystals of every awkward kind, and ways to describe one anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpcdvae.config import Config
from dpcdvae.diffusion.ddpm_solvers import DDPM_SOLVERS
from dpcdvae.interfaces import ReverseRun
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.model.stats import Statistics, StatisticsDecoder
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.table import CrystalTable
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.graph import PeriodicGraph

# Changes of basis: integer matrices of determinant ±1 turn lattice vectors into others of the same lattice.
UNIMODULAR = [
    np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]]),
    np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]]),
    np.array([[2, 1, 0], [1, 1, 0], [0, -1, 1]]),
    np.array([[-1, 0, 0], [0, 1, 0], [1, 0, 1]]),  # left-handed
]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Networks built inside have their parameters and buffers in ``dtype``."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def random_crystal(seed: int, num_atoms: int = 5, side: float = 4.0, elements: Sequence[int] = (6, 8, 22)) -> Crystal:
    """Triclinic, atoms anywhere."""
    rng = np.random.default_rng(seed)
    lattice = side * (np.eye(3) + 0.25 * rng.uniform(-1, 1, (3, 3)))
    return Crystal(rng.choice(elements, num_atoms), rng.random((num_atoms, 3)), lattice, f"random-{seed}")


def cubic(kind: str, a: float) -> Crystal:
    """Primitive cells of sc, bcc, fcc and diamond with cubic lattice constant ``a``."""
    half = a / 2
    lattice = {
        "sc": a * np.eye(3),
        "bcc": half * (np.ones((3, 3)) - 2 * np.eye(3)),
        "fcc": half * (np.ones((3, 3)) - np.eye(3)),
        "diamond": half * (np.ones((3, 3)) - np.eye(3)),
    }[kind]
    coords = np.array([[0.0] * 3, [0.25] * 3]) if kind == "diamond" else np.zeros((1, 3))
    return Crystal(np.full(len(coords), 6), coords, lattice, kind)


def awkward_crystals() -> list[Crystal]:
    """Cells that neighbour searches get wrong: skewed, tiny, flat, needle-like, left-handed, large, one atom."""
    rng = np.random.default_rng(7)

    def filled(lattice: np.ndarray, num_atoms: int, name: str) -> Crystal:
        return Crystal(rng.integers(1, 90, num_atoms), rng.random((num_atoms, 3)), np.asarray(lattice, float), name)

    return [
        random_crystal(1),
        filled([[4, 0, 0], [7, 3.5, 0], [-9, 5, 4]], 4, "skewed"),
        filled(1.5 * np.eye(3), 1, "tiny"),
        filled([[9, 0, 0], [0, 9, 0], [4, 4, 1.1]], 3, "sliver"),
        filled([[1.2, 0, 0], [0, 1.3, 0], [0.5, 0.4, 17]], 2, "needle"),
        filled([[4, 0.5, 0], [0, 5, 0], [0, 1, -4.5]], 5, "left-handed"),
        filled(16 * np.eye(3), 12, "large"),
        filled([[3, 0.2, 0], [0.3, 3.4, 0], [0, 0.1, 3.9]], 1, "one atom"),
        Crystal(np.array([6, 6]), np.array([[0.0, 0, 0], [1 / 3, 2 / 3, 0.5]]), _hexagonal(2.46, 6.7), "symmetric"),
    ]


def _hexagonal(a: float, c: float) -> np.ndarray:
    return np.array([[a, 0, 0], [-a / 2, a * np.sqrt(0.75), 0], [0, 0, c]])


def batch_of(crystals: Sequence[Crystal], dtype: torch.dtype = torch.float64, *, bonded: bool = False) -> CrystalBatch:
    return CrystalBatch.from_table(table_of(crystals, bonded=bonded), dtype=dtype)


def table_of(crystals: Sequence[Crystal], *, bonded: bool = False) -> CrystalTable:
    if not bonded:
        return CrystalTable.from_crystals(crystals)
    from dpcdvae.structures.bonds import crystal_nn_bonds

    return CrystalTable.from_crystals(crystals, [crystal_nn_bonds(crystal) for crystal in crystals])


def rotation(seed: int, *, mirror: bool = False) -> np.ndarray:
    """A random orthogonal matrix of determinant 1, or -1."""
    matrix, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    wanted = -1 if mirror else 1
    return matrix * np.array([1, 1, wanted * np.sign(np.linalg.det(matrix))])


def rebased(batch: CrystalBatch, basis: np.ndarray) -> CrystalBatch:
    """The same crystals described by other lattice vectors: L' = U L, so x' = x U^-1, and images likewise."""
    matrix = torch.tensor(basis).to(batch.lattice)
    inverse = torch.linalg.inv(matrix).round()
    images = batch.bond_images.to(inverse) @ inverse
    return batch.replace(
        lattice=matrix @ batch.lattice, frac_coords=batch.frac_coords @ inverse, bond_images=images.long()
    )


def permuted(batch: CrystalBatch, order: Tensor) -> CrystalBatch:
    """One crystal with its atoms in another order: atom k of the result is atom order[k]."""
    assert len(batch) == 1
    place = torch.empty_like(order).scatter(0, order, torch.arange(len(order)))
    return batch.replace(
        atomic_numbers=batch.atomic_numbers[order],
        frac_coords=batch.frac_coords[order],
        bonds=place[batch.bonds] if len(batch.bonds) else batch.bonds,
    )


def doubled(batch: CrystalBatch, axis: int = 0) -> CrystalBatch:
    """One crystal in a cell twice as long; atom n + i is atom i in the next cell. Bonds follow."""
    assert len(batch) == 1
    n = len(batch.frac_coords)
    shift = torch.zeros(3).to(batch.frac_coords)
    shift[axis] = 1.0
    scale = 1 + shift
    bonds, images = [], []
    for half in (0, 1):
        end = half + batch.bond_images[:, axis]
        image = batch.bond_images.clone()
        image[:, axis] = torch.div(end, 2, rounding_mode="floor")
        bonds.append(torch.stack([batch.bonds[:, 0] + half * n, batch.bonds[:, 1] + (end % 2) * n], 1))
        images.append(image)
    return CrystalBatch(
        batch.atomic_numbers.repeat(2),
        torch.cat([batch.frac_coords / scale, (batch.frac_coords + shift) / scale]),
        batch.lattice * scale[:, None],
        batch.num_atoms * 2,
        torch.cat(bonds),
        torch.cat(images),
        batch.num_bonds * 2,
    )


def neighbours(graph: PeriodicGraph, atom: int) -> Tensor:
    """(k, 3) vectors in Å from an atom to its neighbours, in an order that depends on nothing else."""
    mask = graph.mask[atom]
    vectors = (graph.vectors[atom] * graph.distances[atom][:, None])[mask].double()
    keys = vectors.mul(1e4).round().long().tolist()
    return vectors[sorted(range(len(keys)), key=keys.__getitem__)]


def sorted_distances(graph: PeriodicGraph, atom: int) -> Tensor:
    return graph.distances[atom][graph.mask[atom]].sort().values


def shake(network: nn.Module, seed: int = 0) -> None:
    """Adds noise to every weight, so that no law holds only because a layer starts at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            weight.add_(noise.to(weight) * 0.2 / max(weight.shape[-1] if weight.dim() else 1, 1) ** 0.5)


TINY: dict[str, dict[str, Any]] = {
    "model": {"latent_dim": 6, "max_atoms": 8, "stats_hidden_dim": 16},
    "encoder": {
        "options": {
            "dimenet++": {"hidden": 8, "blocks": 1, "int_emb": 4, "basis_emb": 4, "out_emb": 8, "output_layers": 1}
        }
    },
    "denoiser": {
        "options": {
            "hidden": 8,
            "atom_width": 12,
            "blocks": 1,
            "num_radial": 8,
            "emb_trip": 4,
            "emb_rbf": 4,
            "emb_cbf": 4,
            "bil_trip": 4,
            "layers_atom": 1,
            "time_embedding": 8,
            "fourier": [],
            "cutoff": 4.0,
            "max_neighbours": 10,
        }
    },
    "diffusion": {"timesteps": 20, "options": {"beta_end": 0.2}},
}


def tiny_model(
    dtype: torch.dtype = torch.float64, *, timesteps: int = 20, type_noise: str = "sum", **options: Any
) -> CDVAE:
    """Untrained, the smallest there is, with these options of its DDPM; every weight shaken, cells of some 4 Å."""
    torch.manual_seed(0)
    diffusion = {"timesteps": timesteps, "type_noise": type_noise, "options": {"beta_end": 0.2, **options}}
    values = {**TINY, "diffusion": diffusion}
    with default_dtype(dtype):
        model = CDVAE(Config.from_dict(values))
    shake(model)
    scaler = model.stats.scaler
    scaler.shift.copy_(torch.tensor([2.5, 2.5, 2.5, 90, 90, 90]))
    scaler.scale.copy_(torch.tensor([0.3, 0.3, 0.3, 5, 5, 5]))
    return model.requires_grad_(False)


class KnownStatistics(StatisticsDecoder):
    """Decodes any z to the statistics of given crystals, in the order of the batch."""

    def __init__(self, model: CDVAE, batch: CrystalBatch) -> None:
        super().__init__(model.config.model)
        self.scaler = model.stats.scaler
        self.batch = batch

    def forward(self, z: Tensor) -> Statistics:
        batch, like = self.batch, self.batch.lattice
        counts = torch.zeros(len(batch), 100).to(like)
        counts.index_put_((batch.crystal_index, batch.atomic_numbers - 1), torch.ones(1).to(like), accumulate=True)
        sizes = torch.nn.functional.one_hot(batch.num_atoms, self.num_atoms[-1].out_features)
        return Statistics(50 * sizes.to(like), self.scaler(batch.lattice, batch.num_atoms), (counts + 1e-12).log())


# What an oracle knows, and a reverse process has to find.
TRUTH = [
    Crystal.from_parameters(np.array(numbers), np.random.default_rng(k).random((len(numbers), 3)), lengths, angles)
    for k, (numbers, lengths, angles) in enumerate(
        [
            ([38, 22, 8, 8, 8], [3.9, 3.9, 3.9], [90, 90, 90]),
            ([6], [2.5, 2.6, 2.7], [60, 61, 62]),
            ([11, 17], [4.0, 5.0, 6.0], [80, 100, 110]),
            ([22, 8, 8], [4.0, 7.0, 9.0], [50, 35, 30]),  # skewed: the nearest image is some cells away
        ]
    )
]


def ddpm_step(solver: str, r_t: Tensor, noise_pred: Tensor, noise: Tensor, bar_t: float, bar_s: float) -> Tensor:
    """The first step of a solver from ᾱ_t to ᾱ_s, where the network says ``noise_pred``."""
    bars = [1.0, bar_t] if bar_s == 1 else [1.0, bar_s, bar_t]
    run = ReverseRun(batch_of([random_crystal(0)]), lambda coords, level: noise_pred, lambda: noise)
    return DDPM_SOLVERS[solver](run, bars).step(r_t, len(bars) - 1, len(bars) - 2)
