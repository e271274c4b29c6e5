"""Fits the prior of a trained model again: longer, larger, or another one. Everything else stays as it is.

    python benchmarks/refit_prior.py mp-20 --set prior.options.steps=16000 --out FOLDER

The latents are those of the data set that the model's card names, which must be prepared. FOLDER is the new model. Its
card has no scores, which belong to the old prior, and says how the new one was fitted. Set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import time
from pathlib import Path

from dpcdvae.config import config_from_dict, override_config
from dpcdvae.datasets import load_split
from dpcdvae.errors import InputError
from dpcdvae.files import atomic_output, check_output, write_json
from dpcdvae.model_scores import SCORES
from dpcdvae.model_store import CARD, StoredModel, find_model
from speed.command import Parser, run

KINDS = ("generative", "ftcp")


def main() -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a checkpoint folder or a bundled name")
    parser.add_argument("--set", nargs="+", default=[], metavar="OPTION=VALUE", help="of the prior")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new model")
    arguments = parser.parse_args()
    out = check_output(arguments.out, overwrite=None)
    source = find_model(arguments.model)
    if source.kind not in KINDS:
        raise InputError(
            f"{source.name} is of the kind '{source.kind}', which has no prior: name a crystal VAE or FTCP"
        )
    if odd := [given for given in arguments.set if not given.startswith("prior.")]:
        raise InputError(f"--set {odd[0]}: only options of the prior can change, such as prior.options.steps=16000")
    refit(source, arguments.set, out)


def refit(source: StoredModel, changes: list[str], out: Path) -> None:
    card = source.card()
    config = override_config(config_from_dict(source.description["config"]), changes)
    tables = [load_split(f"{card['dataset']['name']}:{split}") for split in ("train", "val")]
    if (found := len(tables[0])) != (trained := card["dataset"]["crystals"]["train"]):
        raise InputError(
            f"{card['dataset']['name']} has {found} crystals to train here, and {source.name} was trained on "
            f"{trained}: prepare the same data set (dpcdvae data get)"
        )

    from dpcdvae.checkpoints.checkpoint import PRIOR, read_checkpoint, write_checkpoint
    from dpcdvae.checkpoints.loading import loaded_model
    from dpcdvae.ftcp.model import FTCP
    from dpcdvae.model.cdvae import CDVAE
    from dpcdvae.sampling.encoding import encoded
    from dpcdvae.training.fit_prior_and_threshold import fit_prior

    checkpoint = read_checkpoint(source)
    model = loaded_model(checkpoint)
    assert isinstance(model, CDVAE | FTCP)
    train, val = (encoded(model, table) for table in tables)
    start = time.process_time()
    prior = fit_prior(config.prior.name, config.prior.options, train, val, config.train.seed)
    minutes = round((time.process_time() - start) / 60, 1)
    weights = {name: value for name, value in checkpoint.weights.items() if not name.startswith(PRIOR)}
    stored = next(
        value.dtype for value in weights.values() if value.is_floating_point()
    )  # float16 of a half-precision model
    for name, value in prior.state_dict().items():
        weights[f"{PRIOR}{name}"] = value.to(stored) if value.is_floating_point() else value
    card = {name: value for name, value in card.items() if name != SCORES} | {
        "prior_parameters": sum(value.numel() for value in prior.state_dict().values()),
        "prior_refitted": {"set": changes, "cpu_minutes": minutes},
    }
    with atomic_output(out) as folder:
        write_checkpoint(folder, weights, config.to_dict(), checkpoint.facts)
        write_json(folder / CARD, card)
    print(f"fitted in {minutes} CPU minutes: {out}")


if __name__ == "__main__":
    run(main)
