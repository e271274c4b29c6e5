"""How a latent learns compositions: encoder, decoder and weight of the composition alone, without the other losses.

    python benchmarks/composition.py [--data mp_20] [--epochs 16] [--seed 0] [--show]

A variational autoencoder of the fractions of the elements, of the parts that a crystal VAE uses: features of the
fractions, an encoder, a latent of 128 numbers with its KL divergence (weight 1e-3), and a decoder of logits. Batches of
64 training crystals, Adam with a rate of 2e-3 that falls by a cosine. Told of the test crystals: the cross entropy
above its floor, which is the entropy of the compositions, and the share whose numbers of atoms come out right when the
probabilities are multiplied by N_a and rounded. Results: results/composition-DATA.json, where cases that are there
are not measured again. Set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpcdvae.datasets import load_dataset
from dpcdvae.encoders.composition import RARE
from dpcdvae.files import write_json
from dpcdvae.nn.layers import mlp
from dpcdvae.structures.elements import NUM_ELEMENTS
from dpcdvae.structures.table import CrystalTable
from quality.judging import markdown_table
from speed.command import Parser, positive, run, seed_number
from speed.record import ROOT, machine

LATENT, BATCH, RATE, KL, MOST = 128, 64, 2e-3, 1e-3, 2000
# features, hidden layers of the encoder, hidden layers of the decoder, their width, weight of the cross entropy
CASES = [
    ("fractions", 2, 2, 128, 1),
    ("fractions", 2, 2, 512, 10),
    ("fractions", 2, 1, 128, 1),
    ("fractions", 1, 1, 512, 10),
    ("fractions", 0, 1, 512, 10),
    ("logarithms", 0, 0, 128, 1),
    ("logarithms", 0, 1, 128, 1),
    ("logarithms", 0, 1, 512, 10),
    ("logarithms", 1, 1, 128, 1),
    ("logarithms", 1, 1, 512, 1),
    ("logarithms", 1, 1, 512, 10),
    ("logarithms", 1, 1, 512, 50),
]
HEADER = ["features", "hidden layers: encoder", "decoder", "width", "weight", "above the floor, nats", "right, %", "KL"]


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="mp_20")
    parser.add_argument("--epochs", type=positive, default=16)
    parser.add_argument("--seed", type=seed_number, default=0)
    parser.add_argument("--show", action="store_true", help="the table of the results that are there")
    arguments = parser.parse_args()
    file = ROOT / "benchmarks" / "results" / f"composition-{arguments.data}.json"
    if not arguments.show:
        tables = load_dataset(arguments.data).tables
        train, test = counts(tables["train"]), counts(tables["test"])[:MOST]
        given = {"data": arguments.data, "epochs": arguments.epochs, "seed": arguments.seed}
        there = json.loads(file.read_text()) if file.exists() else {}
        same = all(there.get(name) == value for name, value in given.items())
        known = {tuple(row["case"]): row for row in there["rows"]} if same else {}
        rows = [known.get(case) or measure(train, test, case, arguments.epochs, arguments.seed) for case in CASES]
        write_json(file, {**given, "machine": machine("cpu", torch.get_num_threads()), "rows": rows})
    for_table = json.loads(file.read_text())["rows"]
    print(markdown_table(HEADER, [[*map(str, row["case"]), *row["shown"]] for row in for_table]))


def counts(table: CrystalTable) -> Tensor:
    """(C, 100) atoms of each element."""
    found = np.zeros((len(table), NUM_ELEMENTS), np.float32)
    np.add.at(found, (np.repeat(np.arange(len(table)), table.num_atoms), table.atomic_numbers - 1), 1)
    return torch.from_numpy(found)


def measure(
    train: Tensor, test: Tensor, case: tuple[str, int, int, int, int], epochs: int, seed: int
) -> dict[str, Any]:
    features, encoder_layers, decoder_layers, width, weight = case
    torch.manual_seed(seed)
    encoder = mlp(NUM_ELEMENTS, width, 2 * LATENT, encoder_layers)
    decoder = mlp(LATENT, width, NUM_ELEMENTS, decoder_layers)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], RATE)
    steps = epochs * (len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    start = time.process_time()
    for _ in range(steps):
        chosen = train[torch.randint(len(train), (BATCH,))]
        mu, log_var = encoded(encoder, chosen, features)
        z = mu + (0.5 * log_var).exp() * torch.randn_like(mu)
        loss = weight * cross_entropy(decoder(z), chosen) + KL * divergence(mu, log_var)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        mu, log_var = encoded(encoder, test, features)
        logits = decoder(mu)
        excess = float(cross_entropy(logits, test) - cross_entropy(test.clamp(min=1e-12).log(), test))
        right = float((rounded(logits.softmax(-1), test.sum(1, keepdim=True)) == test).all(1).float().mean())
        kl = float(divergence(mu, log_var))
    row = {"case": case, "excess": excess, "right": right, "kl": kl, "seconds": time.process_time() - start}
    print(row, flush=True)
    return {**row, "shown": [f"{excess:.3f}", f"{100 * right:.1f}", f"{kl:.0f}"]}


def encoded(encoder: nn.Module, atoms: Tensor, features: str) -> tuple[Tensor, Tensor]:
    fractions = atoms / atoms.sum(1, keepdim=True)
    shown = torch.log1p(fractions / RARE) if features == "logarithms" else fractions
    mu, log_var = encoder(shown).chunk(2, -1)
    return mu, log_var


def cross_entropy(logits: Tensor, atoms: Tensor) -> Tensor:
    """Mean over crystals, in nats per atom."""
    return -(atoms / atoms.sum(1, keepdim=True) * logits.log_softmax(-1)).sum(-1).mean()


def divergence(mu: Tensor, log_var: Tensor) -> Tensor:
    return -0.5 * (1 + log_var - mu.square() - log_var.exp()).sum(-1).mean()


def rounded(probabilities: Tensor, num_atoms: Tensor) -> Tensor:
    """Whole numbers (C, 100) with the sum ``num_atoms`` (C, 1): the largest remainders are rounded up."""
    exact = probabilities * num_atoms
    whole = exact.floor()
    missing = num_atoms - whole.sum(1, keepdim=True)
    rank = (exact - whole).argsort(1, descending=True).argsort(1)
    return whole + (rank < missing)


if __name__ == "__main__":
    run(main)
