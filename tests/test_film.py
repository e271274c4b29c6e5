"""The film of one crystal: its last frame is the crystal that ``generate`` makes, its frames are the steps to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dpcdvae.cli import main
from dpcdvae.errors import InputError
from dpcdvae.io import read
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.sampling.film import film
from dpcdvae.sampling.kinds import generate
from tensors import tiny_model

STEPS = 5


@pytest.fixture(scope="module")
def model() -> CDVAE:
    return tiny_model(torch.float64)


@pytest.mark.parametrize("candidates", [1, 4])
@pytest.mark.parametrize("number", [0, 3])
def test_the_last_frame_is_the_generated_crystal(model: CDVAE, number: int, candidates: int) -> None:
    options = {"seed": 2, "steps": STEPS, "candidates": candidates}
    frames = film(model, number, **options)
    (crystal,) = generate(model, 1, first=number, batch_size=1, **options)
    assert [frame.id for frame in frames] == [f"2-{number}@{step}" for step in range(STEPS + 1)]
    assert [frame.properties["step"] for frame in frames] == list(range(STEPS + 1))
    np.testing.assert_array_equal(frames[-1].frac_coords, crystal.frac_coords)
    np.testing.assert_array_equal(frames[-1].atomic_numbers, crystal.atomic_numbers)
    for frame in frames:
        np.testing.assert_array_equal(frame.lattice, crystal.lattice)


def test_of_several_candidates_the_one_that_is_kept_is_shown(model: CDVAE) -> None:
    options = {"steps": STEPS, "candidates": 4}
    alone = [film(model, number, steps=STEPS, candidates=1) for number in range(6)]
    best = [film(model, number, **options) for number in range(6)]
    assert any((a[-1].frac_coords != b[-1].frac_coords).any() for a, b in zip(alone, best, strict=True))


def test_conditions_hold_in_every_frame(model: CDVAE) -> None:
    frames = film(model, 1, steps=STEPS, formula="SrTiO3", anyway=True)
    assert {frame.formula for frame in frames} == {"SrTiO3"}
    (crystal,) = generate(model, 1, first=1, batch_size=1, steps=STEPS, formula="SrTiO3", anyway=True)
    np.testing.assert_array_equal(frames[-1].frac_coords, crystal.frac_coords)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"neutral": True}, "--neutral has no meaning for a film"),
        ({"unique": True}, "--unique has no meaning for a film"),
        ({"formula": "Xx"}, "Xx"),
        ({"candidates": 0}, "--candidates must lie in 1"),
        ({"spread": "1"}, "spread"),
    ],
)
def test_what_a_film_cannot_have_is_refused(model: CDVAE, options: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        film(model, 0, steps=STEPS, **options)


def test_the_command_writes_frames_that_a_viewer_plays(tmp_path: Path) -> None:
    out = tmp_path / "film.extxyz"
    assert main(["film", "perov-5-compact", "--number", "2", "--steps", "3", "--out", str(out)]) == 0
    assert [crystal.id for crystal in read(out)] == [f"0-2@{step}" for step in range(4)]
    assert main(["film", "perov-5-energy", "--out", str(tmp_path / "none.extxyz")]) == 2
    assert not (tmp_path / "none.extxyz").exists()
