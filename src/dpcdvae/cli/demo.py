"""``dpcdvae demo``: crystals, numbers and a picture from the bundled model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from dpcdvae.cli.groups import Call, option
from dpcdvae.cli.options import Seed, Steps, complete_models
from dpcdvae.cli.outputs import facts_of
from dpcdvae.errors import InputError

if TYPE_CHECKING:
    from dpcdvae.evaluation import Reference
    from dpcdvae.model_store import StoredModel


def demo(
    call: Call,
    out: Path = option(Path("demo"), "Folder; an earlier demo there is replaced."),
    model: str = option("perov-5", "A bundled model, or the folder of one.", autocompletion=complete_models),
    n: int = option(64, "How many crystals.", "-n", min=1, max=10**6),
    seed: Seed = 0,
    steps: Steps = None,
) -> None:
    """Generate crystals with the bundled model, evaluate them, draw the first sixteen.

    They are compared with the statistics of the training set in the model's card, so nothing has to be
    downloaded.

    \b
    Example:
      dpcdvae demo --out demo
    """
    from dpcdvae.files import atomic_output, check_output, write_json
    from dpcdvae.model_store import find_generative_model
    from dpcdvae.sampling import kinds

    _check_is_ours(out)
    check_output(out, overwrite=True)
    source = find_generative_model(model)
    how = kinds.settings(source, "generate", {"steps": steps})
    from rich.console import Console

    from dpcdvae.checkpoints.loading import load_model
    from dpcdvae.drawing.picture import draw
    from dpcdvae.evaluation import evaluate, resolve_reference
    from dpcdvae.io import write

    reference = resolve_reference(source)
    loaded = load_model(source)
    result = kinds.generate(loaded, n, seed=seed, **how)
    facts = {"model_sha256": source.sha256, **facts_of(result)}
    training = _training_set(source)
    report = evaluate(result.crystals, reference, failures=result.failures, seed=seed, training=training)
    with atomic_output(out) as folder:
        folder.mkdir()
        write(result.crystals, folder / "crystals", format="folder")
        write(result.crystals, folder / "crystals.extxyz")
        draw(result.crystals, folder / "crystals.png")
        write_json(folder / "evaluation.json", report.to_json())
        call.resolved(**how).write_manifest(folder, {"crystals": len(result.crystals), **facts})
    print(f"{len(result.crystals)} crystals in {out}:")
    print(f"  {out / 'crystals'}/          a CIF for each")
    print(f"  {out / 'crystals.extxyz'}    all in one file")
    print(f"  {out / 'crystals.png'}       the first sixteen, drawn")
    print(f"  {out / 'evaluation.json'}    every number, for machines\n")
    Console(soft_wrap=True).print(report.headline())
    if training is None:
        print("novelty: not known, as this training set is not here (a published one: dpcdvae data get NAME)")
    else:
        novel, interval = report["novelty"].shown("")
        print(f"novelty: {novel} ({interval}) are not in the training set {training.source}")


def _training_set(source: StoredModel) -> Reference | None:
    """The crystals that the model has learnt from, where a data set of this name and size is prepared on this machine.

    Not its checksum: another version of this package may write the same crystals as other bytes.
    """
    from dpcdvae.datasets import prepared_names
    from dpcdvae.evaluation import resolve_reference

    data = source.card().get("dataset")
    if not isinstance(data, dict) or data.get("name") not in prepared_names():
        return None
    found, counts = resolve_reference(f"{data['name']}:train"), data.get("crystals")
    return found if isinstance(counts, dict) and counts.get("train") == found.count else None


def _check_is_ours(out: Path) -> None:
    """An earlier demo is replaced; anything else is left alone."""
    if not out.exists():
        return
    from dpcdvae.files import read_whole

    try:
        made_by = json.loads(read_whole(out / "manifest.json")).get("command")
    except (OSError, ValueError, AttributeError):
        made_by = None
    if made_by != "demo":
        raise InputError(f"{out} exists and is no earlier demo: give another --out or remove it")
