"""Periodic graphs: agreement with vesin and ASE, the rule at the cap, and every way to describe a crystal anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dpcdvae.structures.bonds import crystal_nn_bonds
from dpcdvae.structures.crystal import Crystal
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.tensors.graph import PeriodicGraph, bond_graph, radius_graph
from dpcdvae.tensors.neighbours import SHELL_TOLERANCE
from tensors import (
    UNIMODULAR,
    awkward_crystals,
    batch_of,
    cubic,
    doubled,
    neighbours,
    permuted,
    random_crystal,
    rebased,
    rotation,
    sorted_distances,
)

CRYSTALS = awkward_crystals()
IDS = [crystal.id for crystal in CRYSTALS]
MANY = 4000  # a cap that never binds


def graph_of(batch: CrystalBatch, cutoff: float = 7.0, cap: int = 20) -> PeriodicGraph:
    return radius_graph(batch.frac_coords, batch.lattice, batch.num_atoms, cutoff, cap)


def bonds_of(batch: CrystalBatch) -> PeriodicGraph:
    return bond_graph(
        batch.bonds, batch.bond_images, batch.num_bonds, batch.num_atoms, batch.frac_coords, batch.lattice
    )


def oracle(crystal: Crystal, cutoff: float) -> list[np.ndarray]:
    """Sorted distances of every atom's neighbours, by vesin."""
    import vesin

    points, box = crystal.cart_coords, crystal.lattice
    i, d = vesin.NeighborList(cutoff=cutoff, full_list=True).compute(points, box, periodic=True, quantities="id")
    return [np.sort(d[i == atom]) for atom in range(crystal.num_atoms)]


def whole_shells(distances: np.ndarray, cap: int) -> int:
    """How many of the sorted distances the cap keeps: as many whole shells as fit."""
    ends = [k for k in range(1, len(distances)) if distances[k] - distances[k - 1] > SHELL_TOLERANCE * distances[k - 1]]
    fitting = [k for k in [*ends, len(distances)] if k <= cap]
    return max(fitting, default=min(cap, len(distances)))


def assert_same_neighbours(graph: PeriodicGraph, other: PeriodicGraph, tolerance: float = 1e-9) -> None:
    """The same vectors from every atom, whatever the slots and images."""
    assert len(graph.mask) == len(other.mask)
    for atom in range(len(graph.mask)):
        assert_same_vectors(neighbours(graph, atom), neighbours(other, atom), tolerance)


def assert_same_vectors(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-6) -> None:
    """Two sets of vectors (k, 3) are equal in some order."""
    assert ours.shape == theirs.shape
    if len(ours):
        apart = torch.cdist(ours, theirs, compute_mode="donot_use_mm_for_euclid_dist")
        assert apart.amin(0).max() < tolerance
        assert apart.amin(1).max() < tolerance


# against independent codes


@pytest.mark.parametrize("cutoff", [1.7, 4.1, 7.0])
@pytest.mark.parametrize("crystal", CRYSTALS, ids=IDS)
def test_all_neighbours_are_vesins(crystal: Crystal, cutoff: float) -> None:
    expected = oracle(crystal, cutoff)
    graph = graph_of(batch_of([crystal]), cutoff, max(max(map(len, expected)), 1))
    for atom, distances in enumerate(expected):
        np.testing.assert_allclose(sorted_distances(graph, atom), distances, rtol=1e-9)


@pytest.mark.parametrize("crystal", CRYSTALS, ids=IDS)
def test_vectors_and_images_are_ases(crystal: Crystal) -> None:
    from ase.neighborlist import neighbor_list

    i, j, vectors, images = neighbor_list("ijDS", crystal.to_ase(), 4.1)
    graph = graph_of(batch_of([crystal]), 4.1, max(int(np.bincount(i, minlength=1).max()), 1))
    for atom in range(crystal.num_atoms):
        assert_same_vectors(neighbours(graph, atom), torch.tensor(vectors[i == atom]))
        mask = graph.mask[atom]
        ours = torch.cat([graph.source[atom][mask][:, None], graph.image[atom][mask]], 1).tolist()
        assert sorted(ours) == sorted(np.column_stack([j, images])[i == atom].tolist())


@pytest.mark.parametrize("cap", [1, 6, 12, 20, 50])
@pytest.mark.parametrize("crystal", CRYSTALS, ids=IDS)
def test_cap_keeps_the_nearest_whole_shells(crystal: Crystal, cap: int) -> None:
    graph = graph_of(batch_of([crystal]), 7.0, cap)
    for atom, distances in enumerate(oracle(crystal, 7.0)):
        kept = whole_shells(distances, cap)
        assert int(graph.mask[atom].sum()) == kept
        np.testing.assert_allclose(sorted_distances(graph, atom), distances[:kept], rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("kind", "a", "kept"), [("diamond", 3.567, 16), ("fcc", 3.61, 18), ("bcc", 2.87, 14), ("sc", 3.35, 18)]
)
def test_shells_of_simple_lattices_at_the_published_cap(kind: str, a: float, kept: int, dtype: torch.dtype) -> None:
    """Wherever the crystal lies in its cell and whatever the cell: rounding does not decide."""
    batch = batch_of([cubic(kind, a)], dtype)
    for cell in (batch, doubled(doubled(batch), 1), *(rebased(batch, basis) for basis in UNIMODULAR)):
        for shift in torch.rand(5, 3, generator=torch.Generator().manual_seed(0)).to(dtype):
            graph = graph_of(cell.replace(frac_coords=cell.frac_coords + shift))
            assert graph.mask.sum(1).tolist() == [kept] * len(graph.mask)


def test_diamond_has_274_neighbours_within_7_angstrom() -> None:
    graph = graph_of(batch_of([cubic("diamond", 3.567)]), 7.0, MANY)
    assert graph.mask.sum(1).tolist() == [274, 274]


def test_the_public_search_sees_27_cells_and_splits_shells() -> None:
    diamond = batch_of([cubic("diamond", 3.567)])
    args = diamond.frac_coords, diamond.lattice, diamond.num_atoms, 7.0
    assert radius_graph(*args, MANY, complete=False).mask.sum(1).tolist() == [52, 52]  # of 274
    assert radius_graph(*args, 20, complete=False).mask.sum(1).tolist() == [20, 20]  # of 4 + 12 + 12


def test_no_shell_is_split_at_any_cap() -> None:
    diamond = batch_of([cubic("diamond", 3.567)])
    shells = np.cumsum([4, 12, 12, 6, 12, 24, 16])
    for cap in range(4, 87):
        assert graph_of(diamond, 7.0, cap).mask.sum(1).tolist() == [shells[shells <= cap].max()] * 2


def test_a_first_shell_larger_than_the_cap_is_cut() -> None:
    """Rather than leaving an atom without neighbours: noisy crystals have atoms on top of each other."""
    batch = batch_of([cubic("fcc", 3.61)])
    assert graph_of(batch, 7.0, 5).mask.sum(1).tolist() == [5]
    together = batch_of([Crystal(np.full(4, 6), np.full((4, 3), 0.3), 9 * np.eye(3))])
    graph = graph_of(together, 7.0, 2)
    assert graph.mask.all()
    assert graph.distances.eq(0).all()
    assert graph.vectors.isfinite().all()


def test_nobody_within_the_cutoff() -> None:
    graph = graph_of(batch_of([cubic("sc", 9.0), cubic("sc", 3.0)]))
    assert graph.mask.sum(1).tolist() == [0, 18]
    assert graph.distances.isfinite().all()


def test_search_in_parts_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(CRYSTALS)
    whole = graph_of(batch)
    monkeypatch.setattr("dpcdvae.tensors.neighbours.MAX_DISTANCES", 1000)
    assert_same_neighbours(graph_of(batch), whole, 1e-12)


# the same crystal in other words


@pytest.mark.parametrize("crystal", CRYSTALS, ids=IDS)
class TestInvariance:
    def test_translation_changes_no_edge(self, crystal: Crystal) -> None:
        batch = batch_of([crystal])
        moved = batch.replace(frac_coords=batch.frac_coords + torch.tensor([0.37, -1.61, 12.2]))
        assert_same_neighbours(graph_of(moved), graph_of(batch))

    @pytest.mark.parametrize("mirror", [False, True])
    def test_rotation_turns_the_edge_vectors(self, crystal: Crystal, mirror: bool) -> None:
        batch = batch_of([crystal])
        matrix = torch.tensor(rotation(3, mirror=mirror))
        graph, turned = graph_of(batch), graph_of(batch.replace(lattice=batch.lattice @ matrix))
        for atom in range(crystal.num_atoms):
            assert_same_vectors(neighbours(graph, atom) @ matrix, neighbours(turned, atom), 1e-9)

    def test_permuting_atoms_permutes_the_edges(self, crystal: Crystal) -> None:
        batch = batch_of([crystal])
        order = torch.randperm(crystal.num_atoms, generator=torch.Generator().manual_seed(1))
        graph, mixed = graph_of(batch), graph_of(permuted(batch, order))
        for new, old in enumerate(order.tolist()):
            assert_same_vectors(neighbours(mixed, new), neighbours(graph, old), 1e-9)

    @pytest.mark.parametrize("basis", UNIMODULAR, ids=range(len(UNIMODULAR)))
    def test_choice_of_lattice_vectors_changes_nothing(self, crystal: Crystal, basis: np.ndarray) -> None:
        batch = batch_of([crystal])
        assert_same_neighbours(graph_of(rebased(batch, basis)), graph_of(batch))

    def test_images_count_from_unwrapped_coordinates(self, crystal: Crystal) -> None:
        """The vectors stay, and ``image`` counts from the coordinates as given."""
        batch = batch_of([crystal])
        cells = torch.randint(-5, 6, batch.frac_coords.shape, generator=torch.Generator().manual_seed(2))
        moved = batch.replace(frac_coords=batch.frac_coords + cells)
        graph = graph_of(moved)
        assert_same_neighbours(graph, graph_of(batch))
        frac = moved.frac_coords
        vectors = (frac[graph.source] + graph.image - frac[:, None]) @ batch.lattice[0]
        expected = graph.vectors * graph.distances[..., None]
        torch.testing.assert_close(vectors[graph.mask], expected[graph.mask])

    def test_a_supercell_repeats_the_edges(self, crystal: Crystal) -> None:
        batch = batch_of([crystal])
        graph, twice = graph_of(batch), graph_of(doubled(batch, axis=1))
        for atom in range(2 * crystal.num_atoms):
            assert_same_vectors(neighbours(twice, atom), neighbours(graph, atom % crystal.num_atoms), 1e-9)

    def test_the_reverse_of_a_reverse_is_the_edge(self, crystal: Crystal) -> None:
        assert_reverse(graph_of(batch_of([crystal])))

    def test_reverse_edges_are_complete_without_a_cap(self, crystal: Crystal) -> None:
        graph = graph_of(batch_of([crystal]), 4.0, 700)
        assert graph.mask.sum(1).max() < 700
        assert (graph.reverse[graph.mask] < graph.mask.numel()).all()


def assert_reverse(graph: PeriodicGraph) -> None:
    num_atoms, slots = graph.mask.shape
    paired = graph.reverse < num_atoms * slots
    assert not (paired & ~graph.mask).any()
    flat = torch.arange(num_atoms * slots).view(num_atoms, slots)
    assert graph.reverse.flatten()[graph.reverse[paired]].equal(flat[paired])
    assert graph.source.flatten()[graph.reverse[paired]].equal(
        torch.arange(num_atoms)[:, None].expand_as(paired)[paired]
    )
    assert graph.image.flatten(0, 1)[graph.reverse[paired]].equal(-graph.image[paired])
    torch.testing.assert_close(graph.swap(graph.vectors)[paired], -graph.vectors[paired])
    torch.testing.assert_close(graph.swap(graph.distances[..., None])[paired][:, 0], graph.distances[paired])
    assert graph.swap(graph.vectors + 1)[~paired].eq(0).all()
    # An edge without an opposite: its source really does not list it.
    pairs = set(zip(*(x.tolist() for x in _ends(graph)), strict=True))
    for i, j, *image in zip(*(x[(graph.mask & ~paired)[graph.mask]].tolist() for x in _ends(graph)), strict=True):
        assert (j, i, *(-n for n in image)) not in pairs


def _ends(graph: PeriodicGraph) -> tuple[torch.Tensor, ...]:
    atom = torch.arange(len(graph.mask))[:, None].expand_as(graph.mask)
    return (atom[graph.mask], graph.source[graph.mask], *graph.image[graph.mask].unbind(-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_is_its_crystals(dtype: torch.dtype) -> None:
    together = graph_of(batch_of(CRYSTALS, dtype))
    first = 0
    for crystal in CRYSTALS:
        alone = graph_of(batch_of([crystal], dtype))
        atoms = slice(first, first + crystal.num_atoms)
        assert together.mask[atoms].equal(alone.mask)
        torch.testing.assert_close(
            together.distances[atoms][alone.mask].sort().values,
            alone.distances[alone.mask].sort().values,
            rtol=0,
            atol=0,
        )
        sources = together.source[atoms][alone.mask]
        assert ((sources >= first) & (sources < first + crystal.num_atoms)).all()
        first += crystal.num_atoms
    assert_reverse(together)


@pytest.mark.parametrize("factor", [1e6, 1e12, 1e30])
def test_a_runaway_crystal_does_not_disturb_the_others(factor: float) -> None:
    """Coordinates that far out carry no structure, but must leave the rest of the batch alone."""
    good = batch_of([random_crystal(3)])
    both = batch_of([random_crystal(3), random_crystal(4)])
    frac = both.frac_coords.clone()
    frac[5:] *= factor
    alone, together = graph_of(good), graph_of(both.replace(frac_coords=frac))
    assert together.mask[:5].equal(alone.mask)
    torch.testing.assert_close(together.distances[:5], alone.distances)
    assert (together.reverse[:5] < together.mask.numel()).equal(alone.reverse < alone.mask.numel())
    paired = alone.reverse < alone.mask.numel()
    assert together.reverse[:5][paired].equal(alone.reverse[paired])


def test_precision_does_not_suffer_from_far_images() -> None:
    batch = batch_of([random_crystal(3)], torch.float32)
    far = batch.replace(frac_coords=batch.frac_coords + 4096)
    exact = graph_of(far.to(dtype=torch.float64))
    graph = graph_of(far)
    assert graph.mask.equal(exact.mask)
    torch.testing.assert_close(graph.distances.double(), exact.distances, rtol=1e-6, atol=1e-6)


def test_cosines_are_those_of_the_vectors() -> None:
    graph = graph_of(batch_of([random_crystal(5)]))
    for k, a in enumerate(graph.vectors[0]):
        for n, b in enumerate(graph.vectors[0]):
            expected = a @ b / (a.norm() * b.norm()).clamp_min(1e-12)
            assert float(graph.cosines()[0, k, n]) == pytest.approx(float(expected), abs=1e-12)
            assert bool(graph.triplet_mask()[0, k, n]) == (k != n and bool(graph.mask[0, k] & graph.mask[0, n]))


# bonds


BONDED = [cubic("diamond", 3.567), cubic("sc", 3.35), random_crystal(11), random_crystal(12, num_atoms=1)]


def test_bonds_stand_in_both_directions() -> None:
    graph = bonds_of(batch_of(BONDED, bonded=True))
    assert (graph.reverse[graph.mask] < graph.mask.numel()).all()
    assert_reverse(graph)


@pytest.mark.parametrize("crystal", BONDED, ids=lambda crystal: crystal.id)
def test_bond_degrees_and_vectors_are_pymatgens(crystal: Crystal) -> None:
    structure = crystal.to_pymatgen()
    bonds, images = crystal_nn_bonds(crystal)
    graph = bonds_of(batch_of([crystal], bonded=True))
    for atom in range(crystal.num_atoms):
        expected = [
            (structure[b].frac_coords + sign * image - structure[a].frac_coords) @ structure.lattice.matrix
            for (i, j), image in zip(bonds, images, strict=True)
            for a, b, sign in ((i, j, 1), (j, i, -1))
            if a == atom
        ]
        assert int(graph.mask[atom].sum()) == len(expected)
        assert_same_vectors(neighbours(graph, atom), torch.tensor(np.array(expected)))
    near = structure.get_all_neighbors(float(graph.distances.max()) + 1e-6)
    for atom, listed in enumerate(near):
        vectors = torch.tensor(np.array([site.coords - structure[atom].coords for site in listed]))
        assert torch.cdist(neighbours(graph, atom), vectors).amin(1).max() < 1e-6


def test_bonds_of_simple_lattices() -> None:
    assert bonds_of(batch_of([cubic("diamond", 3.567)], bonded=True)).mask.sum(1).tolist() == [4, 4]
    assert bonds_of(batch_of([cubic("sc", 3.35)], bonded=True)).mask.sum(1).tolist() == [6]


def test_bonds_of_a_batch_are_those_of_its_crystals() -> None:
    together = bonds_of(batch_of(BONDED, bonded=True))
    first = 0
    for crystal in BONDED:
        alone = bonds_of(batch_of([crystal], bonded=True))
        for atom in range(crystal.num_atoms):
            assert_same_vectors(neighbours(together, first + atom), neighbours(alone, atom))
        first += crystal.num_atoms


def test_bonds_follow_a_change_of_basis_and_a_supercell() -> None:
    batch = batch_of([random_crystal(11)], bonded=True)
    graph = bonds_of(batch)
    for basis in UNIMODULAR:
        assert_same_neighbours(bonds_of(rebased(batch, basis)), graph)
    twice = bonds_of(doubled(batch))
    for atom in range(10):
        assert_same_vectors(neighbours(twice, atom), neighbours(graph, atom % 5))
