"""Presets: each layer changes what it says and nothing else, and every system trains, generates and reconstructs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from dpcdvae.checkpoints.loading import build_model, load_model, load_regressor
from dpcdvae.config import Config, config_from_dict, load_config
from dpcdvae.datasets import load_dataset
from dpcdvae.errors import InputError
from dpcdvae.model_store import last_checkpoint
from dpcdvae.presets import FOLDER, Layer, load_preset, merge, names, preset_layers, preset_names
from dpcdvae.sampling.finished_batches import GenerationResult
from dpcdvae.sampling.generation import generate, reconstruct
from dpcdvae.sampling.property_prediction import predict
from dpcdvae.structures.table import CrystalTable
from dpcdvae.training.train import train
from test_config import flat
from test_regressor import with_density

PAPER = ("dp-cdvae", "dp-cdvae-na", "dp-cdvae-gine", "dp-cdvae-na-gine", "cdvae", "cdvae-fourier")
SYSTEMS = (*PAPER, "dp-cdvae-cell", "dp-cdvae-stats")
DATASETS = ("perov_5", "carbon_24", "mp_20")
EVERY = [f"paper/{system}-{data}" for system in SYSTEMS for data in DATASETS] + [
    f"compact/{system}" for system in SYSTEMS
]
WITH_CHOICES = [
    *preset_names(),
    *(f"{size}/{system}+authors-code" for size in names("sizes") for system in SYSTEMS),
    *(f"paper/{system}+authors-variant" for system in SYSTEMS[:4]),
    *(f"{size}/{system}+fine-tune" for size in names("sizes") for system in SYSTEMS),
    *(f"{size}/{system}+wrapped" for size in names("sizes") for system in SYSTEMS[:4]),
]


def steps(preset: str) -> Iterator[tuple[Layer, dict[str, Any], dict[str, Any]]]:
    """Each layer of a preset, with all options before and after it; before is empty where the kind of model changes."""
    values: dict[str, Any] = {}
    for layer in preset_layers(preset):
        same_kind = values.get("kind", "generative") == layer.values.get("kind", values.get("kind", "generative"))
        before = flat(config_from_dict(values).to_dict()) if same_kind else {}
        values = merge(values, layer.values)
        yield layer, before, flat(config_from_dict(values).to_dict())
    assert values == load_preset(preset)


@pytest.mark.parametrize("preset", WITH_CHOICES)
def test_every_layer_changes_what_it_says_and_nothing_else(preset: str) -> None:
    """Only a new component of a section, which starts without options, lets go of those of the old one."""
    for layer, before, after in steps(preset):
        said = flat(layer.values)
        assert all(after[option] == value for option, value in said.items())
        changed = {option for option in after if before and before.get(option) != after[option]}
        renamed = {option.removesuffix(".name") for option in changed if option.endswith(".name")}
        dropped = tuple(f"{section}.options" for section in renamed)
        assert all(option in said or option.startswith(dropped) for option in changed)
        assert all(option.startswith(dropped) for option in before.keys() - after.keys() if after.get(option) is None)


def test_every_setting_of_a_preset_layer_changes_something() -> None:
    """Every line of every layer changes at least one preset."""
    stated: set[tuple[str, str]] = set()
    useful: set[tuple[str, str]] = set()
    for preset in WITH_CHOICES:
        for layer, before, after in steps(preset):
            for option in flat(layer.values):
                stated.add((layer.source, option))
                if before.get(option) != after[option]:
                    useful.add((layer.source, option))
    assert stated == useful


def test_a_variant_differs_from_dp_cdvae_in_its_encoder_alone() -> None:
    for size in names("sizes"):
        base = load_config(f"{size}/dp-cdvae").to_dict()
        for system in SYSTEMS[1:4]:
            variant = load_config(f"{size}/{system}").to_dict()
            assert {section for section in base if variant[section] != base[section]} == {"encoder"}


def test_the_choice_wrapped_changes_the_diffusion_alone() -> None:
    for size in names("sizes"):
        plain, wrapped = (load_config(f"{size}/dp-cdvae{choice}").to_dict() for choice in ("", "+wrapped"))
        assert {section for section in plain if plain[section] != wrapped[section]} == {"diffusion"}
        changed = {option for option, value in plain["diffusion"].items() if wrapped["diffusion"][option] != value}
        assert {"name"} <= changed <= {"name", "options"}
        assert wrapped["diffusion"]["name"] == "wrapped-normal"
        assert wrapped["diffusion"]["timesteps"] == 1000


def test_the_compact_system_with_the_cell_lets_its_latent_say_more() -> None:
    paper, cell = load_config("paper/dp-cdvae").to_dict(), load_config("paper/dp-cdvae-cell").to_dict()
    assert {section for section in paper if paper[section] != cell[section]} == {"encoder"}
    small, cell = flat(load_config("compact/dp-cdvae").to_dict()), flat(load_config("compact/dp-cdvae-cell").to_dict())
    changed = {option for option in small if small[option] != cell[option]}
    in_latent = {"encoder.names", "loss.kl", "prior.name", "diffusion.sampling_candidates"}
    assert changed == in_latent | {"loss.denoised_share", "loss.teacher_forcing_epochs"}


def test_the_systems_of_this_package_differ_in_what_the_encoder_is_given() -> None:
    cell, stats = (flat(load_config(f"compact/dp-cdvae-{name}").to_dict()) for name in ("cell", "stats"))
    changed = {option for option in cell if cell[option] != stats[option]}
    assert changed == {"encoder.names", "model.stats_hidden_dim", "diffusion.type_count_weight"}
    assert {*stats["encoder.names"]} - {*cell["encoder.names"]} == {"composition"}


def test_fourier_features_are_the_only_difference_of_cdvae_fourier() -> None:
    plain, fourier = flat(load_preset("paper/cdvae")), flat(load_preset("paper/cdvae-fourier"))
    assert {option for option in fourier if plain.get(option) != fourier[option]} == {"denoiser.options.fourier"}


def test_unknown_preset_names_are_refused_with_the_choices() -> None:
    with pytest.raises(InputError, match=r"did you mean 'paper/dp-cdvae-na-perov_5'.*systems cdvae, .*data sets"):
        load_preset("paper/dp-cdvae-n-perov_5")
    with pytest.raises(InputError, match=r"choice of a preset.*did you mean 'authors-code'"):
        load_preset("compact+author-code")
    for preset in (
        "paper/cdvae+authors-variant",
        "compact+authors-variant",
        "energy+authors-code",
        "compact/cdvae+wrapped",
    ):
        with pytest.raises(InputError, match="has nothing to say of"):
            load_preset(preset)
    assert load_preset("compact") == load_preset("compact/dp-cdvae")
    assert {*EVERY} <= {*preset_names()}
    assert all((FOLDER / f"{name}.toml").is_file() for name in names())


def test_parameters_of_the_published_sizes() -> None:
    """DP-CDVAE without the heads that the public code evaluates for nothing; each encoder by hand."""

    def linear(*widths: int) -> int:
        return sum(before * after + after for before, after in pairwise(widths))

    counts = {
        system: sum(p.numel() for p in build_model(load_config(f"paper/{system}")).parameters()) for system in SYSTEMS
    }
    assert round(counts["dp-cdvae"] / 1e6, 2) == 10.88
    assert counts["dp-cdvae-na"] - counts["dp-cdvae"] == 21 * 256 + linear(512, 1024, 256)
    gine = 101 * 256 + linear(1, 256, 256) + 3 * linear(256, 256, 256) + linear(256, 256, 256)
    assert counts["dp-cdvae-gine"] - counts["dp-cdvae"] == gine + linear(512, 512, 512, 256)
    assert counts["dp-cdvae-na-gine"] - counts["dp-cdvae"] == gine + 21 * 128 + linear(640, 640, 640, 256)
    assert counts["cdvae-fourier"] - counts["cdvae"] == 36 * 128


NARROW = [
    "model.latent_dim=16",
    "model.stats_hidden_dim=16",
    "denoiser.options={hidden=16, atom_width=16, blocks=1, emb_trip=8, bil_trip=8}",
]
NARROW_ENCODERS = {
    "dimenet++": "dimenet++={hidden=16, blocks=1, int_emb=8, basis_emb=4, out_emb=16}",
    "gine": "gine={hidden=16}",
    "num_atoms": "num_atoms={features=8}",
    "lattice": "lattice={hidden=8}",
    "composition": "composition={features=8}",
}
WHOLE = ("paper/dp-cdvae-na-gine-mp_20", "paper/cdvae-fourier-carbon_24")  # every component in its published width


@pytest.fixture(scope="module")
def tables() -> dict[str, CrystalTable]:
    """Crystals of all kinds: a cell of one atom has no coordinates to learn."""
    tables = load_dataset("prototypes").tables
    sizes = {"train": 12, "val": 4, "test": 3}
    return {split: with_density(tables[split].select(_spread(tables[split], n))) for split, n in sizes.items()}


def _spread(table: CrystalTable, count: int) -> list[int]:
    return [k * len(table) // count + len(table) // (2 * count) for k in range(count)]


def ids(result: GenerationResult) -> set[str]:
    return {crystal.id for crystal in result.crystals} | {failure.id for failure in result.failures}


def narrow(preset: str) -> list[str]:
    """What makes a preset's networks small; its components, losses, data set's settings and diffusion stay."""
    config = load_config(preset)
    assert isinstance(config, Config)
    prior = ["prior.options={width=16, layers=1, steps=20, batch=16, passes=4}"] if config.prior.name == "flow" else []
    return [*NARROW, *prior, *(f"encoder.options.{NARROW_ENCODERS[name]}" for name in config.encoder.names)]


@pytest.mark.parametrize(
    ("preset", "width"),
    [*((name, "narrow") for name in [*EVERY, "compact+wrapped"]), *((name, "whole") for name in WHOLE)],
)
def test_every_system_trains_generates_and_reconstructs(
    preset: str, width: str, tables: dict[str, CrystalTable], tmp_path: Path
) -> None:
    """Training moves every weight by a finite step, and what is made of the model bears the ids asked for."""
    widths = ["train.max_epochs=2", *narrow(preset)] if width == "narrow" else ["train.max_epochs=1"]
    config = load_config(preset, ["train.batch_size=4", *widths])
    assert isinstance(config, Config)
    folder = train(tables, {"name": "some", "sha256": "0"}, config, tmp_path / "run", preset=preset)
    model = load_model(last_checkpoint(folder))
    torch.manual_seed(config.train.seed)
    start = dict(build_model(config).named_parameters())
    for name, weight in model.named_parameters():
        assert weight.isfinite().all(), name
        assert not weight.requires_grad or not torch.equal(weight, start[name]), name
    model = load_model(folder)  # the best: that is the one whose prior is fitted
    made = generate(model, 3, steps=3)
    assert ids(made) == {"0-0", "0-1", "0-2"}
    again = reconstruct(model, tables["test"], steps=3)
    assert ids(again) == set(tables["test"].ids)
    for crystal in [*made.crystals, *again.crystals]:
        assert crystal.problem() is None
        assert crystal.num_atoms <= config.model.max_atoms


@pytest.mark.parametrize("preset", [name for name in names() if name.startswith("energy")])
def test_property_presets_train(preset: str, tables: dict[str, CrystalTable], tmp_path: Path) -> None:
    config = load_config(preset, ["train.max_epochs=2", "train.batch_size=6", "model.property=density"])
    folder = train(tables, {"name": "some", "sha256": "0"}, config, tmp_path / "run", preset=preset)
    assert predict(load_regressor(folder), tables["test"]).shape == (3,)
