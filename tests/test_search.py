"""Property-guided search and interpolation: downhill for a fact, the same noise, honest counts, from the shell."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dpcdvae.cli import main
from dpcdvae.config import Config
from dpcdvae.crystal import Crystal
from dpcdvae.datasets import load_dataset
from dpcdvae.elements import SYMBOLS
from dpcdvae.errors import InputError
from dpcdvae.evaluation.intervals import wilson
from dpcdvae.evaluation.success import SearchReport, success_rates, thresholds
from dpcdvae.evaluation.validity import compositionally_valid, structurally_valid
from dpcdvae.io import cif_text, read, write
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.model.checkpoint import load_model, load_regressor
from dpcdvae.model.interpolation import interpolate, latents_between
from dpcdvae.model.regressor import predict
from dpcdvae.model.sampling import generate, reconstruct
from dpcdvae.model.search import (
    descend,
    encoded_start,
    optimize,
    predict_from_latents,
    random_start,
    saved_steps,
)
from dpcdvae.model_store import best_checkpoint, read_card
from dpcdvae.prototypes import build_prototypes
from tensors import TINY, default_dtype, random_crystal, shake, table_of

DIFFUSIONS: dict[str, dict[str, Any]] = {
    "ddpm": {"timesteps": 20, "options": {"beta_end": 0.2}},
    "score-matching": {"name": "score-matching", "timesteps": 6, "options": {"steps_per_level": 2}},
}
CRYSTALS = [random_crystal(k, 3 + k % 3) for k in range(5)]


def model_with_head(diffusion: str = "ddpm", property: str = "energy") -> CDVAE:
    """Untrained, in float64, cells of some 4 Å; the property has mean -2 and spread 3."""
    torch.manual_seed(0)
    values = {**TINY, "model": {**TINY["model"], "property": property}, "diffusion": DIFFUSIONS[diffusion]}
    with default_dtype(torch.float64):
        model = CDVAE(Config.from_dict(values))
    shake(model)
    model.stats.scaler.shift.copy_(torch.tensor([2.5, 2.5, 2.5, 90, 90, 90]))
    model.stats.scaler.scale.copy_(torch.tensor([0.3, 0.3, 0.3, 5, 5, 5]))
    if model.property_head is not None:
        model.property_head.scaler.mean.fill_(-2.0)
        model.property_head.scaler.std.fill_(3.0)
    return model


@pytest.fixture(params=DIFFUSIONS)
def model(request: pytest.FixtureRequest) -> CDVAE:
    return model_with_head(request.param)


class Bowl(nn.Module):
    """Lowest, -5 after scaling, at z = 1, 2, ..., with a weight so that there is something to leave alone."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.arange(1, latent_dim + 1, dtype=torch.float64) / latent_dim)

    def forward(self, z: Tensor) -> Tensor:
        return (z - self.centre).square().sum(-1) - 1


def with_bowl(model: CDVAE) -> CDVAE:
    assert model.property_head is not None
    model.property_head.layers = nn.Sequential(Bowl(6), nn.Unflatten(0, (-1, 1)))
    return model


def assert_same_crystals(ours: list[Crystal], theirs: list[Crystal]) -> None:
    """Up to rounding, which the early steps amplify; ids aside."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.atomic_numbers.tolist() == b.atomic_numbers.tolist()
        np.testing.assert_allclose(a.lattice, b.lattice, atol=1e-8)
        difference = a.frac_coords - b.frac_coords
        np.testing.assert_allclose(difference - np.round(difference), 0, atol=1e-6)


# descent


def test_descent_reaches_the_known_minimum_and_never_climbs() -> None:
    model = with_bowl(model_with_head())
    z = random_start(model, 4, seed=1).z
    descent = descend(model, z, gradient_steps=1000, lr=1e-2, saved=6)
    assert descent.steps == (0, 200, 400, 600, 800, 1000)
    assert (np.diff(descent.predicted, axis=0) <= 1e-9).all()
    np.testing.assert_allclose(descent.predicted[-1], -5, atol=1e-3)
    torch.testing.assert_close(descent.z[-1], torch.arange(1, 7).double().div(6).expand(4, 6), atol=1e-2, rtol=0)
    torch.testing.assert_close(descent.z[0], z)


def test_uphill_is_downhill_of_the_opposite() -> None:
    model = model_with_head()
    start = random_start(model, 3)
    up = descend(model, start.z, gradient_steps=50, lr=1e-2, saved=2, maximize=True)
    down = descend(model, start.z, gradient_steps=50, lr=1e-2, saved=2)
    assert (up.predicted[1] > up.predicted[0]).all()
    assert (down.predicted[1] < down.predicted[0]).all()
    assert model.property_head is not None
    with torch.no_grad():
        for layer in (model.property_head.layers[-1],):
            layer.weight.neg_()
            layer.bias.neg_()
    turned = descend(model, start.z, gradient_steps=50, lr=1e-2, saved=2)
    torch.testing.assert_close(turned.z, up.z)


def test_first_step_of_adam_is_the_learning_rate_against_the_sign_of_the_gradient() -> None:
    model = with_bowl(model_with_head())
    z = random_start(model, 4).z
    moved = descend(model, z, gradient_steps=2, lr=1e-3, saved=2).z[1] - z
    centre = torch.arange(1, 7).double() / 6
    torch.testing.assert_close(moved, -2e-3 * (z - centre).sign(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("trainable", [True, False])
def test_descent_leaves_the_model_alone(training: bool, trainable: bool) -> None:
    model = model_with_head().train(training).requires_grad_(trainable)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start = random_start(model, 3)
    optimize(model, start, gradient_steps=5, lr=0.1, saved=3, steps=2)
    assert model.training is training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    for name, weight in model.named_parameters():
        assert weight.requires_grad is trainable, name
        assert weight.grad is None, name
    assert not start.z.requires_grad


@pytest.mark.parametrize("gradient_steps", [5, 9, 100, 5000])
@pytest.mark.parametrize("saved", [2, 3, 5])
def test_saved_steps_begin_with_the_start_and_end_with_the_last(gradient_steps: int, saved: int) -> None:
    points = saved_steps(gradient_steps, saved)
    assert len(points) == saved
    assert points[0] == 0
    assert points[-1] == gradient_steps
    assert max(np.diff(points)) - min(np.diff(points)) <= 1


def test_what_cannot_be_searched(model: CDVAE) -> None:
    start = random_start(model, 2)
    with pytest.raises(InputError, match=r"--saved must lie between 2 .* the 5 gradient steps, not 6"):
        optimize(model, start, gradient_steps=5, saved=6)
    with pytest.raises(InputError, match="not 1"):
        optimize(model, start, gradient_steps=5, saved=1)
    with pytest.raises(InputError, match="--lr must be above 0"):
        optimize(model, start, gradient_steps=5, saved=2, lr=0.0)
    with pytest.raises(InputError, match="at most 1, not 1e"):
        optimize(model, start, gradient_steps=5, saved=2, lr=1e30)
    with pytest.raises(InputError, match="--steps must lie in"):
        optimize(model, start, gradient_steps=10**9, saved=2, steps=1000)  # said before the descent
    with pytest.raises(InputError, match="carry no bonds"):
        encoded_start(model, table_of(CRYSTALS))
    with pytest.raises(InputError, match="nothing to start from"):
        encoded_start(model, table_of([]))
    with pytest.raises(InputError, match="no property head: train one with dpcdvae train --property"):
        descend(model_with_head(property=""), start.z)


# decoding


def test_step_0_is_what_generate_makes(model: CDVAE) -> None:
    result = optimize(model, random_start(model, 4, seed=3), gradient_steps=4, saved=2, steps=3, seed=3)
    theirs = generate(model, 4, seed=3, steps=3)
    ours = [c for c, (point, _) in zip(result.crystals, result.places, strict=True) if point == 0]
    assert [c.id for c in ours] == [f"{c.id}@0" for c in theirs.crystals]
    assert_same_crystals(ours, theirs.crystals)


def test_step_0_is_what_reconstruct_makes(model: CDVAE) -> None:
    table = table_of(CRYSTALS, bonded=True)
    result = optimize(model, encoded_start(model, table, batch_size=2), gradient_steps=4, saved=2, steps=3)
    theirs = reconstruct(model, table, steps=3)
    ours = [c for c, (point, _) in zip(result.crystals, result.places, strict=True) if point == 0]
    assert [c.id for c in ours] == [f"{c.id}@0" for c in theirs.crystals]
    assert_same_crystals(ours, theirs.crystals)


def test_a_point_that_does_not_move_gives_the_same_crystal_at_every_step(model: CDVAE) -> None:
    """The noise of a starting point does not depend on the saved point; batches do not matter either."""
    result = optimize(
        model, random_start(model, 3), gradient_steps=6, lr=1e-300, saved=4, steps=4, batch_size=2
    )  # fmt: skip
    assert [(p, k) for p, k in result.places] == [(p, k) for p in range(4) for k in range(3)]
    assert [c.id for c in result.crystals] == [f"0-{k}@{step}" for step in (0, 2, 4, 6) for k in range(3)]
    for point in range(1, 4):
        assert_same_crystals(result.crystals[3 * point : 3 * point + 3], result.crystals[:3])
    lattices = [crystal.lattice.round(6).tobytes() for crystal in result.crystals[:3]]
    assert len(set(lattices)) == 3


def test_crystals_carry_the_prediction_in_the_unit_of_the_column(model: CDVAE) -> None:
    start = random_start(model, 3)
    result = optimize(model, start, gradient_steps=4, saved=3, steps=2)
    assert model.property_head is not None
    with torch.no_grad():
        scaled = model.property_head.layers(start.z)[:, 0]
    np.testing.assert_allclose(result.predicted[0], 3 * scaled.numpy() - 2)
    for crystal, (point, k) in zip(result.crystals, result.places, strict=True):
        assert crystal.properties == {"predicted_energy": result.predicted[point, k]}


def test_what_cannot_be_built_leaves_a_hole(model: CDVAE) -> None:
    def no_cell_for_the_second(z: Tensor) -> Any:
        found = statistics(z)
        lattice = found.lattice.clone()
        lattice[1] = torch.nan
        return found._replace(lattice=lattice)

    statistics = model.stats.forward
    model.stats.forward = no_cell_for_the_second  # type: ignore[method-assign]
    result = optimize(model, random_start(model, 3), gradient_steps=4, saved=2, steps=2)
    assert [failure.id for failure in result.failures] == ["0-1@0", "0-1@4"]
    spread = result.spread(np.ones(len(result.crystals)), np.nan)
    np.testing.assert_array_equal(spread, [[1, np.nan, 1], [1, np.nan, 1]])


# success rates


def test_success_rates_of_a_hand_made_search() -> None:
    """Six starting points, three saved points; goals 1, 2, 3."""
    nan, inf = np.nan, np.inf
    values = np.array(
        [
            [1.0, 5.0, 0.0, nan, 4.0, 2.5],
            [9.0, 2.0, 0.0, nan, nan, -inf],
            [9.0, 2.5, 9.0, 0.5, 2.8, 2.5],
        ]
    )
    valid = np.array(
        [
            [True, True, False, True, True, True],
            [True, True, False, True, True, True],
            [True, True, True, False, True, True],
        ]
    )
    # 0: 1.0 at the start, exactly the goal. 1: 2.0. 2: only invalid ones are good. 3: unknown, then invalid.
    # 4: 2.8 beside a NaN. 5: 2.5; what is not finite does not count.
    goals = {5: 1.0, 10: 2.0, 15: 3.0}
    rates = success_rates(values, valid, goals)
    assert [(rate.percent, rate.successes, rate.start_successes, rate.n) for rate in rates] == [
        (5, 1, 1, 6),
        (10, 2, 1, 6),
        (15, 4, 2, 6),
    ]
    assert rates[1].interval == wilson(2, 6)
    turned = success_rates(-values, valid, {p: -goal for p, goal in goals.items()}, maximize=True)
    assert [(r.successes, r.start_successes) for r in turned] == [(1, 1), (2, 1), (4, 2)]


def test_success_rates_never_fall_with_a_looser_goal_or_more_points() -> None:
    rng = np.random.default_rng(0)
    values, valid = rng.normal(size=(8, 50)), rng.random((8, 50)) < 0.7
    goals = {5: -1.6, 10: -1.3, 15: -1.0}
    all_points, few = success_rates(values, valid, goals), success_rates(values[:3], valid[:3], goals)
    assert all(a.successes >= b.successes >= a.start_successes for a, b in zip(all_points, few, strict=True))
    assert all_points[0].successes <= all_points[1].successes <= all_points[2].successes
    assert not any(rate.successes for rate in success_rates(values, np.zeros_like(valid), goals))


def test_goals_come_from_the_right_end() -> None:
    quantiles = {str(p): float(p) for p in (5, 10, 15, 50, 85, 90, 95)}
    assert thresholds(quantiles) == {5: 5.0, 10: 10.0, 15: 15.0}
    assert thresholds(quantiles, maximize=True) == {5: 95.0, 10: 90.0, 15: 85.0}
    with pytest.raises(InputError, match="no 95 % quantile"):
        thresholds({"5": 1.0}, maximize=True)


def report(judge: str = "") -> SearchReport:
    predicted = np.array([[1.0, 3.0], [0.0, 1.0]])
    judged = predicted if not judge else np.array([[2.0, np.nan], [np.nan, np.nan]])
    valid = np.array([[True, False], [False, False]])
    return SearchReport(
        "energy",
        "eV",
        judge,
        False,
        (0, 10),
        predicted,
        judged,
        valid,
        {5: 0.0, 10: 1.0, 15: 2.0},
        {"crystals that could not be built": 1},
    )


def test_a_report_says_who_judged_and_what_is_unknown() -> None:
    from rich.console import Console

    def shown(report: SearchReport) -> str:
        console = Console(width=120)
        with console.capture() as captured:
            console.print(report.table())
        return captured.get()

    own = shown(report())
    assert "own head: optimistic" in own
    assert "not judged, so no success: 1 crystals that could not be built" in own
    assert re.search(r"SR10 │ +≤ 1 │ +50.0%", own)
    other = shown(report("runs/energy"))
    assert "judged by runs/energy" in other
    assert "optimistic" not in other
    content = report("runs/energy").to_json()
    json.dumps(content, allow_nan=False)
    assert [point["judged_mean"] for point in content["points"]] == [2.0, None]
    assert [point["predicted_mean"] for point in content["points"]] == [2.0, 0.5]
    assert [rate["value"] for rate in content["success_rates"]] == [0.0, 0.0, 0.5]


def test_quantiles_of_the_training_set_are_the_published_goals(data_dir: Path) -> None:
    """CDVAE's ``Percentiles['perovskite']`` (scripts/compute_metrics.py), to the last digit that is printed."""
    energies = _column(data_dir / "perov_5" / "train.csv.gz", "heat_ref")
    assert len(energies) == 11356
    ours = [float(f"{np.percentile(energies, p):.7g}") for p in (5, 10, 15)]
    np.testing.assert_allclose(ours, [0.43924842, 0.61202443, 0.7364607], rtol=1e-7)


def _column(path: Path, name: str) -> list[float]:
    import gzip

    csv.field_size_limit(2**24)
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [float(row[name]) for row in csv.DictReader(stream)]


# interpolation


def test_the_line_has_both_ends_and_reads_backwards() -> None:
    first, last = torch.randn(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for n in (2, 3, 8, 11):
        line = latents_between(first, last, n)
        assert torch.equal(line[0], first)
        assert torch.equal(line[-1], last)
        torch.testing.assert_close(latents_between(last, first, n), line.flip(0), rtol=0, atol=1e-14)
        torch.testing.assert_close(line.diff(dim=0), ((last - first) / (n - 1)).expand(n - 1, 6))
        assert torch.equal(latents_between(first, first, n), first.expand(n, 6))
    with pytest.raises(InputError, match="-n must be at least 2"):
        latents_between(first, last, 1)


def test_interpolation_backwards_is_the_same_line(model: CDVAE) -> None:
    table = table_of(CRYSTALS[:2], bonded=True)
    forth, back = (interpolate(model, table.select(order), 5, steps=3).crystals for order in ([0, 1], [1, 0]))
    assert_same_crystals(forth, back[::-1])
    assert [c.id for c in forth] == [f"random-0-random-1@{k}" for k in range(5)]
    assert [c.properties["fraction"] for c in forth] == [0, 0.25, 0.5, 0.75, 1]
    predicted = [[c.properties["predicted_energy"] for c in line] for line in (forth, back[::-1])]
    np.testing.assert_allclose(*predicted)
    assert len(set(predicted[0])) == 5


def test_the_ends_are_the_crystals_reconstructed(model: CDVAE) -> None:
    table = table_of(CRYSTALS, bonded=True).select([2, 4])
    line = interpolate(model, table, 4, steps=5, seed=7, batch_size=3).crystals
    for end, k in ((line[0], 0), (line[-1], 1)):
        alone = reconstruct(model, table.select([k]), steps=5, seed=7).crystals
        assert_same_crystals([end], alone)
    start = encoded_start(model, table)
    ends = predict_from_latents(model, start.z)
    np.testing.assert_allclose([line[k].properties["predicted_energy"] for k in (0, -1)], ends)


def test_from_a_crystal_to_itself_nothing_changes(model: CDVAE) -> None:
    table = table_of(CRYSTALS[:1], bonded=True).select([0, 0])
    line = interpolate(model, table, 4, steps=4).crystals
    for crystal in line[1:]:
        assert_same_crystals([crystal], line[:1])


def test_interpolation_without_a_head_predicts_nothing() -> None:
    table = table_of(CRYSTALS[:2], bonded=True)
    line = interpolate(model_with_head(property=""), table, 2, steps=2).crystals
    assert all(set(crystal.properties) == {"fraction"} for crystal in line)


def test_what_cannot_be_interpolated(model: CDVAE) -> None:
    with pytest.raises(InputError, match="between two crystals, not 5"):
        interpolate(model, table_of(CRYSTALS, bonded=True), 4)
    with pytest.raises(InputError, match="carry no bonds"):
        interpolate(model, table_of(CRYSTALS[:2]), 4)
    with pytest.raises(InputError, match="--steps must lie in"):
        interpolate(model, table_of(CRYSTALS[:2], bonded=True), 4, steps=10**6)
    large = table_of([CRYSTALS[0], random_crystal(9, 9, 5.0)], bonded=True)  # it holds 8
    assert len(interpolate(model, large, 3, steps=2).crystals) == 3


# from the shell

SMALL = [
    "train.max_epochs=2", "train.batch_size=32", "model.latent_dim=16", "diffusion.timesteps=50",
    "denoiser.options={hidden=16, atom_width=16, blocks=1, num_radial=8, emb_trip=8, emb_cbf=4, bil_trip=8,"
    " layers_atom=1, time_embedding=16, fourier=[]}",
]  # fmt: skip
SEARCH = ["--gradient-steps", "100", "--lr", "0.01", "--saved", "3", "--steps", "3", "--workers", "0"]


def write_own_csv(path: Path) -> list[Crystal]:
    """Every twelfth prototype, with its density but for every fifth, and a column that says nothing."""
    crystals = build_prototypes()[::12]
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["material_id", "cif", "density", "flat"])
        for k, crystal in enumerate(crystals):
            density = "" if k % 5 == 0 else f"{crystal.density:.6f}"
            writer.writerow([crystal.id, cif_text(crystal), density, "1.5"])
    return crystals


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a data set of one's own, RUN with a head for its density, and JUDGE that predicts it."""
    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPCDVAE_HOME", str(folder / "home"))
        patch.chdir(folder)
        write_own_csv(folder / "own.csv")
        assert main(["data", "add", "own.csv", "--name", "own", "--split", "0.6,0.2,0.2", "--workers", "1"]) == 0
        write([random_crystal(k, elements=(91, 93, 94)) for k in range(4)], "foreign.json")  # and no property at all
        assert main(["data", "add", "foreign.json", "--name", "foreign", "--workers", "1"]) == 0
        settings = [part for value in SMALL for part in ("--set", value)]
        assert main(["train", "own", "--preset", "compact", "--property", "density", *settings, "--out", "RUN"]) == 0
        judge = ["--preset", "energy-gine", "--property", "density", *settings[:4]]
        assert main(["train", "own", *judge, "--out", "JUDGE"]) == 0
        yield folder


@pytest.fixture
def here(work: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder beside the trained models."""
    monkeypatch.setenv("DPCDVAE_HOME", str(work / "home"))
    monkeypatch.chdir(tmp_path)
    for name in ("RUN", "JUDGE"):
        (tmp_path / name).symlink_to(work / name)
    return tmp_path


def test_values_that_are_missing_are_masked_and_counted(work: Path) -> None:
    known = np.isfinite(load_dataset("own")["train"].properties["density"])
    assert 0 < known.sum() < len(known) == 30
    values = load_dataset("own")["train"].properties["density"][known]
    for name in ("RUN", "JUDGE"):
        facts = read_card(work / name)["property"]
        assert facts["known"] == known.sum()
        assert facts["quantiles"]["15"] == pytest.approx(np.percentile(values, 15), rel=1e-6)
    with_value = {
        z for crystal in load_dataset("own")["train"] if "density" in crystal.properties for z in crystal.atomic_numbers
    }
    assert load_regressor(work / "JUDGE").unknown_elements(range(1, 101)) == [
        SYMBOLS[z] for z in range(1, 101) if z not in with_value
    ]
    head = load_model(work / "RUN").property_head
    assert head is not None
    assert float(head.scaler.mean) == pytest.approx(values.mean(), rel=1e-6)
    assert float(head.scaler.std) == pytest.approx(values.std(), rel=1e-6)


def test_search_with_a_judge(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search = ["optimize", "RUN", "-n", "6", "--start", "own:train", *SEARCH, "--energy-model", "JUDGE"]
    assert main([*search, "--out", "found.json", "--json", "numbers.json"]) == 0
    page = capsys.readouterr().out
    assert "judged by JUDGE (trained on own, mean absolute error" in page
    crystals, numbers = read("found.json"), json.loads(Path("numbers.json").read_text())
    ids = load_dataset("own")["train"].ids[:6]
    assert {crystal.id for crystal in crystals} <= {f"{id}@{step}" for id in ids for step in (0, 50, 100)}
    valid = structurally_valid(crystals) & compositionally_valid(crystals)
    assert sum(point["valid"] for point in numbers["points"]) == valid.sum() > 0
    means = [point["predicted_mean"] for point in numbers["points"]]
    assert means[0] > means[1] > means[2]
    goals = [rate["threshold"] for rate in numbers["success_rates"]]
    assert goals == [read_card("JUDGE")["property"]["quantiles"][str(p)] for p in (5, 10, 15)]

    # The judge's word, asked again about the crystals as they were written.
    judge = load_regressor("JUDGE", "cpu")
    candidates = [crystal for crystal, good in zip(crystals, valid, strict=True) if good]
    known = [crystal for crystal in candidates if not judge.unknown_elements(crystal.atomic_numbers)]
    judged = [crystal.properties["judged_density"] for crystal in crystals if "judged_density" in crystal.properties]
    assert len(judged) == len(known)
    np.testing.assert_allclose(judged, predict(judge, table_of(known, bonded=True)), rtol=1e-4)
    reason = "valid crystals with elements that the judge was not trained on"
    assert numbers["not_judged"][reason] == len(candidates) - len(known)
    manifest = json.loads(Path("found.json.manifest.json").read_text())
    assert manifest["command"] == "optimize"
    assert manifest["arguments"]["energy_model"] == "JUDGE"

    assert main([*search, "--out", "again.json"]) == 0
    for ours, theirs in zip(read("again.json"), crystals, strict=True):
        assert ours.properties == theirs.properties
        assert np.array_equal(ours.frac_coords, theirs.frac_coords)


def test_search_from_anywhere_uphill_without_a_judge(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", "RUN", "-n", "5", "--maximize", *SEARCH, "--out", "up.extxyz", "--json", "up.json"]) == 0
    page = capsys.readouterr().out
    assert "by the model's own head: optimistic" in page
    numbers = json.loads(Path("up.json").read_text())
    means = [point["predicted_mean"] for point in numbers["points"]]
    assert means[0] < means[1] < means[2]
    quantiles = read_card("RUN")["property"]["quantiles"]
    assert [rate["threshold"] for rate in numbers["success_rates"]] == [quantiles[p] for p in ("95", "90", "85")]
    assert numbers["judge"] == "own head"
    assert all("judged_density" not in crystal.properties for crystal in read("up.extxyz"))


def test_line_between_a_crystal_of_the_data_and_its_file(here: Path) -> None:
    """A file is prepared as the data are: both ends are the same crystal, up to the digits of the CIF."""
    id = str(load_dataset("own")["test"].ids[3])
    (original,) = (crystal for crystal in build_prototypes() if crystal.id == id)
    write([original], "end.cif")
    assert main(["interpolate", "RUN", f"own/{id}", "end.cif", "-n", "3", "--steps", "3", "--out", "line.json"]) == 0
    line = read("line.json")
    assert [crystal.properties["fraction"] for crystal in line] == [0, 0.5, 1]
    predicted = [crystal.properties["predicted_density"] for crystal in line]
    assert predicted == pytest.approx([predicted[0]] * 3, rel=1e-3)
    assert main(["interpolate", "RUN", f"own:test/{id}", f"own:train/{load_dataset('own')['train'].ids[0]}",
                 "-n", "2", "--steps", "3", "--out", "other.json"]) == 0  # fmt: skip
    assert read("other.json")[0].properties["predicted_density"] == pytest.approx(predicted[0], rel=1e-3)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on standard error of a command that ends with 2 and leaves nothing behind."""
    before = sorted(path.name for path in Path().iterdir())
    capsys.readouterr()
    assert main([*arguments, "--out", "new.extxyz"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sorted(path.name for path in Path().iterdir()) == before
    line = [line for line in captured.err.splitlines() if "reading" not in line]
    assert len(line) == 1
    return line[0]


def test_bad_input_of_a_search(here: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no property head: train one with dpcdvae train --property" in fails(capsys, "optimize", "perov-5-compact")
    assert "predicts a property (density) and makes no crystals" in fails(capsys, "optimize", "JUDGE")
    run = ("optimize", "RUN", "-n", "3")
    assert "makes crystals and predicts no property" in fails(capsys, *run, "--energy-model", "RUN")
    other = copied_with_property(here / "JUDGE", tmp_path / "OTHER", "colour")
    message = fails(capsys, *run, "--energy-model", other)
    assert "OTHER predicts 'colour', but the search is for 'density'" in message
    message = fails(capsys, *run[:2], "-n", "2", "--energy-model", "JUDGE", "--start", "foreign:train")
    assert re.search(r"JUDGE was trained without (Pa|Np|Pu)\b.*, which are in foreign:train", message)
    assert "own:val has 10 crystals, fewer than -n 11" in fails(
        capsys, "optimize", "RUN", "-n", "11", "--start", "own:val"
    )
    assert "did you mean 'test'?" in fails(capsys, *run, "--start", "own:tset")
    assert "unknown data set 'onw'" in fails(capsys, *run, "--start", "onw")
    assert "--saved must lie between 2" in fails(capsys, *run, "--gradient-steps", "5", "--saved", "6")
    assert "--lr must be above 0" in fails(capsys, *run, "--lr", "-1")
    assert "--steps must lie in 1..50" in fails(capsys, *run, "--steps", "51")
    assert main([*run, "--out", "RUN"]) == 2


def copied_with_property(model: Path, folder: Path, name: str) -> str:
    """The best checkpoint of a run, said to predict something else."""
    shutil.copytree(best_checkpoint(model), folder)
    description = json.loads((folder / "config.json").read_text())
    description["config"]["model"]["property"] = name
    (folder / "config.json").write_text(json.dumps(description))
    return str(folder)


def test_bad_input_of_an_interpolation(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [str(id) for id in load_dataset("own")["test"].ids]
    known = f"own/{ids[0]}"
    write(CRYSTALS[:2], here / "two.json")
    line = ("interpolate", "RUN", known)
    assert "two.json holds 2 crystals: give a file of one" in fails(capsys, *line, "two.json")
    message = fails(capsys, *line, f"own/{ids[1][:-1]}")
    assert re.search(rf"no crystal '{ids[1][:-1]}' among the 10 of own: did you mean '\S+'\?", message)
    assert "no such file: gone.cif" in fails(capsys, *line, "gone.cif")
    assert "no such file: own:test" in fails(capsys, *line, "own:test")
    assert "unknown data set 'onw'" in fails(capsys, *line, f"onw/{ids[0]}")
    gas = Crystal(np.array([2]), np.zeros((1, 3)), 20 * np.eye(3), "gas")
    write([gas], here / "gas.cif")
    assert "gas.cif cannot be used: atom 1 is isolated" in fails(capsys, *line, "gas.cif")
    assert "--steps must lie in" in fails(capsys, *line, known, "--steps", "51")


def test_an_end_larger_than_the_model_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large = random_crystal(0, 30, 8.0)
    write([large], here / "large.json")
    id = str(load_dataset("own")["test"].ids[0])
    assert main(["interpolate", "RUN", "large.json", f"own/{id}", "-n", "2", "--steps", "2", "--out", "l.json"]) == 0
    assert re.search(r"note: 'random-0' has 30 atoms and this model decodes at most \d+", capsys.readouterr().err)


def test_columns_that_cannot_be_learnt(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [part for value in SMALL for part in ("--set", value)]
    message = fails(capsys, "train", "own", *settings, "--property", "densty")
    assert "unknown property of the data set 'densty': did you mean 'density'? choose from density, flat" in message
    assert "property 'flat' is 1.5 for every crystal" in fails(capsys, "train", "own", *settings, "--property", "flat")
    message = fails(capsys, "train", "foreign", *settings, "--property", "density")
    assert "the data set has no properties, so no 'density' to learn" in message
