"""Fits the prior of a trained model again: longer, larger, or another one. Everything else stays as it is.

    python benchmarks/refit_prior.py mp-20 --data mp_20 --set prior.options.steps=16000 --out FOLDER

FOLDER is the new model, with the card of the old one but for its scores, which belong to the old prior. Set
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import time
from pathlib import Path

from dpcdvae.checkpoints.checkpoint import PRIOR, read_checkpoint, write_checkpoint
from dpcdvae.checkpoints.loading import loaded_model
from dpcdvae.config import override_config
from dpcdvae.errors import InputError
from dpcdvae.files import atomic_output, check_output, write_json
from dpcdvae.model.cdvae import CDVAE
from dpcdvae.model_scores import SCORES
from dpcdvae.model_store import CARD, find_model
from dpcdvae.priors import PRIORS
from dpcdvae.sampling.encoding import encoded
from quality.batches import split_table
from speed.command import Parser, run


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a checkpoint folder or a bundled name")
    parser.add_argument("--data", required=True, help="the data set that it was trained on, prepared")
    parser.add_argument("--set", nargs="+", default=[], metavar="OPTION=VALUE", help="of the prior")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new model")
    arguments = parser.parse_args()
    out = check_output(arguments.out, overwrite=None)
    checkpoint = read_checkpoint(find_model(arguments.model))
    model = loaded_model(checkpoint)
    if not isinstance(model, CDVAE):
        raise InputError(f"{arguments.model} is no crystal VAE: name one")
    if odd := [given for given in arguments.set if not given.startswith("prior.")]:
        raise InputError(f"--set {odd[0]}: only options of the prior can change, such as prior.options.steps=16000")
    config = override_config(model.config, arguments.set)
    card = {name: value for name, value in checkpoint.source.card().items() if name != SCORES}
    train, val = (encoded(model, split_table(arguments.data, split)) for split in ("train", "val"))
    prior = PRIORS[config.prior.name](config.model.latent_dim, config.prior.options).requires_grad_(False)
    start = time.process_time()
    prior.fit(train, val, config.train.seed)
    print(f"fitted in {(time.process_time() - start) / 60:.1f} CPU minutes")
    weights = {name: value for name, value in checkpoint.weights.items() if not name.startswith(PRIOR)}
    weights |= {f"{PRIOR}{name}": value for name, value in prior.state_dict().items()}
    with atomic_output(out) as folder:
        write_checkpoint(folder, weights, config.to_dict(), checkpoint.facts)
        write_json(folder / CARD, card)


if __name__ == "__main__":
    run(main)
