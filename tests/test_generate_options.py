"""What can be asked of generate: what was not seen in training is refused, targets are read, latents reach them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dpcdvae
from dpcdvae.errors import InputError
from dpcdvae.io import write
from dpcdvae.model_store import find_model
from dpcdvae.sampling import kinds
from dpcdvae.sampling.filters import space_group_number, tries_of
from dpcdvae.sampling.guidance import moved_to
from dpcdvae.sampling.target import Target
from dpcdvae.sampling.training_range import Subject
from dpcdvae.structures.crystal import Crystal
from tensors import random_crystal
from test_search import model_with_head


def test_what_was_not_seen_is_refused_unless_anyway(capsys: pytest.CaptureFixture[str]) -> None:
    model = find_model("perov-5-compact")
    for asked, message in (
        ({"formula": ["NaClO3"]}, "--formula: perov-5-compact was trained without Cl; give --anyway"),
        ({"elements": "Sr,O,He,Kr"}, "trained without He, Kr"),
        ({"num_atoms": "5,10"}, "trained without cells of 10 atoms, only of 5; give --anyway"),
        ({"formula": ["SrTiO3"], "num_atoms": "10"}, "trained without cells of 10 atoms"),
    ):
        with pytest.raises(InputError, match=message):
            kinds.generate_options(model, asked)
        assert kinds.generate_options(model, {**asked, "anyway": True}).options
    assert kinds.generate_options(model, {"formula": ["SrTiO3"], "num_atoms": "5"}).options["formula"] == "SrTiO3"
    assert not capsys.readouterr().err
    Subject("mine", 8, "", {}).check_seen((2,), (7,), "wish")
    assert "which elements and sizes mine was trained on is not known" in capsys.readouterr().err


CARD = {"property": {"name": "gap", "range": [0.0, 4.0], "quantiles": {"5": 1.0, "95": 3.0}}}
OLD_CARD = {"property": {"name": "gap", "quantiles": {"5": 1.0, "95": 3.0}}}


def test_targets_are_read() -> None:
    def parse(text: str, **options: Any) -> Target:
        return Target.parse(text, **({"head": "gap", "predicts": None, "card": CARD, "anyway": False} | options))

    assert parse("gap=1.5±0.1") == parse("gap = 1.5 +- 0.1") == Target("gap", 1.5, 0.1, "predicted_gap", guided=True)
    assert parse("gap=-1e-1+/-.5", anyway=True).value == -0.1
    assert parse("gap=2").tolerance == pytest.approx(4 / 20)
    assert parse("gap=2", card=OLD_CARD).tolerance == pytest.approx(2 / 20)
    assert parse("gap=2", head="", predicts="gap") == Target("gap", 2.0, 0.2, "evaluated_gap", guided=False)
    for text, options, message in (
        ("gap", {}, "write PROPERTY=VALUE"),
        ("gap=x", {}, "write PROPERTY=VALUE"),
        ("gap=4.1", {}, r"gap=4.1 lies outside of the training set, 0 to 4 \(its extremes\); give --anyway"),
        ("gap=3.5", {"card": OLD_CARD}, "its 5 and 95 % quantiles"),
        ("gap=2", {"card": {}}, "the range of gap is not known: give a tolerance"),
        ("gap=2±0", {}, "a tolerance above 0"),
        ("gap=1e400±1", {"anyway": True}, "a finite value"),
        ("energy=1", {}, "the model has a head for 'gap': give a --property-model for energy"),
        ("gap=1", {"predicts": "energy"}, "--property-model predicts 'energy', but --target is of 'gap'"),
    ):
        with pytest.raises(InputError, match=message):
            parse(text, **options)


def test_guided_latents_reach_the_target_and_go_no_farther_each_by_itself() -> None:
    model = model_with_head()
    assert model.property_head is not None
    z = torch.randn(12, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    before = model.property_head.scaler.inverse(model.property_head(z)).detach()
    target = Target("energy", float(before.median()), 0.4 * float(before.std()), "predicted_energy", guided=True)
    moved = moved_to(model, z, target)
    after = model.property_head.scaler.inverse(model.property_head(moved))
    there = (before - target.value).abs() <= target.tolerance / 2
    assert 0 < int(there.sum()) < 12
    assert torch.equal(moved[there], z[there])
    assert ((after - target.value).abs() <= target.tolerance / 2).all()
    for k in (0, 5):
        torch.testing.assert_close(moved_to(model, z[k : k + 1], target), moved[k : k + 1], rtol=0, atol=1e-9)


def test_a_head_guides_the_latents_and_predicts_their_crystals() -> None:
    model = model_with_head()
    result = dpcdvae.generate(model, 4, steps=2, target="energy=-2.0±1.5", max_tries=40)
    assert result.crystals
    assert all(abs(crystal.properties["predicted_energy"] + 2) <= 1.5 for crystal in result.crystals)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"space_group": 231}, "--space-group 231: numbers are 1 to 230"),
        ({"space_group": "Pm3m"}, "unknown space group 'Pm3m': did you mean 'Pm-3m'"),
        ({"target": "heat_ref=1"}, "the model has no property head: give a --property-model"),
        ({"target": "heat_ref=7", "property_model": "perov-5-energy"}, "outside of the training set, -0.346"),
        ({"property_model": "perov-5-energy"}, "--property-model without --target"),
        ({"target": "heat_ref=1", "property_model": "perov-5-compact"}, "predicts no property"),
        ({"spread": 2.0}, "--spread without --like"),
        ({"like": "nothing.cif"}, "no such file: nothing.cif"),
        ({"like": random_crystal(1, 30), "prior": "normal"}, "--like and --prior contradict"),
        ({"like": random_crystal(1, 30)}, "has 30 atoms: perov-5-compact holds 1 to 20"),
        ({"like": random_crystal(1, 5, elements=(36,))}, "trained without Kr"),
        ({"like": random_crystal(1, 4, elements=(8,))}, "trained without cells of 4 atoms"),
        ({"like": Crystal([101], np.zeros((1, 3)), 4 * np.eye(3))}, "element 101|Md"),
        ({"training": "perov_5"}, "--training without --novel"),
        ({"novel": True, "training": "nothing.cif"}, "no such file or folder"),
        ({"max_tries": 300}, "--max-tries: nothing is asked for that a crystal could fail"),
        ({"max_latent_distance": -1.0}, "--max-latent-distance must be above 0"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_options_that_contradict_are_refused_in_one_line(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        kinds.generate_options(find_model("perov-5-compact"), asked)
    assert "\n" not in str(error.value)


def test_space_groups_and_tries() -> None:
    assert space_group_number("Pm-3m") == space_group_number("221") == space_group_number(221) == 221
    assert (tries_of(10, None), tries_of(10, 15)) == (200, 15)


def test_novel_needs_the_training_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"the training set of perov-5-compact is not here .*or give --training"):
        kinds.generate_options(find_model("perov-5-compact"), {"novel": True})
    write([random_crystal(1), random_crystal(2)], tmp_path / "mine.extxyz")
    training = kinds.generate_options(
        find_model("perov-5-compact"), {"novel": True, "training": str(tmp_path / "mine.extxyz")}
    ).filters.training
    assert training is not None
    assert len(training) == 2
