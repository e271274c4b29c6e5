"""A start from other weights: what fits is kept, scalers are those of the new crystals, the rest is new or refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpcdvae.checkpoints.checkpoint import Checkpoint, read_checkpoint
from dpcdvae.checkpoints.loading import build_model
from dpcdvae.cli import main
from dpcdvae.config import Config, load_config
from dpcdvae.datasets import load_dataset
from dpcdvae.errors import InputError
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.model_store import last_checkpoint
from dpcdvae.structures.table import CrystalTable, save_tables
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.training.lightning_module import TrainingModule, noise_generator
from dpcdvae.training.loader import targets_of
from dpcdvae.training.start_from import start_from
from dpcdvae.training.train import prepare, resumed_config, train
from test_training import TINY, metrics

FACTS = {"name": "some", "sha256": "0"}
WITH_SIZES = ['encoder.names=["dimenet++", "num_atoms"]', "encoder.options.num_atoms={features=4}"]
ONE_EPOCH = ["train.max_epochs=1", "train.finish=false"]


def config(*overrides: str) -> Config:
    return load_config("compact", [*TINY, *WITH_SIZES, *overrides])


def started(overrides: list[str], start: Checkpoint, table: CrystalTable) -> tuple[CDVAE, str]:
    torch.manual_seed(1)
    model = build_model(config(*overrides))
    assert isinstance(model, CDVAE)
    return model, "\n".join(start_from(model, start, table))


@pytest.fixture(scope="module")
def tables() -> dict[str, CrystalTable]:
    """Crystals with a density (g/cm^3)."""
    found = {}
    for split, table in load_dataset("prototypes").tables.items():
        few = table.select(range(32))
        found[split] = dataclasses.replace(few, properties={"density": np.array([crystal.density for crystal in few])})
    return found


@pytest.fixture(scope="module")
def other(tables: dict[str, CrystalTable]) -> dict[str, CrystalTable]:
    """The same crystals, with cells that are three times as long."""
    return {
        split: dataclasses.replace(
            table, lattices=3 * table.lattices, properties={"density": table.properties["density"] / 27}
        )
        for split, table in tables.items()
    }


@pytest.fixture(scope="module")
def plain(tables: dict[str, CrystalTable], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "plain"
    return train(tables, FACTS, config(*ONE_EPOCH), folder, preset="compact")


@pytest.fixture(scope="module")
def dense(tables: dict[str, CrystalTable], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "dense"
    return train(tables, FACTS, config(*ONE_EPOCH, "model.property=density"), folder, preset="compact")


def last(folder: Path) -> Checkpoint:
    return read_checkpoint(last_checkpoint(folder))


def test_scalers_are_those_of_the_new_crystals(dense: Path, other: dict[str, CrystalTable]) -> None:
    """Both scalers equal those of a model that starts at random, so the first lattice loss is of order one again."""
    overrides = ["model.property=density"]
    model, said = started(overrides, last(dense), other["train"])
    scratch = build_model(config(*overrides))
    prepare(scratch, other["train"])
    refitted = {name for name, _ in model.named_buffers() if ".scaler." in f".{name}"}
    assert len(refitted) == 4
    assert all(torch.equal(model.get_buffer(name), scratch.get_buffer(name)) for name in refitted)
    batch = CrystalBatch.from_table(other["val"])
    targets = targets_of(other["val"], "density").float()
    with torch.no_grad():
        losses = model.step_losses(batch, targets, noise_generator(0, 0, 0, 0, "cpu"), 0)
    assert float(losses["lattice"]) < 5
    fitted = "stats.scaler, property_head.scaler, stats.num_atoms, stats.lattice, stats.composition"
    assert said.endswith(f"fitted to these crystals: {fitted}")


def test_decoders_expect_the_new_sizes_elements_and_cells(plain: Path, other: dict[str, CrystalTable]) -> None:
    """Also where the start is sure of others; no lattice parameter is predicted worse than by its mean."""
    start = last(plain)
    start.weights["stats.lattice.2.weight"] *= 100
    start.weights["stats.num_atoms.2.bias"][5] += 20
    start.weights["stats.composition.2.bias"][90:] += 20
    model, _ = started(["model.max_atoms=24"], start, other["train"])
    batch = CrystalBatch.from_table(other["train"])
    with torch.no_grad():
        stats = model.stats(model.encode(batch)[0])
    sizes, elements = stats.num_atoms.softmax(-1).mean(0), stats.composition.softmax(-1).mean(0)
    wanted = torch.bincount(batch.num_atoms, minlength=25) / len(batch)
    torch.testing.assert_close(sizes, wanted.float(), rtol=0, atol=1.1 / (len(batch) + 1))
    each = torch.nn.functional.one_hot(batch.atomic_numbers - 1, 100).double()
    torch.testing.assert_close(elements, batch.mean_over_atoms(each).mean(0).float(), rtol=0, atol=1.1 / 33)
    scaled = model.stats.scaler(batch.lattice, batch.num_atoms)
    explained = (stats.lattice - scaled).square().mean(0) / scaled.var(0, correction=0).clamp(min=1e-6)
    assert float(explained.max()) < 1 + 1e-4


def test_the_same_crystals_change_nothing(dense: Path, tables: dict[str, CrystalTable]) -> None:
    model, said = started(["model.property=density"], last(dense), tables["train"])
    weights = last(dense).weights
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert said == f"started from {last_checkpoint(dense)}: {len(weights)} of {len(weights)} tensors"


@pytest.mark.parametrize(("most", "word"), [(24, "grown"), (12, "cut")])
def test_tables_by_size_keep_the_rows_that_both_have(
    plain: Path, tables: dict[str, CrystalTable], most: int, word: str
) -> None:
    overrides = [f"model.max_atoms={most}"]
    model, said = started(overrides, last(plain), tables["train"])
    torch.manual_seed(1)
    random = build_model(config(*overrides)).state_dict()
    resized = {name for name, value in random.items() if value.shape != last(plain).weights[name].shape}
    assert resized == {
        "stats.num_atoms.2.weight",
        "stats.num_atoms.2.bias",
        "encoder.parts.num_atoms.embedding.weight",
    }
    for name in resized:
        value, kept = model.state_dict()[name], min(most, 20) + 1
        assert len(value) == most + 1
        assert torch.equal(value[:kept], last(plain).weights[name][:kept])
        assert torch.equal(value[kept:], random[name][kept:])
    assert f"{word} from 20 to {most} atoms: encoder.parts.num_atoms.embedding, stats.num_atoms.2" in said


@pytest.mark.parametrize("layers", [1, 2])
def test_new_encoders_leave_the_latents_as_they_were(
    tables: dict[str, CrystalTable], tmp_path: Path, layers: int
) -> None:
    """Until they are trained; and they can be, so the posterior depends on them through weights that are not zero."""
    same = f"encoder.mixer_layers={layers}"
    start = train(tables, FACTS, config(*ONE_EPOCH, same), tmp_path / "start", preset="compact")
    more = 'encoder.names=["dimenet++", "num_atoms", "lattice", "composition"]'
    model, said = started([same, more], last(start), tables["train"])
    assert "wider: encoder.mixer.0" in said
    assert "new: encoder.parts.lattice" in said
    before = build_model(config(same))
    before.load_state_dict(last(start).weights)
    crystals = CrystalBatch.from_table(tables["val"])
    mu = model.encode(crystals).mu
    torch.testing.assert_close(mu, before.encode(crystals).mu)
    mixer = [value for name, value in model.named_parameters() if name.startswith("encoder.mixer.")]
    gradients = torch.autograd.grad(mu.square().sum(), mixer)
    assert all(gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize("most", [12, 20, 24])
def test_wider_decoders_give_what_they_gave(dense: Path, tables: dict[str, CrystalTable], most: int) -> None:
    """Also where the largest cell is another one: of the sizes that both know."""
    same = "model.property=density"
    wider = [same, "model.stats_hidden_dim=40", f"model.max_atoms={most}"]
    model, said = started(wider, last(dense), tables["train"])
    assert "wider: stats.num_atoms.0" in said
    assert ("atoms: " in said) == (most != 20)
    before = build_model(config(same))
    before.load_state_dict(last(dense).weights)
    z = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    assert model.property_head is not None
    assert before.property_head is not None
    ours, theirs, kept = model.stats(z), before.stats(z), min(most, 20) + 1
    torch.testing.assert_close(ours.num_atoms[:, :kept], theirs.num_atoms[:, :kept])
    torch.testing.assert_close([*ours[1:]], [*theirs[1:]])
    torch.testing.assert_close(model.property_head(z), before.property_head(z))


def test_a_property_is_added_exchanged_and_given_up(
    plain: Path, dense: Path, tables: dict[str, CrystalTable], tmp_path: Path
) -> None:
    """A head of another property is new; everything else is the start's; what else is learnt makes no difference."""
    both = {
        split: dataclasses.replace(table, properties={**table.properties, "other": np.arange(len(table)) / 7.0})
        for split, table in tables.items()
    }
    for start, property_ in ((plain, "density"), (dense, "other"), (dense, "")):
        weights = last(start).weights
        model, said = started([f"model.property={property_}"], last(start), both["train"])
        torch.manual_seed(1)
        random = build_model(config(f"model.property={property_}")).state_dict()
        for name, value in model.state_dict().items():
            if name.startswith("property_head.layers."):
                assert torch.equal(value, random[name]), name
            elif not name.startswith("property_head."):
                assert torch.equal(value, weights[name]), name
        word = "new: property_head" if property_ else "left out: property_head"
        assert word in said
        if model.property_head is not None:
            values = both["train"].properties[property_]
            assert float(model.property_head.scaler.mean) == pytest.approx(values.mean(), rel=1e-5)


def test_a_frozen_encoder_keeps_the_latents_while_the_rest_learns(
    plain: Path, tables: dict[str, CrystalTable], tmp_path: Path
) -> None:
    weights = last(plain).weights
    frozen = [name for name in weights if name.startswith(("encoder.", "mu.", "log_var."))]
    for epochs in (1, 2):
        chosen = config("train.freeze_encoder_epochs=1", f"train.max_epochs={epochs}", "train.finish=false")
        tuned = last(train(tables, FACTS, chosen, tmp_path / str(epochs), preset="x", init=plain)).weights
        assert all(torch.equal(tuned[name], weights[name]) for name in frozen) is (epochs == 1)
        assert not torch.equal(tuned["stats.lattice.2.weight"], weights["stats.lattice.2.weight"])


def test_a_fine_tuned_run_that_was_killed_continues_the_same_curve(
    plain: Path, other: dict[str, CrystalTable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the encoder is still frozen, and with a table and a head that the start did not have."""
    settings = ["train.freeze_encoder_epochs=2", "model.max_atoms=24", "model.property=density"]
    chosen = config(*settings, "train.max_epochs=3", "train.finish=false")
    whole = train(other, FACTS, chosen, tmp_path / "whole", preset="x", init=plain)

    step = TrainingModule.training_step

    def killed(self: TrainingModule, *args: Any) -> Any:
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train(other, FACTS, chosen, tmp_path / "killed", preset="x", init=plain)
    assert len(metrics(tmp_path / "killed")) == 1
    resumed, preset, _ = resumed_config(tmp_path / "killed")
    train(other, FACTS, resumed, tmp_path / "killed", preset=preset, resume=True)
    assert metrics(tmp_path / "killed") == metrics(whole)
    ours = last(tmp_path / "killed").weights
    assert all(torch.equal(ours[name], value) for name, value in last(whole).weights.items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.latent_dim=8"], r"options that differ: model.latent_dim \(16 there, 8 here\)"),
        (['encoder.names=["dimenet++"]', "encoder.options.num_atoms={}"], "encoder.names"),
        (['encoder.names=["num_atoms", "dimenet++", "lattice"]'], "encoder.names"),
        (["denoiser.options.blocks=2"], r"is not in it, and \d+ more; .*denoiser.options.blocks \(1 there, 2 here\)"),
    ],
)
def test_other_widths_and_parts_are_refused(
    plain: Path, tables: dict[str, CrystalTable], tmp_path: Path, overrides: list[str], message: str
) -> None:
    if "encoder.options.num_atoms={}" in overrides:
        chosen = load_config("compact", [*TINY, overrides[0]])
    else:
        chosen = config(*overrides)
    with pytest.raises(InputError, match=message) as refused:
        train(tables, FACTS, chosen, tmp_path / "run", preset="x", init=plain)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_options_that_leave_the_shapes_alone_are_named(plain: Path, tables: dict[str, CrystalTable]) -> None:
    _, said = started(["diffusion.options.schedule=cosine"], last(plain), tables["train"])
    assert said.endswith('diffusion.options.schedule ("linear" there, "cosine" here)')


SLIPS = {
    "--init perov-5-energy": "--init perov-5-energy is a model of the kind 'regressor' (trained with --preset energy",
    "--preset energy-gine --init perov-5-compact": "the preset describes one of the kind 'regressor'",
    "--preset energy-gine --set train.freeze_encoder_epochs=1": "leave it at 0",
    "--preset energy+fine-tune": "has nothing to say of 'energy'",
    "--set train.freeze_encoder_epochs=-1": "train.freeze_encoder_epochs",
    "--init empty": "neither config.json (a checkpoint) nor checkpoints/ (a run) is in it",
    "--init torn": "model.safetensors is missing",
}


@pytest.mark.parametrize("line", SLIPS)
def test_slips_are_one_line(
    line: str,
    tables: dict[str, CrystalTable],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save_tables(tmp_path / "few.npz", tables, {"name": "few", "energy": "density"})
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "config.json").write_text('{"format": 1, "config": {}, "facts": {}, "sha256": ""}')
    assert main(["train", "few.npz", *line.split(), "--out", "run"]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert SLIPS[line] in error[-1]
    assert not (tmp_path / "run").exists()
