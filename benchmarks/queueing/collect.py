"""Results of a state folder into the checkout: finished models, and the newest weights of long unfinished runs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence

from dpcdvae.errors import InputError
from dpcdvae.files import atomic_output, write_json
from dpcdvae.model_store import WEIGHTS as MODEL_WEIGHTS
from dpcdvae.model_store import last_checkpoint, read_card
from queueing.state import MODELS, WEIGHTS, WEIGHTS_FILE, Run
from speed.record import ROOT

LEAST_MINUTES = 30.0
BUNDLED = ROOT / "src" / "dpcdvae" / "models"
TRIES = 5


def collect(runs: Sequence[Run]) -> int:
    """Puts what there is into the checkout, in half precision; returns 1 where something could not be read, else 0."""
    failed = collected = 0
    for run in runs:
        try:
            if damage := run.damage():
                raise damage
            if run.finished:
                _finished(run)
                collected += 1
            elif run.begun and run.spent() > LEAST_MINUTES:
                _unfinished(run)
                collected += 1
        except InputError as error:
            failed = 1
            print(f"{run.name}: not collected: {error}")
    if not collected and not failed:
        print(f"nothing to collect: no run is finished, or unfinished after {LEAST_MINUTES:.0f} minutes")
    return failed


def _finished(run: Run) -> None:
    from dpcdvae.training.card import export

    target = BUNDLED / run.entry.register if run.entry.register else MODELS / run.name
    # A card alone, of weights that are too large for the repository, says how to train them again.
    if (target / MODEL_WEIGHTS).exists() and read_card(target)["losses"] != read_card(run.model)["losses"]:
        raise InputError(f"{target} is another model: remove it (git rm) to take this one")
    target.parent.mkdir(exist_ok=True)
    with atomic_output(target) as temporary:
        export(run.model, temporary, half=True)
    print(f"{run.name}: finished, {target}")
    if (WEIGHTS / run.name).is_dir():  # of the run when it was not finished
        shutil.rmtree(WEIGHTS / run.name)


def _unfinished(run: Run) -> None:
    from dpcdvae.checkpoints.checkpoint import PRIOR, read_checkpoint, write_checkpoint
    from dpcdvae.training.card import half_weights

    for attempt in range(TRIES):
        try:
            checkpoint = read_checkpoint(last_checkpoint(run.folder))
            break
        except InputError:  # replaced while it was read
            if attempt == TRIES - 1:
                raise
            time.sleep(1)
    spent, record = run.spent(), run.record
    # The prior is fitted when a run ends. Until then it says nothing, and may be half of the file.
    weights = {name: value for name, value in half_weights(checkpoint).items() if not name.startswith(PRIOR)}
    config = {**checkpoint.config, **({"prior": {"name": "normal"}} if "prior" in checkpoint.config else {})}
    with atomic_output(WEIGHTS / run.name) as temporary:
        write_checkpoint(temporary, weights, config, checkpoint.facts)
        facts = {"entry": record["entry"], "commit": record["commit"], "minutes_spent": round(spent, 3)}
        write_json(temporary / WEIGHTS_FILE, facts)
    print(f"{run.name}: {spent:.0f} min so far, {WEIGHTS / run.name}")
