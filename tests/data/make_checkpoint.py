"""Makes checkpoint-1: ``python tests/data/make_checkpoint.py OUT``. A test loads the one that was made with format 1.

A tiny model of fcc, bcc and simple cubic crystals of four elements, of which a few come back as themselves.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from dpcdvae.config import load_config
from dpcdvae.structures.bonds import crystal_nn_bonds
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.table import CrystalTable
from dpcdvae.training.card import export
from dpcdvae.training.train import train

SETTINGS = [
    "model.latent_dim=8",
    "model.stats_hidden_dim=32",
    "model.max_atoms=4",
    "encoder.options.dimenet++={hidden=16, blocks=1, int_emb=8, basis_emb=4, out_emb=16, output_layers=1}",
    "encoder.options.lattice={hidden=16}",
    "denoiser.options={hidden=16, atom_width=16, blocks=1, num_radial=8, emb_trip=8, emb_rbf=4, emb_cbf=4, bil_trip=8,"
    " layers_atom=1, time_embedding=16, fourier=[]}",
    "prior.name=flow",
    "prior.options={width=32, layers=2, steps=1000, batch=128, lr=3e-3, passes=16}",
    "diffusion.sampling_candidates=3",
    "diffusion.sampling_steps=10",
    "loss.kl=0.001",
    "train.max_epochs=60",
    "train.lr=3e-3",
    "train.weight_ema=0.98",
    "train.batch_size=32",
    "train.precision=32-true",
]
LATTICES = {
    "fcc": (np.ones((3, 3)) - np.eye(3)) / np.sqrt(2),
    "bcc": (np.ones((3, 3)) - 2 * np.eye(3)) / np.sqrt(3),
    "sc": np.eye(3),
}
LENGTHS = {13: 2.9, 26: 2.5, 29: 2.6, 47: 2.9}  # Å between neighbours


def crystals(n: int, seed: int) -> CrystalTable:
    """Cells of one atom and neighbours 5 % nearer or farther."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(n):
        kind, element = rng.choice(list(LATTICES)), int(rng.choice(list(LENGTHS)))
        lattice = LENGTHS[element] * rng.uniform(0.95, 1.05) * LATTICES[kind]
        made.append(Crystal(np.array([element]), np.zeros((1, 3)), lattice, f"{kind}-{element}-{k}"))
    return CrystalTable.from_crystals(made, [crystal_nn_bonds(crystal) for crystal in made])


def main(out: Path) -> None:
    tables = {"train": crystals(256, 0), "val": crystals(64, 1)}
    with tempfile.TemporaryDirectory() as folder:
        config = load_config("compact/dp-cdvae-cell", SETTINGS)
        run = train(tables, {"name": "cubic", "sha256": "0"}, config, Path(folder) / "run", preset="cell")
        export(run, out, half=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
