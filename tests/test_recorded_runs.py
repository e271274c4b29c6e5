"""The reverse process and the losses give the numbers that they gave when they were recorded.

``python tests/test_recorded_runs.py`` recorded them in ``data/recorded_runs.json``, at commit 063e692. Whoever means to
change a number records them anew and says so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpcdvae.config import Config
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.sampling.generation import generate
from tensors import TINY, batch_of, default_dtype, random_crystal, shake

RECORD = Path(__file__).parent / "data" / "recorded_runs.json"
WRAPPED = {"name": "wrapped-normal", "timesteps": 20, "options": {"sigma_max": 0.2}}
SCORE = {"name": "score-matching", "timesteps": 10, "options": {"steps_per_level": 2, "sigma_max": 1.0}}
DDPM: dict[str, Any] = {**TINY["diffusion"]}
LAST = {**SCORE, "options": {**SCORE["options"], "last_noise": False}}  # type: ignore[dict-item]
AUTHORS = {**DDPM, "options": {"beta_end": 0.2, "turn_frame": False, "time_input": "fraction"}}
# name -> (section "diffusion" of the configuration, solver by the name it had when it was recorded, steps)
RUNS: dict[str, tuple[dict[str, Any], str | None, int]] = {
    **{f"ddpm {solver}": (DDPM, solver, 6) for solver in ("eq7", "eq6", "ddim", "dpm++2m")},
    **{f"wrapped-normal {solver}": (WRAPPED, solver, 6) for solver in ("jump", "ancestral", "pf-ode")},
    "score-matching langevin": (SCORE, "langevin", 12),
    "score-matching without last noise": (LAST, None, 7),
    "ddpm as the authors' code": (AUTHORS, None, 5),
    "ddpm softmax": ({**DDPM, "type_noise": "softmax"}, None, 3),
}


def model_of(diffusion: dict[str, Any]) -> CDVAE:
    torch.manual_seed(0)
    with default_dtype(torch.float64):
        model = CDVAE(Config.from_dict({**TINY, "diffusion": diffusion}))
    shake(model)
    model.stats.scaler.shift.copy_(torch.tensor([2.5, 2.5, 2.5, 90, 90, 90]))
    model.stats.scaler.scale.copy_(torch.tensor([0.3, 0.3, 0.3, 5, 5, 5]))
    return model.requires_grad_(False)


def made(name: str) -> dict[str, Any]:
    """Three crystals of seed 4, and the losses of three others."""
    diffusion, solver, steps = RUNS[name]
    model = model_of(diffusion)
    crystals = generate(model, 3, seed=4, steps=steps, solver=solver).crystals
    batch = batch_of([random_crystal(k, n) for k, n in enumerate((2, 5, 1))], bonded=True)
    noise = model.noise_like(batch, torch.Generator().manual_seed(3))
    losses = model.losses(batch, noise, true_lattice=True)
    return {
        "frac_coords": np.concatenate([crystal.frac_coords for crystal in crystals]).tolist(),
        "atomic_numbers": np.concatenate([crystal.atomic_numbers for crystal in crystals]).tolist(),
        "losses": {term: float(value) for term, value in losses.items()},
    }


@pytest.mark.parametrize("name", RUNS)
def test_numbers_are_those_recorded(name: str) -> None:
    """To 1e-9: the rounding of other machines, amplified by the early steps."""
    recorded, found = json.loads(RECORD.read_text())[name], made(name)
    assert found["atomic_numbers"] == recorded["atomic_numbers"]
    difference = np.array(found["frac_coords"]) - np.array(recorded["frac_coords"])
    assert np.abs(difference - np.round(difference)).max() < 1e-9
    assert found["losses"] == pytest.approx(recorded["losses"], rel=1e-9)


if __name__ == "__main__":
    RECORD.write_text(json.dumps({name: made(name) for name in RUNS}) + "\n")
