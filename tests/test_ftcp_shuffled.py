"""The script on what FTCP owes to the description of crystals: disguises keep the crystal, results add up."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import ftcp_shuffled  # noqa: E402
from dpcdvae.checkpoints.checkpoint import write_checkpoint  # noqa: E402
from dpcdvae.config import FTCPConfig  # noqa: E402
from dpcdvae.errors import InputError  # noqa: E402
from dpcdvae.ftcp.model import FTCP  # noqa: E402
from dpcdvae.structures.standardise import standardise  # noqa: E402
from dpcdvae.structures.structure_matcher import compare  # noqa: E402
from dpcdvae.structures.table import save_tables  # noqa: E402
from dpcdvae.structures.tolerances import PUBLISHED  # noqa: E402
from tensors import batch_of, random_crystal, table_of, tiny_model  # noqa: E402

CRYSTALS = [standardise(random_crystal(seed, num_atoms=4, side=6)) for seed in range(3)]


@pytest.mark.parametrize("what", ftcp_shuffled.DISGUISES)
def test_a_crystal_described_anew_is_the_same_crystal(what: str) -> None:
    disguise, changed = ftcp_shuffled.DISGUISES[what], False
    for seed, crystal in enumerate(CRYSTALS):
        other = disguise(crystal, np.random.default_rng(seed))
        assert other.id == crystal.id
        assert other.composition == crystal.composition
        assert np.linalg.det(other.lattice) == pytest.approx(np.linalg.det(crystal.lattice))
        assert compare([other], crystal, PUBLISHED)[0].rms == pytest.approx(0, abs=1e-5)
        changed |= not np.allclose(other.frac_coords, crystal.frac_coords)
    assert changed is (what != "as in the data")


def test_the_last_disguise_has_the_cell_of_the_data_and_the_others_of_the_cell_have_not() -> None:
    for what, expected in (("all three, Niggli's cell again", True), ("all three", False), ("cell", False)):
        others = [ftcp_shuffled.DISGUISES[what](c, np.random.default_rng(k)) for k, c in enumerate(CRYSTALS)]
        same = [np.allclose(a.lengths, b.lengths, atol=1e-6) for a, b in zip(others, CRYSTALS, strict=True)]
        assert all(same) is expected


def arguments(folder: Path, model: str = "model") -> Namespace:
    return Namespace(
        model=str(folder / model), data=str(folder / "set.npz"), split="test", n=3, seed=0, sample_latent=False,
        device="cpu",
    )  # fmt: skip


def test_every_description_has_its_numbers_in_the_file(tmp_path: Path) -> None:
    values = {"model": {"latent_dim": 4, "channels": [3, 4, 5], "hidden": 8}, "representation": {"max_elements": 3}}
    torch.manual_seed(0)
    model = FTCP(FTCPConfig.from_dict(values))
    model.measure(batch_of(CRYSTALS, torch.float32), None)
    write_checkpoint(tmp_path / "model", model.state_dict(), model.config.to_dict(), {})
    save_tables(tmp_path / "set.npz", {"test": table_of(CRYSTALS)}, {"name": "set"})
    out = tmp_path / "out.json"
    result = ftcp_shuffled.measure(arguments(tmp_path), "model", out)
    assert set(result["described"]) == set(ftcp_shuffled.DISGUISES)
    for one in result["described"].values():
        assert one["match_rate"]["n"] == 3
        assert one["match_rate"]["interval"][0] <= one["match_rate"]["value"] <= one["match_rate"]["interval"][1]
        assert one["match_rate"]["value"] + sum(one["misses"].values()) == pytest.approx(1)
    again = ftcp_shuffled.measure(arguments(tmp_path), "model", out)
    assert json.loads(out.read_text())["results"] == [json.loads(json.dumps(again))]
    assert ftcp_shuffled.markdown(again).count("\n") == 9


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    model = tiny_model(torch.float32)
    write_checkpoint(tmp_path / "vae", model.state_dict(), model.config.to_dict(), {})
    with pytest.raises(InputError, match="vae is no FTCP model"):
        ftcp_shuffled.measure(arguments(tmp_path, "vae"), "vae", tmp_path / "out.json")


def test_the_page_is_what_the_results_give() -> None:
    page = ftcp_shuffled.PAGE.read_text(encoding="utf-8")
    assert ftcp_shuffled.render(page) == page
    assert all(f"| {what} |" in page for what in ftcp_shuffled.DISGUISES)
