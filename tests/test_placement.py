"""Models that place atom after atom: geometry, order of placement, features, heads, sampler, lattice rules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from dpcdvae.config import PlacementConfig
from dpcdvae.placement.bounding_box import CLOSEST, bounding_cell
from dpcdvae.placement.geometry import Space, unwrapped
from dpcdvae.placement.growth import Growth, draw_steps, grow, radii_of
from dpcdvae.placement.heads import STOP
from dpcdvae.placement.model import PlacementModel
from dpcdvae.placement.sampler import Partial, Rules, place_atoms
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.reduction import minkowski_reduced
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.noise import CrystalRandom

SMALL = {"features": 8, "interactions": 2, "cutoff": 5.0, "head_layers": 1, "head_width": 8, "max_atoms": 8}
SMALL |= {"max_distance": 10.0, "kept_cells": 20}
RULES = Rules(max_atoms=8, inner=0.6, outer=3.0, spacing=0.1, fine=0.02, temperature=0.1)


def skewed(random: np.random.Generator, numbers: Sequence[int], volume: float = 18.0) -> Crystal:
    """A crystal in a cell that is far from reduced, its atoms apart."""
    while True:
        lattice = random.normal(size=(3, 3)) + 1.5 * np.eye(3)
        lattice *= (volume * len(numbers) / abs(np.linalg.det(lattice))) ** (1 / 3)
        crystal = Crystal(np.array(numbers), random.random((len(numbers), 3)), lattice)
        whole = np.array([[1, 2, 0], [0, 1, -3], [0, 0, 1]])
        atoms = crystal.to_ase()
        gaps = atoms.get_all_distances(mic=True) + 9 * np.eye(len(numbers))
        if gaps.min() > 2.2 and np.linalg.norm(lattice, axis=1).min() > 3:
            return Crystal(np.array(numbers), crystal.frac_coords @ np.linalg.inv(whole), whole @ lattice)


def model(periodic: bool = True, images: int = 4) -> PlacementModel:
    torch.manual_seed(0)
    values = {**SMALL, "periodic": periodic, "images": images}
    rule = {"lattice": "uniform" if periodic else "box"}
    config = PlacementConfig.from_dict({"kind": "placement", "model": values, "sampling": rule})
    return PlacementModel(config)


@pytest.fixture(scope="module")
def crystals() -> list[Crystal]:
    random = np.random.default_rng(0)
    return [skewed(random, numbers) for numbers in ([22, 38, 8, 8, 8], [11, 17], [6, 6, 6, 6], [26])]


def test_minimum_image_labels_are_those_of_ase(crystals: list[Crystal]) -> None:
    growth = grow(CrystalBatch.from_crystals(crystals, torch.float64), periodic=True, contact=1.25)
    for k, crystal in enumerate(crystals):
        n = crystal.num_atoms
        places = growth.positions[k, :n]
        ours = growth.space.select(torch.tensor([k])).distances((places[None] - places[:, None])[None])[0, ..., 0]
        back = Crystal(growth.numbers[k, :n].numpy(), places.numpy() @ np.linalg.inv(crystal.lattice), crystal.lattice)
        assert np.abs(ours.numpy() - back.to_ase().get_all_distances(mic=True)).max() < 1e-8
        assert sorted(back.to_ase().get_all_distances(mic=True).ravel().round(6)) == sorted(
            crystal.to_ase().get_all_distances(mic=True).ravel().round(6)
        )


def test_further_images_follow_the_nearest_in_order(crystals: list[Crystal]) -> None:
    lattice = torch.from_numpy(crystals[0].lattice)[None]
    delta = torch.randn(1, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = Space(lattice).distances(delta, images=8)
    reduced = torch.from_numpy(minkowski_reduced(crystals[0].lattice[None])[0][0])
    shifts = torch.cartesian_prod(*(torch.arange(-6, 7, dtype=torch.float64),) * 3) @ reduced
    every = (delta[0][:, None] + shifts).norm(dim=-1).sort(dim=-1).values
    assert (found[0, :, 0] - every[:, 0]).abs().max() < 1e-9
    assert (found.diff(dim=-1) >= 0).all()
    # Each is the distance of some image.
    assert (found[0][..., None] - every[:, None]).abs().amin(-1).max() < 1e-9


def test_unwrapped_clusters_hang_together_and_come_out_the_same_again(crystals: list[Crystal]) -> None:
    batch = CrystalBatch.from_crystals(crystals, torch.float64)
    first, again = (grow(batch, periodic=False, contact=1.25) for _ in range(2))
    assert torch.equal(first.positions, again.positions)
    for k, crystal in enumerate(crystals):
        n = crystal.num_atoms
        places = first.positions[k, :n].numpy()
        apart = np.linalg.norm(places[None] - places[:, None], axis=-1)
        # As connected as the crystal: the spanning tree of the cluster is no longer than that of the minimum images.
        assert spanning_tree(apart) == pytest.approx(spanning_tree(crystal.to_ase().get_all_distances(mic=True)))


def spanning_tree(distances: np.ndarray) -> float:
    inside, total = [0], 0.0
    while len(inside) < len(distances):
        outside = [k for k in range(len(distances)) if k not in inside]
        part = distances[np.ix_(inside, outside)]
        total += part.min()
        inside.append(outside[int(part.min(0).argmin())])
    return total


def test_unwrapping_does_not_depend_on_the_images_given(crystals: list[Crystal]) -> None:
    crystal = crystals[0]
    frac = torch.from_numpy(crystal.frac_coords)[None]
    lattice, count = torch.from_numpy(crystal.lattice)[None], torch.tensor([5])
    moved = frac + torch.tensor([[0, 0, 0], [1, 0, 0], [0, -2, 0], [3, 0, 1], [0, 0, -1]])
    assert (unwrapped(frac, lattice, count) - unwrapped(moved, lattice, count)).abs().max() < 1e-9


@pytest.mark.parametrize("periodic", [True, False])
def test_every_atom_is_placed_and_given_up_once(crystals: list[Crystal], periodic: bool) -> None:
    growth = grow(CrystalBatch.from_crystals(crystals), periodic, contact=1.25)
    for k, crystal in enumerate(crystals):
        n = crystal.num_atoms
        stop, focus, placed = (values[k, : 2 * n].tolist() for values in (growth.stop, growth.focus, growth.placed))
        assert sum(stop) == n
        assert placed == [sum(not s for s in stop[:k]) for k in range(2 * n)]
        assert focus[0] == 0
        assert sorted(f for f, s in zip(focus, stop, strict=True) if s) == list(range(1, n + 1))
        assert all(f <= p for f, p in zip(focus, placed, strict=True))
        assert sorted(growth.numbers[k, :n].tolist()) == sorted(crystal.atomic_numbers.tolist())


def test_random_steps_are_those_of_the_growth_and_of_the_generator(crystals: list[Crystal]) -> None:
    growth = grow(CrystalBatch.from_crystals(crystals), True, contact=1.25)
    some, same = (draw_steps(growth, 200, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(some.focus, same.focus)
    for k, crystal in enumerate(crystals):
        every = set(zip(*(v[k, : 2 * crystal.num_atoms].tolist() for v in growth[4:]), strict=True))
        assert set(zip(*(values[k].tolist() for values in some), strict=True)) == every


@pytest.mark.parametrize("periodic", [True, False])
def test_likelihoods_of_types_and_of_distances_sum_to_one(crystals: list[Crystal], periodic: bool) -> None:
    network = model(periodic, images=4 if periodic else 1)
    batch = CrystalBatch.from_crystals(crystals)
    network.record_training_set(batch, None)
    growth = grow(batch, periodic, contact=1.25)
    placed = (growth.num_atoms + 1) // 2
    partial = Partial(
        torch.arange(len(crystals)), growth.numbers, growth.positions, placed, growth.space, torch.ones_like(placed)
    )
    prediction = network.predict(partial)
    assert torch.allclose(prediction.types.exp().sum(-1), torch.ones(len(crystals)))
    seen = {STOP, *(z for c in crystals for z in c.atomic_numbers.tolist())}
    assert set((prediction.types.exp() > 0).nonzero()[:, 1].tolist()) == seen
    distances = prediction.distances(torch.arange(len(crystals)), torch.full_like(placed, 8))
    assert torch.allclose(distances.exp().sum(-1), torch.ones(()))
    labels = network.distance_head.labels(torch.tensor([0.01, 2.3, 9.99, 14.0]))
    assert torch.allclose(labels.sum(-1), torch.ones(4))
    assert int(labels[3].argmax()) == network.distance_head.bins - 1


def features(network: PlacementModel, growth: Growth, space: Space) -> torch.Tensor:
    placed = growth.num_atoms[:, None]
    return network.schnet(growth.numbers, growth.positions, growth.num_atoms, space, torch.ones_like(placed), placed)


@pytest.mark.parametrize("periodic", [True, False])
def test_features_do_not_see_rotation_or_the_order_of_atoms(crystals: list[Crystal], periodic: bool) -> None:
    network = model(periodic, images=1).double()
    growth = grow(CrystalBatch.from_crystals(crystals[:1], torch.float64), periodic, contact=1.25)
    before = features(network, growth, growth.space)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))).Q
    lattice = growth.space.lattice
    turned = Space(None if lattice is None else lattice @ turn)
    assert (features(network, growth._replace(positions=growth.positions @ turn), turned) - before).abs().max() < 1e-10
    order = torch.tensor([0, 3, 1, 4, 2])  # the first stays: it is the focus
    mixed = growth._replace(numbers=growth.numbers[:, order], positions=growth.positions[:, order])
    nodes = torch.cat([torch.zeros(1, dtype=torch.long), order + 1])
    assert (features(network, mixed, growth.space) - before[:, :, nodes]).abs().max() < 1e-10


def test_features_do_not_see_translation_or_in_which_cell_an_atom_is(crystals: list[Crystal]) -> None:
    network = model(images=1).double()
    crystal = crystals[0]
    moved = Crystal(
        crystal.atomic_numbers, crystal.frac_coords + [[0.3, 0.1, 0.7]] + np.eye(5, 3, k=-1) * 2, crystal.lattice
    )
    here, there = (grow(CrystalBatch.from_crystals([c], torch.float64), True, contact=1.25) for c in (crystal, moved))
    assert (features(network, here, here.space) - features(network, there, there.space)).abs().max() < 1e-10


def test_a_cluster_sees_no_image_of_itself(crystals: list[Crystal]) -> None:
    network = model(periodic=False, images=1).double()
    growth = grow(CrystalBatch.from_crystals(crystals[3:], torch.float64), False, contact=1.25)
    # One atom alone, at the origin: the two see each other once.
    pair, distances = network.schnet._edges(torch.zeros(1, 2, 3).double(), torch.tensor([2]), growth.space)
    assert sorted(pair.tolist()) == [1, 2]
    assert distances.tolist() == [0, 0]


class Oracle:
    """Knows the crystals: their next type and all distances, in the order of their growth."""

    bin_width = 0.05

    def __init__(self, growth: Growth, images: int) -> None:
        self.growth, self.images = growth, images

    def predict(self, partial: Partial) -> Oracle:
        self.partial = partial
        growth, index = self.growth, partial.which
        here = (growth.focus[index] == partial.focus[:, None]) & (growth.placed[index] == partial.placed[:, None])
        here &= torch.arange(here.shape[1]) < 2 * growth.num_atoms[index, None]
        assert (here.sum(1) == 1).all()  # what the sampler asks is a step of the growth, and one of them
        step = here.int().argmax(1)
        next_type = growth.numbers[index].gather(1, partial.placed.clamp(max=growth.numbers.shape[1] - 1)[:, None])
        stop = growth.stop[index, step].bool()
        next_type = next_type.squeeze(1).masked_fill(stop, STOP)
        self.types = torch.full((len(index), 101), -1e3).scatter(1, next_type[:, None], 0.0)
        return self

    def distances(self, some: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        growth, crystals = self.growth, self.partial.which[some]
        new = growth.positions[crystals, self.partial.placed[some]]
        nodes = torch.nn.functional.pad(growth.positions[crystals], (0, 0, 1, 0))
        nodes = nodes[:, : self.partial.numbers.shape[1] + 1]
        away = growth.space.select(crystals).distances(new[:, None] - nodes, self.images)
        centres = (torch.arange(400) + 0.5) * self.bin_width
        return -0.5 * ((away[..., None] - centres) / 0.05).square()


def matched(made: Crystal, wanted: Crystal) -> bool:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(ltol=0.1, stol=0.1, angle_tol=5).fit(made.to_pymatgen(), wanted.to_pymatgen())


@pytest.mark.parametrize("exact", [True, False])
def test_with_an_oracle_the_crystal_comes_back(crystals: list[Crystal], exact: bool) -> None:
    """In its own lattice, where the distances to several images say how an atom lies to the axes."""
    batch = CrystalBatch.from_crystals(crystals)
    growth = grow(batch, True, contact=1.25)
    contents = torch.stack([torch.bincount(torch.from_numpy(c.atomic_numbers), minlength=101) for c in crystals])
    random = CrystalRandom(0, torch.arange(len(crystals)))
    found = place_atoms(Oracle(growth, 8), growth.space, random, RULES, contents if exact else None, batch.lattice)
    assert found.reason.tolist() == [0] * len(crystals)
    for k, crystal in enumerate(crystals):
        n = int(found.num_atoms[k])
        frac = found.positions[k, :n].double().numpy() @ np.linalg.inv(crystal.lattice)
        assert matched(Crystal(found.numbers[k, :n].numpy(), frac, crystal.lattice), crystal)


def test_with_an_oracle_the_cluster_comes_back(crystals: list[Crystal]) -> None:
    growth = grow(CrystalBatch.from_crystals(crystals), False, contact=1.25)
    random = CrystalRandom(0, torch.arange(len(crystals)))
    found = place_atoms(Oracle(growth, 1), growth.space, random, RULES, None, growth.positions)
    assert found.reason.tolist() == [0] * len(crystals)
    for k, crystal in enumerate(crystals):
        n = crystal.num_atoms
        assert torch.equal(found.numbers[k, :n], growth.numbers[k, :n])
        apart, wanted = (torch.cdist(x[k, :n].double(), x[k, :n].double()) for x in (found.positions, growth.positions))
        assert (apart - wanted).abs().max() < 0.15


@pytest.mark.parametrize("numbers", [[6], [6, 6], [11, 17, 8], [22, 38, 8, 8, 8]])
def test_the_box_of_a_cluster_is_the_smallest_without_contacts(numbers: list[int]) -> None:
    random = np.random.default_rng(len(numbers))
    z = np.array(numbers)
    positions = random.normal(size=(len(z), 3)) * 2
    while len(z) > 1 and pairwise(positions).min() < 1.5:
        positions = random.normal(size=(len(z), 3)) * 2
    bound = CLOSEST * 2 * radii_of(torch.from_numpy(z)).min().item()
    lattice, frac = bounding_cell(z, positions)
    assert np.allclose(pairwise(frac @ lattice), pairwise(positions))
    closest = images_apart(frac, lattice)
    assert closest >= bound - 1e-9
    for axis in range(3):
        shorter = lattice.copy()
        shorter[axis, axis] *= 0.99
        extent = np.ptp(frac[:, axis]) * lattice[axis, axis]
        tight = images_apart(frac * np.diag(lattice) / np.diag(shorter), shorter) < bound
        assert tight or lattice[axis, axis] == pytest.approx(extent)


def pairwise(positions: np.ndarray) -> np.ndarray:
    apart = np.linalg.norm(positions[None] - positions[:, None], axis=-1)
    return apart + np.diag(np.full(len(apart), 99.0))


def images_apart(frac: np.ndarray, lattice: np.ndarray) -> float:
    """The least distance of an atom from an image, of itself or another, in another cell than the cluster's own."""
    shifts = np.array([s for s in np.ndindex(5, 5, 5) if s != (2, 2, 2)]) - 2
    delta = (frac[None] - frac[:, None])[:, :, None] + shifts
    return float(np.linalg.norm(delta @ lattice, axis=-1).min())
