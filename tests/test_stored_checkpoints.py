"""Checkpoints of every format so far, as they were written then: they load, and make the crystals that they made.

``data/make_checkpoint.py`` made them. Whoever changes the format adds one, and leaves the old ones as they are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from dpcdvae.checkpoints.loading import load_model
from dpcdvae.cli import main
from dpcdvae.io import read
from dpcdvae.model_store import FORMAT, read_card, read_description
from dpcdvae.sampling.generation import generate
from dpcdvae.structures.elements import ATOMIC_NUMBERS

FOLDER = Path(__file__).parent / "data"
OURS = FOLDER / "checkpoint-1"


def test_there_is_one_of_the_format_that_is_written() -> None:
    assert read_description(FOLDER / f"checkpoint-{FORMAT}")["format"] == FORMAT


def test_format_1_holds_half_precision_a_fitted_prior_and_a_threshold() -> None:
    stored = safetensors.torch.load_file(OURS / "model.safetensors")
    assert stored["mu.weight"].dtype == stored["prior.velocity.first.weight"].dtype == torch.float16
    assert read_card(str(OURS))["weights"] == "float16"
    model = load_model(OURS, "cpu")
    assert model.dtype == torch.float32
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert (model.config.prior.name, model.prior.fitted) == ("flow", True)
    assert model.agreement is not None
    assert model.agreement.threshold == pytest.approx(33.2443, abs=1e-3)
    assert model.agreement.accepted_matched == model.agreement.accepted == 64


@pytest.mark.parametrize(
    ("prior", "element", "lengths"),
    [(None, "Al", [2.80357, 2.80485, 2.80523]), ("normal", "Ag", [2.73846, 2.76626, 2.79726])],
)
def test_format_1_gives_its_crystal(prior: str | None, element: str, lengths: list[float]) -> None:
    """Number 1 of seed 0; up to the rounding of other machines."""
    result = generate(load_model(OURS, "cpu"), 1, seed=0, first=1, prior=prior)
    (crystal,) = result.crystals
    assert crystal.atomic_numbers.tolist() == [ATOMIC_NUMBERS[element]]
    np.testing.assert_allclose(crystal.lengths, lengths, atol=2e-3)
    assert crystal.properties["candidates"] == 1
    assert result.passes == 10


def test_format_1_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "one.json"
    assert main(["generate", str(OURS), "-n", "1", "--workers", "0", "--out", str(out)]) == 0
    assert len(read(out)) == 1
    assert capsys.readouterr().err == ""
