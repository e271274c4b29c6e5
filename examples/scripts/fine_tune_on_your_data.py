# %% [markdown]
# # Fine-tuning on crystals of your own
# Here forty strained perovskites stand for them, and one epoch for many. `docs/fine-tuning.md` has real numbers.

# %%
from pathlib import Path

import numpy as np
from pymatgen.core import Lattice, Structure

import dpcdvae
from dpcdvae.datasets.building import add_dataset

random = np.random.default_rng(0)
sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
mine = [
    Structure(Lattice.tetragonal(a, 1.02 * a), [first, second, "O", "O", "O"], sites)
    for first in ("Ca", "Sr", "Ba", "K")
    for second in ("Ti", "Zr", "Nb", "Hf", "Ta")
    for a in random.uniform(3.8, 4.2, 2)
]
dpcdvae.write(mine, "mine.extxyz")

# %% As a data set with three splits. `dpcdvae data add mine.extxyz --name mine` does the same.
add_dataset(Path("mine.extxyz"), "mine")
print(dpcdvae.load_dataset("mine")["train"])

# %% From the bundled model. Scalers are fitted to the new crystals, the rest of the weights is taken.
run = dpcdvae.train(
    "mine",
    "tuned",
    preset="compact+fine-tune",
    init="perov-5-compact",
    overrides=["train.max_epochs=1", "train.finish=false", "encoder.options.dimenet++.envelope_exponent=4"],
)
model = dpcdvae.load_model(run)

# %%
print(dpcdvae.reconstruct(model, mine[:2], steps=5))
