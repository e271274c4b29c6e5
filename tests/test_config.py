"""Presets state only what differs; overrides are checked; every mistake is one line that helps."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from dpcdvae.config import KINDS, config_from_dict, load_config
from dpcdvae.config.options import COMPONENTS
from dpcdvae.diffusion.ddpm import DDPM
from dpcdvae.diffusion.score_matching import ScoreMatching
from dpcdvae.errors import InputError
from dpcdvae.presets import FOLDER, load_preset, merge, preset_names


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in values.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return result


def test_paper_presets_are_the_published_configuration() -> None:
    """Spec 7: public Carbon-24 configuration; Perov-5 in batches of 512."""
    carbon = load_config("paper/dp-cdvae-carbon_24")
    assert (carbon.model.max_atoms, carbon.model.latent_dim, carbon.train.batch_size) == (24, 256, 256)
    assert (carbon.loss.lattice, carbon.model.lattice_scaler) == (100.0, "minmax")
    assert (carbon.loss.coords_late, carbon.loss.coords_late_epoch) == (10.0, 1000)
    assert (carbon.loss.teacher_forcing_epochs, carbon.loss.types, carbon.loss.kl) == (400, 0.1, 0.01)
    assert load_config("paper/dp-cdvae-perov_5").train.batch_size == 512
    process = DDPM(carbon.diffusion.timesteps, carbon.diffusion.options).options
    assert (process.schedule, process.beta_start, process.beta_end) == ("sigmoid", 1e-10, 0.01)
    assert (process.reverse_rule, process.turn_frame, process.time_input) == ("x0-jump", True, "step")


def test_the_published_configuration_of_cdvae() -> None:
    """Spec 9, and the public configurations of the data sets."""
    config = load_config("paper/cdvae-mp_20")
    process = ScoreMatching(config.diffusion.timesteps, config.diffusion.options)
    assert (process.timesteps, process.max_steps) == (50, 5000)
    assert (process.options.sigma_max, process.options.sigma_min, process.options.step_size) == (10, 0.01, 1e-4)
    loss = config.loss
    assert (loss.num_atoms, loss.coords, loss.types, loss.lattice, loss.composition, loss.kl) == (1, 10, 1, 10, 1, 0.01)
    assert (config.train.max_epochs, loss.teacher_forcing_epochs) == (1000, 500)
    assert (config.denoiser.options["atom_width"], config.denoiser.options["time_embedding"]) == (128, 0)


def test_what_the_authors_other_configurations_change_is_a_choice() -> None:
    plain, varied = (load_config(f"paper/dp-cdvae-na-carbon_24{choice}") for choice in ("", "+authors-variant"))
    assert plain.loss == load_config("paper/dp-cdvae-carbon_24").loss
    assert (varied.loss.num_atoms, varied.loss.coords_late_epoch, varied.loss.teacher_forcing_epochs) == (0.1, 800, 200)
    assert varied.diffusion.options == {"recentre": False}
    assert varied.encoder == plain.encoder


@pytest.mark.parametrize("name", preset_names())
def test_round_trip_through_json(name: str) -> None:
    config = load_config(name)
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("preset", "option"),
    [
        (preset, option)
        for preset, kind in (("paper", "generative"), ("energy", "regressor"), ("paper/ftcp", "ftcp"))
        for option in KINDS[kind].option_names()
    ],
)
def test_every_option_can_be_set(preset: str, option: str) -> None:
    """Writing an option's own value changes nothing, so the name and the way values are read are right."""
    config = load_config(preset)
    value = flat(config.to_dict()).get(option, {})
    text = json.dumps(value) if value != {} else "{}"
    assert load_config(preset, [f"{option}={text}"]) == config


def test_every_option_is_read() -> None:
    """An option that nothing reads would be ignored in silence.

    The weights of the loss are read by name; solver and length of the reverse process by ``DiffusionOptions``.
    """
    sources = [path for path in FOLDER.parent.rglob("*.py") if path.parent.name != "config"]
    nodes = [node for path in sources for node in ast.walk(ast.parse(path.read_text()))]
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute)} | {"kl", "reverse_rule", "steps_per_level"}
    names = {name.rpartition(".")[2] for kind in KINDS.values() for name in kind.option_names()}
    names |= {name for table in COMPONENTS.values() for options in table.values() for name in options.model_fields}
    assert names <= read


def test_overrides_come_in_order_and_reach_options() -> None:
    config = load_config(
        "compact",
        ["train.max_epochs=3", "train.max_epochs=4", "denoiser.options.fourier=[3, 8]", "train.precision=bf16-mixed"],
    )
    assert config.train.max_epochs == 4
    assert config.denoiser.options["fourier"] == [3, 8]
    assert config.train.precision == "bf16-mixed"


def test_overrides_are_checked_together() -> None:
    """In any order, as one may make sense by the next only."""
    wide = ["diffusion.options.sigma_min=12.0", "diffusion.options.sigma_max=20.0", "diffusion.options.step_size=1e-3"]
    named = ["encoder.options.gine.hidden=8", 'encoder.names=["gine"]']
    for overrides in (wide, wide[::-1], named, named[::-1]):
        load_config("compact/cdvae", overrides)
    with pytest.raises(InputError, match=r"sigma_min=12.0: score-matching: option sigma_min = 12 must be below"):
        load_config("compact/cdvae", wide[:1])


def test_options_belong_to_the_component_they_were_written_for() -> None:
    base = {"encoder": {"name": "a", "options": {"hidden": 1}}, "train": {"lr": 1.0}}
    assert merge(base, {"encoder": {"name": "b"}}) == {"encoder": {"name": "b"}, "train": {"lr": 1.0}}
    assert merge(base, {"encoder": {"name": "a", "options": {"x": 2}}})["encoder"]["options"] == {"hidden": 1, "x": 2}
    assert base["encoder"] == {"name": "a", "options": {"hidden": 1}}


def test_a_file_of_ones_own_extends_presets_and_files(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('extends = "compact"\n[train]\nlr = 0.5\n')
    (tmp_path / "mine.toml").write_text('extends = "base.toml"\n[train]\nmax_epochs = 7\n')
    config = load_config(tmp_path / "mine.toml")
    assert (config.train.lr, config.train.max_epochs) == (0.5, 7)
    assert config.model == load_config("compact").model


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_epoch=3", "did you mean 'train.max_epochs'"),
        ("trane.max_epochs=3", "did you mean 'train.max_epochs'"),
        ("max_epochs=3", "did you mean 'train.max_epochs'"),
        ("model.lr=1.0", "did you mean 'train.lr'"),
        ("train.max_epochs=ten", "option train.max_epochs must be a whole number from 1 to 1000000, not 'ten'"),
        ('train.max_epochs="10"', "must be a whole number from 1 to 1000000, not '10'"),
        ("train.max_epochs=0", "from 1 to 1000000, not 0"),
        ("train.lr=nan", "a number above 0 and up to 10, not nan"),
        ("train.finish=1", "must be true or false, not 1"),
        ("train.devices=some", "a whole number from 1 to 1024 or 'auto', not 'some'"),
        ("model.lattice_scaler=maxmin", "'standard' or 'minmax', not 'maxmin': did you mean 'minmax'?"),
        ("train=3", "is a section"),
        ("train.max_epochs", "section.option=value"),
        ("encoder.options=3", "must be a table, not 3"),
        ("encoder.names=gine", "a list of strings, not 'gine'"),
        ("model.poperty=x", "did you mean 'model.property'"),
        ("diffusion.timesteps=1000000", "from 1 to 10000, not 1000000"),
        ("denoiser.options.hidden=1000000", "option hidden of gemnet-t must be a whole number from 1 to 4096"),
        ("denoiser.options.hiden=8", "unknown option of gemnet-t 'hiden': did you mean 'hidden'?"),
        ("encoder.options.gine.hidden=8", "there is no 'gine' in encoder.names"),
        ("encoder.names=['dimenet']", "unknown encoder 'dimenet': did you mean 'dimenet++'?"),
        ("diffusion.name=ddmp", "unknown diffusion 'ddmp': did you mean 'ddpm'?"),
        ("prior.name=flows", "unknown prior 'flows': did you mean 'flow'?"),
        ("diffusion.options.reverse_rule=ddmi", "did you mean 'ddim'?"),
        ("denoiser.options.time_embedding=3", "time_embedding must be even, not 3"),
        ("denoiser.options.fourier=[3, 80]", "0 <= first <= last <= 32, not [3, 80]"),
        ("denoiser.options.fourier=[1.5]", "option fourier of gemnet-t must be a list of whole numbers"),
        (f"model.lattice_scaler={'x' * 5000}", "xxx..."),
    ],
)
def test_bad_overrides_are_refused_in_one_line(override: str, message: str) -> None:
    with pytest.raises(InputError, match="--set") as caught:
        load_config("compact", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_preset_offers_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown preset 'compat': did you mean 'compact'"):
        load_config("compat")
    with pytest.raises(InputError, match="did you mean 'paper/dp-cdvae-perov_5'"):
        load_config("paper/dpcdvae-perov5")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('extends = "a.toml"', "goes in a circle"),
        ('extends = "copmact"', "did you mean 'compact'"),
        ('extends = "missing.toml"', "no preset file"),
        ('extends = ["compact"]', "names one other preset"),
        ("model = ", "is not TOML"),
        ("[model]\nlatent = 3", "unknown option 'model.latent': did you mean 'model.latent_dim'"),
        ("[trian]\nlr = 3", "unknown option 'trian': did you mean 'train'"),
        ("train = 3", "option train"),
    ],
)
def test_bad_preset_files_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_preset_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no preset file"):
        load_config(tmp_path / "nowhere.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not TOML"):
        load_config(tmp_path / "binary.toml")


def test_a_configuration_never_changes() -> None:
    config = load_config("compact")
    with pytest.raises(ValueError, match="frozen"):
        config.train.lr = 1.0  # type: ignore[misc]
    assert load_preset("compact") == load_preset("compact")
