"""FTCP as a kind of model: training, resuming, the prior at the end, crystals by every command, one-line refusals."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from dpcdvae.checkpoints.checkpoint import read_checkpoint, write_checkpoint
from dpcdvae.checkpoints.loading import load_model
from dpcdvae.cli import main
from dpcdvae.config import FTCPConfig, load_config
from dpcdvae.datasets import load_dataset
from dpcdvae.errors import InputError
from dpcdvae.ftcp.model import FTCP
from dpcdvae.io import Failure, read
from dpcdvae.model_store import best_checkpoint, last_checkpoint, read_card
from dpcdvae.sampling.encoding import encoded
from dpcdvae.sampling.finished_batches import GenerationResult
from dpcdvae.sampling.kinds import generate
from dpcdvae.sampling.reconstruction import reconstruct
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.table import CrystalTable, save_tables
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.training.train import check_data, train
from tensors import random_crystal, table_of

SMALL = [
    "model.latent_dim=8",
    "model.channels=[8, 8, 8]",
    "model.hidden=16",
    "train.batch_size=8",
    "train.max_epochs=3",
]
PRIORS = {"ftcp": "prior.options={points=10}", "ftcp-plus": "prior.options={width=16, layers=1, steps=20}"}
EPOCHS = ["train.lr_set_epochs=[1, 2]", "train.lr_set=[2e-4, 1e-5]"]


@pytest.fixture(scope="module")
def tables() -> dict[str, CrystalTable]:
    tables = load_dataset("prototypes").tables
    return {"train": tables["train"].select(range(24)), "val": tables["val"].select(range(6))}


def config(system: str, *overrides: str) -> FTCPConfig:
    schedule = EPOCHS if system == "ftcp" else []
    found = load_config(f"compact/{system}", [*SMALL, PRIORS[system], *schedule, *overrides])
    assert isinstance(found, FTCPConfig)
    return found


def run(system: str, tables: dict[str, CrystalTable], folder: Path, *overrides: str, resume: bool = False) -> Path:
    chosen = config(system, *overrides)
    return train(tables, {"name": "some", "sha256": "0"}, chosen, folder, preset=system, resume=resume)


@pytest.fixture(scope="module")
def runs(tables: dict[str, CrystalTable], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {system: run(system, tables, folder / system) for system in PRIORS}


def model_of(run: Path) -> FTCP:
    model = load_model(run, "cpu")
    assert isinstance(model, FTCP)
    return model


def ids(result: GenerationResult) -> list[str]:
    return [*(crystal.id for crystal in result.crystals), *(failure.id for failure in result.failures)]


@pytest.mark.parametrize("system", PRIORS)
def test_a_run_ends_with_finite_weights_a_prior_of_its_latents_and_an_honest_card(
    system: str, runs: dict[str, Path], tables: dict[str, CrystalTable]
) -> None:
    model, card = model_of(runs[system]), read_card(runs[system])
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert model.prior.fitted
    mu = encoded(model, tables["train"]).mu
    if system == "ftcp":
        points = model.prior.points  # type: ignore[union-attr]
        assert float(torch.cdist(points, mu).amin(1).max()) < 1e-4  # type: ignore[arg-type]
    else:
        centre = model.prior.whitening.mean  # type: ignore[union-attr]
        torch.testing.assert_close(centre, mu.mean(0), rtol=1e-3, atol=1e-3)
    assert "re-implemented from the paper" in card["about"]
    assert card["parameters"] > 0


@pytest.mark.parametrize("system", PRIORS)
def test_a_run_that_stopped_goes_on_as_if_it_had_not(
    system: str, runs: dict[str, Path], tables: dict[str, CrystalTable], tmp_path: Path
) -> None:
    """Running means of the normalisation, learning rate and averaged weights too."""
    folder = run(system, tables, tmp_path / "run", "train.finish=false", "train.max_minutes=1e-9")
    assert read_checkpoint(last_checkpoint(folder)).facts["epoch"] == 1
    run(system, tables, folder, resume=True)
    one, other = (read_checkpoint(best_checkpoint(place)) for place in (folder, runs[system]))
    assert one.weights.keys() == other.weights.keys()
    for name, value in other.weights.items():
        torch.testing.assert_close(one.weights[name], value, rtol=0, atol=0, msg=name)


def test_learning_rates_are_those_that_the_epochs_were_given(runs: dict[str, Path]) -> None:
    with (runs["ftcp"] / "metrics.csv").open(newline="") as stream:
        assert [float(row["lr"]) for row in csv.DictReader(stream)] == [5e-4, 2e-4, 1e-5]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.lr_set=[1e-4]"], "1 learning rates for 2 epochs"),
        (["train.lr_set=[1e-4, 0]"], "learning rates lie above 0"),
        (["train.lr_schedule=cosine"], "no meaning for train.lr_schedule = cosine"),
    ],
)
def test_learning_rates_that_do_not_fit_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config("paper/ftcp", overrides)


@pytest.mark.parametrize("weight", ["lattice", "coordinates"])
def test_a_weight_of_a_block_is_refused_where_the_terms_are_not_blocks(weight: str) -> None:
    override = f"loss.{weight}=2.0"
    with pytest.raises(InputError, match=r"weights of loss\.terms = blocks"):
        load_config("paper/ftcp", [override])
    assert getattr(load_config("paper/ftcp", [override, "loss.terms=blocks"]).loss, weight) == 2


@pytest.mark.parametrize("system", PRIORS)
def test_crystals_do_not_depend_on_batches_and_every_one_is_accounted_for(system: str, runs: dict[str, Path]) -> None:
    model = model_of(runs[system]).double()
    whole = generate(model, 10, seed=3)
    assert sorted(ids(whole)) == sorted(f"3-{k}" for k in range(10))
    parts = [generate(model, 4, seed=3, batch_size=3), generate(model, 6, seed=3, first=4, batch_size=2)]
    assert [f.reason for f in whole.failures] == [f.reason for part in parts for f in part.failures]
    same(whole.crystals, [crystal for part in parts for crystal in part.crystals])


@pytest.mark.parametrize("system", PRIORS)
def test_reconstruction_keeps_ids_and_takes_the_mean_unless_asked(
    system: str, runs: dict[str, Path], tables: dict[str, CrystalTable]
) -> None:
    model = model_of(runs[system]).double()
    result = reconstruct(model, tables["val"], batch_size=4)
    assert sorted(ids(result)) == sorted(map(str, tables["val"].ids))
    same(result.crystals, reconstruct(model, tables["val"], seed=9).crystals)
    with torch.inference_mode():
        mean = model.crystals(encoded(model, tables["val"]).mu, list(map(str, tables["val"].ids)))
    same(result.crystals, [crystal for crystal in mean if isinstance(crystal, Crystal)])
    drawn = reconstruct(model, tables["val"], sample_latent=True)
    assert sorted(ids(drawn)) == sorted(ids(result))


def same(some: Sequence[Crystal | Failure], others: Sequence[Crystal | Failure]) -> None:
    assert [crystal.id for crystal in some] == [crystal.id for crystal in others]
    for crystal, other in zip(some, others, strict=True):
        assert isinstance(crystal, Crystal)
        assert isinstance(other, Crystal)
        assert crystal.atomic_numbers.tolist() == other.atomic_numbers.tolist()
        np.testing.assert_allclose(crystal.lattice, other.lattice, rtol=1e-9)
        np.testing.assert_allclose(crystal.frac_coords, other.frac_coords, atol=1e-9)


LEARNT = [random_crystal(seed, num_atoms=seed % 3 + 2, side=6) for seed in range(4)]


@pytest.fixture(scope="module")
def learnt() -> FTCP:
    """A model that knows a few crystals by heart, without the trainer."""
    table = table_of(LEARNT)
    torch.manual_seed(0)
    wide = ["model.latent_dim=16", "model.channels=[16, 16, 16]", "model.hidden=64", "model.max_atoms=4"]
    model = FTCP(config("ftcp-plus", *wide, "representation.max_elements=3"))
    batch = CrystalBatch.from_table(table)
    model.measure(batch, None)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.momentum = 0.1  # a few hundred steps are too few for the published one
    optimizer, generator = torch.optim.Adam(model.parameters(), 3e-3), torch.Generator().manual_seed(0)
    for _ in range(300):
        optimizer.zero_grad()
        model.total(model.step_losses(batch, None, generator, 0), 0).backward()
        optimizer.step()
    model.prior.fit(encoded(model, table), encoded(model, table), 0)
    return model.eval()


def test_a_model_that_learnt_its_crystals_by_heart_gives_them_back(learnt: FTCP) -> None:
    """Elements, number of atoms, cell; and generation makes crystals."""
    found = reconstruct(learnt, table_of(LEARNT))
    assert not found.failures
    for crystal, again in zip(LEARNT, found.crystals, strict=True):
        assert again.composition == crystal.composition
        np.testing.assert_allclose(np.sort(again.lengths), np.sort(crystal.lengths), rtol=0.1)
    assert generate(learnt, 20).crystals


# by the commands


@pytest.fixture(scope="module")
def home(learnt: FTCP, tables: dict[str, CrystalTable], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and a data set."""
    folder = tmp_path_factory.mktemp("home")
    write_checkpoint(folder / "model", learnt.state_dict(), learnt.config.to_dict(), {})
    save_tables(folder / "set.npz", {"test": table_of(LEARNT)}, {"name": "set"})
    return folder


def test_the_commands_take_the_model_as_any_other(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are the shares of the whole run, and a reconstruction is that of the library."""
    monkeypatch.chdir(home)
    command = ["generate", "model", "-n", "12", "--batch-size", "4", "--workers", "0"]
    assert main([*command, "--out", "all.json"]) == 0
    for k in (1, 2, 3):
        assert main([*command, "--shard", f"{k}/3", "--out", f"{k}.json"]) == 0
    shards = [crystal for k in (1, 2, 3) if Path(f"{k}.json").exists() for crystal in read(f"{k}.json")]
    same(read("all.json"), shards)
    assert main(["reconstruct", "model", "set.npz:test", "--workers", "0", "--out", "again.json"]) == 0
    same(read("again.json"), reconstruct(load_model("model", "cpu"), table_of(LEARNT)).crystals)


def test_a_finished_run_is_exported(runs: dict[str, Path], tmp_path: Path) -> None:
    assert main(["export", str(runs["ftcp"]), "--out", str(tmp_path / "model")]) == 0
    one, other = model_of(tmp_path / "model").state_dict(), model_of(runs["ftcp"]).state_dict()
    assert all(torch.equal(one[name], value) for name, value in other.items())


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["generate", "model", "-n", "1", "--steps", "5"], "--steps has no meaning for model, an FTCP model"),
        (["generate", "model", "-n", "1", "--like", "x.cif"], "--like has no meaning"),
        (["generate", "model", "-n", "1", "--prior", "mixture"], "normal"),
        (["reconstruct", "model", "set.npz:test", "--force-types"], "--force-types has no meaning"),
        (["reconstruct", "model", "large.npz:test"], "random-0 has 30 atoms; this representation has 4 sites"),
        (["reconstruct", "model", "heavy.npz:test"], "element vectors end with Fm"),
        (["reconstruct", "model", "empty.npz:test"], "nothing to reconstruct"),
    ],
)
def test_what_the_kind_does_not_have_is_one_line(
    command: list[str], message: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    sets: dict[str, list[Crystal]] = {
        "large": [random_crystal(0, 30, side=9)],
        "heavy": [random_crystal(0, 2, elements=[102])],
        "empty": [],
    }
    for name, crystals in sets.items():
        save_tables(Path(f"{name}.npz"), {"test": table_of(crystals)}, {"name": name})
    assert main([*command, "--out", "x.json", "--workers", "0"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(home.glob("x.json*"))


def test_data_that_the_representation_cannot_hold_are_refused_before_training(tables: dict[str, CrystalTable]) -> None:
    """A preset of one data set with the data of another."""
    one = config("ftcp", "representation.max_elements=1")
    with pytest.raises(InputError, match=r"elements; this representation has columns for 1 .*max_elements="):
        check_data(tables, one)
    bonded = table_of([random_crystal(0, 2, elements=[101], side=6)], bonded=True)
    with pytest.raises(InputError, match="element vectors end with Fm"):
        check_data({"train": tables["train"], "val": bonded}, config("ftcp"))


def test_a_crystal_too_large_is_counted_and_the_others_come_back(home: Path) -> None:
    """The largest does not decide of the whole file; a file of none that fits is refused."""
    model = load_model(home / "model")
    small = [random_crystal(k, 2, side=6) for k in range(6)]
    large = random_crystal(9, 30, side=9)
    alone = reconstruct(model, table_of(small, bonded=True))
    mixed = reconstruct(model, table_of([*small[:3], large, *small[3:]], bonded=True))
    assert [(c.id, c.frac_coords.tobytes(), c.lattice.tobytes()) for c in mixed] == [
        (c.id, c.frac_coords.tobytes(), c.lattice.tobytes()) for c in alone
    ]
    first, *others = mixed.failures
    assert (first.id, others) == ("random-9", alone.failures)
    assert "it has 30 atoms; this representation has 4 sites" in first.reason
    with pytest.raises(InputError, match="none of 1 crystals can be reconstructed: random-9 has 30 atoms"):
        reconstruct(model, table_of([large], bonded=True))
