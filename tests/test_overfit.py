"""One batch overfits: a small model learns crystals of Perov-5 by heart and reconstructs them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from crystal_files import real_crystals
from dpcdvae.config import load_config
from dpcdvae.model.cdvae import CDVAE, weighted_sum
from dpcdvae.sampling.generation import reconstruct
from dpcdvae.structures.bonds import crystal_nn_bonds
from dpcdvae.structures.standardise import standardise
from dpcdvae.structures.table import CrystalTable
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.training.train import prepare

SMALL = [
    "loss.kl=0.0",
    "loss.denoised_share=1.0",  # every crystal has its noise in every step
    "model.latent_dim=32",
    "encoder.options.dimenet++={hidden=40, blocks=1, int_emb=16, out_emb=32, output_layers=1}",
    "denoiser.options={hidden=40, atom_width=64, blocks=2, num_radial=32, emb_trip=16, emb_cbf=8, bil_trip=16,"
    " layers_atom=1, time_embedding=32, fourier=[]}",
]
CRYSTALS = 8
STEPS = 500
COPIES = 4  # of every crystal in a batch, each with noise of its own


@pytest.mark.slow
def test_one_batch_overfits(data_dir: Path) -> None:
    pymatgen = pytest.importorskip("pymatgen.analysis.structure_matcher")
    crystals = [standardise(crystal) for crystal in real_crystals(data_dir / "perov_5" / "train.csv.gz", CRYSTALS)]
    table = CrystalTable.from_crystals(crystals, [crystal_nn_bonds(crystal) for crystal in crystals])
    config = load_config("compact", SMALL)
    torch.manual_seed(0)
    model = CDVAE(config)
    prepare(model, table)
    batch = CrystalBatch.from_table(table, np.tile(np.arange(CRYSTALS), COPIES))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 3e-3 * (0.02 + 0.49 * (1 + math.cos(math.pi * step / STEPS)))
        losses = model.losses(batch, model.noise_like(batch, generator), true_lattice=True)
        optimizer.zero_grad()
        weighted_sum(losses, config.loss, 0).backward()
        torch.nn.utils.clip_grad_value_(model.parameters(), 0.5)
        optimizer.step()

    result = reconstruct(model, table, steps=50)
    matcher = pymatgen.StructureMatcher(stol=0.5, angle_tol=10, ltol=0.3)
    distances = [
        matcher.get_rms_dist(ours.to_pymatgen(), theirs.to_pymatgen())
        for ours, theirs in zip(result.crystals, crystals, strict=True)
    ]
    matched = [distance[0] for distance in distances if distance is not None]
    # Rounding differs between machines and grows over a training: on some, one crystal comes back with its two cations
    # exchanged. (On one machine all 8 match, with a mean rms of 0.005.)
    assert len(matched) >= CRYSTALS - 1
    assert np.mean(matched) < 0.02
