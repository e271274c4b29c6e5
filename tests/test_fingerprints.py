"""Fingerprints: equal to matminer's, the same however a crystal is written, kept between runs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from crystal_files import real_crystal, real_crystals
from dpcdvae.errors import InputError
from dpcdvae.io import read
from dpcdvae.parallel import HERE, LocalEngine, Lost
from dpcdvae.parallel import results as result_cache
from dpcdvae.parallel.results import Results
from dpcdvae.prototypes import build_prototypes
from dpcdvae.structures import fingerprints
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.element_data import by_atomic_number, table
from dpcdvae.structures.elements import SYMBOLS
from dpcdvae.structures.fingerprints import (
    LABELS,
    fingerprint_crystals,
    site_fingerprints,
    structure_fingerprint,
)
from dpcdvae.structures.fingerprints.magpie import STATISTICS, composition_fingerprints, standardise_compositions
from dpcdvae.structures.fingerprints.order_parameters import MOTIFS, motif_scores

Floats = npt.NDArray[np.float64]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Without the warnings that matminer and pymatgen have for every site."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def matminer_fingerprints(crystal: Crystal) -> Floats:
    """(n, 61) the call of the published protocol."""
    featurizer = pytest.importorskip("matminer.featurizers.site.fingerprint").CrystalNNFingerprint
    ops = featurizer.from_preset("ops")
    structure = crystal.to_pymatgen()
    return np.array([ops.featurize(structure, i) for i in range(len(structure))])


def some(data_dir: Path, name: str, count: int) -> list[Crystal]:
    """Crystals spread evenly over a real file."""
    if name.endswith(".csv.gz"):
        return real_crystals(data_dir / name, count, spread=True)
    crystals = read(data_dir / name, [])
    return [crystals[k] for k in np.linspace(0, len(crystals) - 1, count, dtype=int)]


SETS = {
    "perov_5/test.csv.gz": 10,
    "carbon_24/test.csv.gz": 4,
    "mp_20/test.csv.gz": 8,
    "generated/cdvae_replica_perov_gen.npz": 6,
    "generated/crysbfn_carbon_24_gen.npz": 3,
    "generated/diffcsp_mp_20_gen.npz": 6,
}


def deviations(crystals: list[Crystal]) -> dict[str, float]:
    return {c.id: float(np.abs(site_fingerprints(c) - matminer_fingerprints(c)).max()) for c in crystals}


@pytest.mark.parametrize("name", SETS)
def test_real_crystals_have_the_fingerprints_of_matminer(data_dir: Path, name: str) -> None:
    found = deviations(some(data_dir, name, SETS[name]))
    assert {id: d for id, d in found.items() if d > 1e-6} == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_many_real_crystals_have_the_fingerprints_of_matminer(data_dir: Path, name: str) -> None:
    found = deviations(some(data_dir, name, 6 * SETS[name]))
    assert {id: d for id, d in found.items() if d > 1e-6} == {}


def test_where_round_off_decides_it_is_that_of_pymatgen(data_dir: Path) -> None:
    """An atom with eight neighbours, pairs of them at right angles: the score jumps with the sign of 1e-17."""
    crystal = real_crystal(data_dir / "perov_5/test.csv.gz", "2990")
    column = LABELS.index("body-centered cubic CN_8")
    found, expected = site_fingerprints(crystal)[:, column], matminer_fingerprints(crystal)[:, column]
    assert expected.max() > 0.01
    assert np.abs(found - expected).max() < 1e-12


def test_labels_are_those_of_matminer() -> None:
    featurizer = pytest.importorskip("matminer.featurizers.site.fingerprint").CrystalNNFingerprint
    assert list(LABELS) == featurizer.from_preset("ops").feature_labels()


def directions(*rows: tuple[float, float, float]) -> Floats:
    vectors = np.array(rows, np.float64)
    return vectors / np.linalg.norm(vectors, axis=1)[:, None]


def ring(count: int) -> list[tuple[float, float, float]]:
    angles = 2 * np.pi * np.arange(count) / count
    return [(float(np.cos(a)), float(np.sin(a)), 0.0) for a in angles]


UP, DOWN = (0.0, 0.0, 1.0), (0.0, 0.0, -1.0)
PERFECT = {
    "linear": [UP, DOWN],
    "trigonal planar": ring(3),
    "square co-planar": ring(4),
    "tetrahedral": [(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)],
    "pentagonal planar": ring(5),
    "trigonal bipyramidal": [*ring(3), UP, DOWN],
    "square pyramidal": [*ring(4), UP],
    "hexagonal planar": ring(6),
    "octahedral": [*ring(4), UP, DOWN],
    "pentagonal pyramidal": [*ring(5), UP],
    "pentagonal bipyramidal": [*ring(5), UP, DOWN],
    "hexagonal pyramidal": [*ring(6), UP],
    "hexagonal bipyramidal": [*ring(6), UP, DOWN],
    "body-centered cubic": [(x, y, z) for x in (1, -1) for y in (1, -1) for z in (1, -1)],
    "cuboctahedral": [v for s in (1, -1) for t in (1, -1) for v in ((s, t, 0), (s, 0, t), (0, s, t))],
}


@pytest.mark.parametrize("motif", PERFECT)
def test_a_perfect_motif_scores_one_and_more_than_its_rivals(motif: str) -> None:
    units = directions(*PERFECT[motif])
    scores = dict(zip(MOTIFS[len(units)], motif_scores(units[None])[0].tolist(), strict=True))
    assert scores[motif] == pytest.approx(1.0, abs=0.03)
    assert scores[motif] == max(scores.values())


def test_scores_of_random_neighbours_are_those_of_pymatgen() -> None:
    """Every motif of every coordination number, and many atoms at once as one by one."""
    from pymatgen.analysis.local_env import CN_OPT_PARAMS, LocalStructOrderParams
    from pymatgen.core import Lattice, PeriodicSite

    rng = np.random.default_rng(0)
    cube = Lattice.cubic(50)
    for number, motifs in MOTIFS.items():
        units = rng.normal(size=(4, number, 3))
        units /= np.linalg.norm(units, axis=2)[..., None]
        found = motif_scores(units)
        for atom in range(4):
            sites = [PeriodicSite("C", v, cube, coords_are_cartesian=True) for v in [np.zeros(3), *units[atom]]]
            for column, name in enumerate(motifs):
                kind, *parameters = CN_OPT_PARAMS.get(number, {}).get(name, [name])
                calculator = LocalStructOrderParams([kind], parameters=[parameters[0] if parameters else None])
                (expected,) = calculator.get_order_parameters(sites, 0, list(range(1, number + 1)))
                assert found[atom, column] == pytest.approx(expected or 0.0, abs=1e-9), (number, name)
        assert np.allclose(found[2], motif_scores(units[2:3])[0], atol=1e-12)


def test_known_structures_have_their_coordination() -> None:
    """Diamond has four neighbours around it as a tetrahedron, rock salt six as an octahedron."""
    kinds = {c.id.partition("-")[0]: c for c in build_prototypes()}
    found = {name: structure_fingerprint(kinds[name]) for name in ("diamond", "rock_salt")}
    assert found["diamond"][LABELS.index("wt CN_4")] > 0.9
    assert found["diamond"][LABELS.index("tetrahedral CN_4")] > 0.9
    assert found["rock_salt"][LABELS.index("octahedral CN_6")] > 0.9


@pytest.fixture
def low_symmetry() -> Crystal:
    rng = np.random.default_rng(5)
    matrix = 5.0 * np.eye(3) + 0.5 * rng.normal(size=(3, 3))
    return Crystal(np.array([8, 8, 14, 22, 38, 6]), rng.random((6, 3)), matrix, "low symmetry")


def test_fingerprints_do_not_depend_on_how_the_crystal_is_written(low_symmetry: Crystal) -> None:
    rng = np.random.default_rng(6)
    numbers, coords, matrix = low_symmetry.atomic_numbers, low_symmetry.frac_coords, low_symmetry.lattice
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    order = rng.permutation(6)
    skew = np.array([[1, 0, 0], [2, 1, 0], [-1, 3, 1]])
    double = np.concatenate([coords, coords + [1, 0, 0]]) / [2, 1, 1]
    others = [
        Crystal(numbers, coords, matrix @ rotation),
        Crystal(numbers, coords + rng.normal(size=3), matrix),
        Crystal(numbers, coords + rng.integers(-3, 4, (6, 3)), matrix),
        Crystal(numbers[order], coords[order], matrix),
        Crystal(numbers, coords @ np.linalg.inv(skew), skew @ matrix),
        Crystal(np.tile(numbers, 2), double, matrix * [[2], [1], [1]]),
    ]
    for k, other in enumerate(others):
        assert np.allclose(structure_fingerprint(other), structure_fingerprint(low_symmetry), atol=1e-9), k
        assert np.allclose(composition_fingerprints([other]), composition_fingerprints([low_symmetry]), atol=1e-12), k


def test_sparse_crystals_have_a_fingerprint_too() -> None:
    """Atoms beyond the covalent distance do not count; alone in its cell an atom has no neighbours."""
    lonely = Crystal(np.array([18]), np.zeros((1, 3)), 9.0 * np.eye(3), "gas")
    assert (structure_fingerprint(lonely) == 0).all()
    close = Crystal(np.array([6, 6]), np.array([[0.0, 0, 0], [0, 0, 0.01]]), 4.0 * np.eye(3), "0.04 Å")
    assert np.abs(site_fingerprints(close) - matminer_fingerprints(close)).max() < 1e-6


ODD = {
    "nan": Crystal(np.array([6]), np.full((1, 3), np.nan), np.eye(3), "nan"),
    "coincident": Crystal(np.array([6, 6]), np.zeros((2, 3)), 4 * np.eye(3), "coincident"),
    "sliver": Crystal(np.array([6]), np.zeros((1, 3)), np.array([[1.0, 0, 0], [1000, 1, 0], [0, 2e4, 50]]), "sliver"),
    "no radius": Crystal(np.array([100]), np.zeros((1, 3)), 4 * np.eye(3), "no radius"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_has_no_fingerprint_says_why(name: str) -> None:
    """Without the name of the crystal: the reason is kept for all crystals of the same content."""
    with pytest.raises(InputError) as found:
        structure_fingerprint(ODD[name])
    with pytest.raises(InputError) as renamed:
        structure_fingerprint(ODD[name].with_id("another"))
    assert str(found.value) == str(renamed.value) != ""


def test_whatever_breaks_costs_one_fingerprint(cubes: list[Crystal], monkeypatch: pytest.MonkeyPatch) -> None:
    original = fingerprints.structure_fingerprint

    def breaking(crystal: Crystal) -> Floats:
        if crystal.id == "c1":
            raise np.linalg.LinAlgError("Singular\nmatrix")
        return original(crystal)

    monkeypatch.setattr(fingerprints, "structure_fingerprint", breaking)
    found = fingerprint_crystals(cubes, Results(HERE, 60))
    assert found.reasons == {1: "LinAlgError: Singular matrix"}


def test_compositions_are_those_of_matminer(data_dir: Path) -> None:
    """Every element alone, every pair with a tie in the mode, and the compositions of real crystals."""
    featurizer = pytest.importorskip("matminer.featurizers.composition.composite").ElementProperty
    from pymatgen.core import Composition

    magpie = featurizer.from_preset("magpie")
    rng = np.random.default_rng(1)
    compositions = [{z: 1} for z in range(1, 119)]
    triples = [rng.choice(118, 3, replace=False) + 1 for _ in range(60)]
    compositions += [{int(a): 2, int(b): 2, int(c): 1} for a, b, c in triples]
    for name, count in (("perov_5/test.csv.gz", 60), ("mp_20/test.csv.gz", 60)):
        for crystal in some(data_dir, name, count):
            compositions.append(dict(zip(*np.unique(crystal.atomic_numbers, return_counts=True), strict=True)))
    crystals = [
        Crystal(np.repeat(list(c), list(c.values())), np.zeros((sum(c.values()), 3)), np.eye(3)) for c in compositions
    ]
    found = composition_fingerprints(crystals)
    expected = [magpie.featurize(Composition({SYMBOLS[int(z)]: int(n) for z, n in c.items()})) for c in compositions]
    assert np.abs(found - np.array(expected)).max() < 1e-9
    labels = [f"MagpieData {s} {p}" for p in table("magpie_elements") for s in STATISTICS]
    assert labels == magpie.feature_labels()


def test_frozen_tables_are_those_of_pymatgen() -> None:
    from pymatgen.analysis.local_env import CovalentRadius
    from pymatgen.core import Element

    radii, eneg = (by_atomic_number("crystal_nn", row) for row in ("covalent_radius", "electronegativity"))
    assert np.allclose(radii[1:], [CovalentRadius.radius.get(s, np.nan) for s in SYMBOLS[1:]], equal_nan=True)
    assert np.allclose(eneg[1:], [Element(s).X for s in SYMBOLS[1:]], equal_nan=True)


def test_scaling_is_the_published_one(data_dir: Path) -> None:
    import json

    published = json.loads((data_dir / "magpie_scaler.json").read_text())
    mean, std = np.array(published["mean"]), np.array(published["std"])
    assert np.allclose(standardise_compositions((mean + 2 * std)[None]), 2.0)


@pytest.fixture
def cubes() -> list[Crystal]:
    return [Crystal([55, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], np.eye(3) * (3.9 + 0.1 * k), f"c{k}") for k in range(5)]


def test_workers_give_the_same_and_reasons_are_kept(cubes: list[Crystal], tmp_path: Path) -> None:
    crystals = [*cubes, *ODD.values()]
    here = fingerprint_crystals(crystals, Results(HERE, 60))
    there = fingerprint_crystals(crystals, Results(LocalEngine(2), 60))
    assert np.array_equal(here.structure, there.structure, equal_nan=True)
    assert here.reasons == there.reasons
    assert list(here.reasons) == [5, 6, 7, 8]
    assert here.known.tolist() == [True] * 5 + [False] * 4
    assert np.isfinite(here.composition).all()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the crystals whose fingerprint is really computed; everything is worth keeping."""
    computed: list[str] = []
    original = fingerprints.structure_fingerprint_or_reason

    def count(crystal: Crystal) -> Floats | str:
        computed.append(crystal.id)
        return original(crystal)

    monkeypatch.setattr(fingerprints, "structure_fingerprint_or_reason", count)
    monkeypatch.setattr(result_cache, "WORTH_KEEPING", 0.0)
    monkeypatch.setattr(fingerprints, "kind", lambda: result_cache.Kind("fingerprint", "1"))
    return computed


def test_what_is_known_is_not_computed_again(cubes: list[Crystal], calls: list[str], tmp_path: Path) -> None:
    crystals = [*cubes, *ODD.values()]
    first = fingerprint_crystals(crystals, Results(HERE, 60, tmp_path))
    assert len(calls) == 9
    renamed = [c.with_id(c.id + "!") for c in crystals]
    again = fingerprint_crystals(renamed, Results(HERE, 60, tmp_path))
    assert len(calls) == 9, "the name of a crystal is not its content"
    assert np.array_equal(first.structure, again.structure, equal_nan=True)
    assert first.reasons == again.reasons
    moved = [Crystal(c.atomic_numbers, c.frac_coords + 1e-15, c.lattice, c.id) for c in crystals]
    fingerprint_crystals(moved, Results(HERE, 60, tmp_path))
    assert len(calls) == 9 + 8, "but every bit of it is, save where NaN stays NaN"


def test_an_interrupted_run_goes_on_where_it_was(
    cubes: list[Crystal], calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = fingerprints.structure_fingerprint_or_reason

    def interrupted(crystal: Crystal) -> Floats | str:
        if crystal.id == "c4":
            raise KeyboardInterrupt
        return counting(crystal)

    with monkeypatch.context() as patch:
        patch.setattr(fingerprints, "structure_fingerprint_or_reason", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fingerprint_crystals(cubes, Results(HERE, 60, tmp_path))
    fingerprint_crystals(cubes, Results(HERE, 60, tmp_path))
    assert sorted(calls) == ["c0", "c1", "c2", "c3", "c4"]


def test_a_crystal_whose_time_ran_out_is_tried_again(
    cubes: list[Crystal], calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = fingerprints.structure_fingerprint_or_reason
    with monkeypatch.context() as patch:
        patch.setattr(
            fingerprints,
            "structure_fingerprint_or_reason",
            lambda crystal: Lost("no result after 1 s") if crystal.id == "c1" else counting(crystal),
        )
        found = fingerprint_crystals(cubes, Results(HERE, 1, tmp_path))
    assert found.reasons == {1: "no result after 1 s"}
    again = fingerprint_crystals(cubes, Results(HERE, 60, tmp_path))
    assert again.reasons == {}
    assert sorted(calls) == ["c0", "c1", "c2", "c3", "c4"]


def test_a_folder_that_cannot_be_written_does_not_matter(
    cubes: list[Crystal], calls: list[str], tmp_path: Path
) -> None:
    (tmp_path / "fingerprint-1").write_text("a file where the folder should be")
    found = fingerprint_crystals(cubes, Results(HERE, 60, tmp_path))
    assert found.known.all()
