"""Checkpoints that somebody else wrote: their claims allocate nothing, nothing hangs, one line says what is wrong."""

from __future__ import annotations

import json
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest

from dpcdvae.checkpoints.checkpoint import read_checkpoint, write_checkpoint
from dpcdvae.checkpoints.loading import build_model, load_model
from dpcdvae.config import config_from_dict, load_config
from dpcdvae.errors import InputError
from dpcdvae.model_store import BUNDLED, find_model
from dpcdvae.training.card import half_weights

HUGE = 10**12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundled model."""
    return Path(shutil.copytree(BUNDLED / "perov-5-compact", tmp_path / "model"))


def changed(folder: Path, path: str, value: Any) -> None:
    """Sets one value of config.json, by its path with a slash between the levels."""
    description = json.loads((folder / "config.json").read_text())
    *levels, last = path.split("/")
    place = description
    for level in levels:
        place = place[level]
    place[last] = value
    (folder / "config.json").write_text(json.dumps(description))


def refused(folder: Path) -> str:
    """The one line that loading ends in; no more than 200 MB may be taken on the way."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError) as info:
        load_model(folder, "cpu")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    message = str(info.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


@pytest.mark.parametrize("value", [10**9, HUGE, 10**30])
@pytest.mark.parametrize(
    "path",
    [
        "config/model/latent_dim",
        "config/model/max_atoms",
        "config/model/stats_hidden_dim",
        "config/model/stats_hidden_layers",
        "config/encoder/options/dimenet++/hidden",
        "config/encoder/options/dimenet++/num_radial",
        "config/encoder/options/dimenet++/output_layers",
        "config/denoiser/options/hidden",
        "config/denoiser/options/blocks",
        "config/denoiser/options/feature_layers",
        "config/diffusion/timesteps",
        "config/diffusion/sampling_steps",
        "config/diffusion/sampling_candidates",
    ],
)
def test_a_huge_number_is_refused_before_anything_is_allocated(folder: Path, path: str, value: int) -> None:
    changed(folder, path, value)
    assert str(folder) in refused(folder) or path.split("/")[-1] in refused(folder)


def test_a_network_that_the_weights_are_not_of_is_refused(folder: Path) -> None:
    changed(folder, "config/model/stats_hidden_layers", 32)
    assert "does not fit the model that its config.json describes" in refused(folder)
    source = find_model(folder)
    with pytest.raises(InputError, match="does not fit"):
        half_weights(read_checkpoint(source))


def test_widths_that_ask_for_gigabytes_together_are_refused(folder: Path) -> None:
    widths = ("emb_trip", "emb_cbf", "bil_trip")  # a weight of 4096^3 numbers, each width within its bound
    for width in widths:
        changed(folder, f"config/denoiser/options/{width}", 4096)
    assert "does not fit the model that its config.json describes" in refused(folder)
    config = load_config("compact", [f"denoiser.options.{width}=4096" for width in widths])
    with pytest.raises(InputError, match=r"206,\d+ million parameters, more than 250 million: choose smaller widths"):
        build_model(config)


@pytest.mark.parametrize("depth", [200, 10_000, 200_000])
@pytest.mark.parametrize("path", ["config", "facts", "config/encoder/options"])
def test_a_file_nested_without_end_is_refused(folder: Path, path: str, depth: int) -> None:
    changed(folder, path, "NEST")
    text = (folder / "config.json").read_text().replace('"NEST"', '{"a": ' * depth + "1" + "}" * depth)
    (folder / "config.json").write_text(text)
    assert "config.json" in refused(folder)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1" * 5000, "1e999"])
@pytest.mark.parametrize("path", ["config/train/lr", "config/model/latent_dim", "config/diffusion/type_sigma_min"])
def test_a_number_that_is_none_is_refused(folder: Path, path: str, value: str) -> None:
    changed(folder, path, "NUMBER")
    (folder / "config.json").write_text((folder / "config.json").read_text().replace('"NUMBER"', value))
    assert "config.json" in refused(folder)


@pytest.mark.parametrize("value", [None, True, "128", [128], {"a": 1}, 1.5, -1])
@pytest.mark.parametrize(
    "path",
    [
        "sha256",
        "config",
        *(f"config/{part}" for part in "kind model model/latent_dim encoder/names encoder/options".split()),
        *(f"config/{part}" for part in "denoiser/options/hidden diffusion/timesteps".split()),
    ],
)
def test_a_value_of_another_type_is_refused(folder: Path, path: str, value: Any) -> None:
    changed(folder, path, value)
    assert refused(folder)


@pytest.mark.skipif(os.name != "posix", reason="makes pipes")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_regular_file_is_refused(folder: Path, name: str, kind: str) -> None:
    """Opening a pipe would wait for ever, and a device has no end."""
    (folder / name).unlink()
    if kind == "pipe":
        os.mkfifo(folder / name)
    elif kind == "folder":
        (folder / name).mkdir()
    else:
        (folder / name).symlink_to("/dev/zero")
    assert name in refused(folder)


def test_a_header_that_claims_more_than_the_file_holds_is_refused(folder: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert "model.safetensors is cut off or no safetensors file" in refused(folder)
    (folder / "model.safetensors").write_bytes((2**60).to_bytes(8, "little") + b"{}")
    assert "model.safetensors is cut off or no safetensors file" in refused(folder)


KINDS = {
    "ftcp": {"model": {"max_atoms": 6, "latent_dim": 4, "channels": [4, 4, 4], "hidden": 8}},
    "placement": {"model": {"max_atoms": 6, "features": 8, "interactions": 1, "head_width": 8, "kept_cells": 4}},
}


@pytest.fixture(params=KINDS)
def other_kind(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An untrained model of another kind than the bundled one."""
    config = config_from_dict({"kind": request.param, **KINDS[request.param]})
    write_checkpoint(tmp_path / request.param, build_model(config).state_dict(), config.to_dict(), {})
    return tmp_path / str(request.param)


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("kind", ["ftcp", "placement", "generative", "regressor", "", 5]),
        ("model/max_atoms", [5, 8, 1000, HUGE]),  # of FTCP 7 has the shapes of 6: rows come in fours
        ("model/latent_dim", [5, 4096]),
        ("model/channels", [[4, 4], [4, 4, 5], [HUGE] * 3, "444"]),
        ("representation/max_elements", [6, 100, 101]),
        ("representation/fourier", ["structure-factor", "other"]),
        ("representation/coordinates", ["periodic", 1]),
        ("model/features", [9, HUGE]),
        ("model/interactions", [0, 2]),
        ("model/kept_cells", [3, 1_000_000]),
        ("model/images", [0, 2, 27]),
        ("model/max_distance", [1e-9, 14.0, float(HUGE)]),
        ("model/bin_width", [1e-9, 0.04]),
        ("model/periodic", [False, "yes"]),
        ("sampling/lattice", ["box", "other"]),
        ("sampling/fine", [1e-9]),
        ("sampling/inner", [2.0, -1.0]),
    ],
)
def test_other_kinds_with_weights_of_another_configuration_are_refused(
    other_kind: Path, path: str, values: list[Any]
) -> None:
    config = json.loads((other_kind / "config.json").read_text())["config"]
    section, _, name = path.partition("/")
    if name and name not in config.get(section, {}):
        return  # no option of this kind
    for value in values:
        if value != config.get(section):
            changed(other_kind, f"config/{path}", value)
            assert refused(other_kind)
