"""``dpcdvae demo``: crystals, numbers and a picture from the bundled model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dpcdvae.cli.common import SeedOption
from dpcdvae.cli.sample import StepsOption
from dpcdvae.errors import InputError


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder; an earlier demo there is replaced.")] = Path("demo"),
    model: Annotated[str, typer.Option("--model", help="A bundled model, or the folder of one.")] = "perov-5-compact",
    n: Annotated[int, typer.Option("-n", min=1, help="How many crystals.")] = 64,
    seed: SeedOption = 0,
    steps: StepsOption = None,
) -> None:
    """Generate crystals with the bundled model, evaluate them, draw the first sixteen.

    They are held against the statistics of the training set that the model's card carries, so nothing
    has to be downloaded.

    \b
    Example:
      dpcdvae demo --out demo
    """
    from dpcdvae.files import atomic_output, check_output, write_json, write_manifest

    _check_is_ours(out)
    check_output(out, overwrite=True)
    from rich.console import Console

    from dpcdvae.checkpoints.checkpoint import load_model
    from dpcdvae.evaluation import evaluate, resolve_reference
    from dpcdvae.io import write
    from dpcdvae.model_store import read_description, resolve_model
    from dpcdvae.report.picture import draw
    from dpcdvae.sampling.generation import generate, sampling_settings

    reference = resolve_reference(model)
    loaded = load_model(model)
    decoding = sampling_settings(model, steps, None)
    result = generate(loaded, n, seed=seed, **decoding)
    if not result.crystals:
        raise InputError(f"none of {n} crystals could be built: the model needs more training")
    report = evaluate(result.crystals, reference, failures=result.failures, seed=seed)
    with atomic_output(out) as folder:
        folder.mkdir()
        write(result.crystals, folder / "crystals", format="folder")
        write(result.crystals, folder / "crystals.extxyz")
        draw(result.crystals, folder / "crystals.png")
        write_json(folder / "evaluation.json", report.to_json())
        write_manifest(
            folder, "demo", {"model": model, "n": n, "seed": seed, **decoding},
            model_sha256=read_description(resolve_model(model))["sha256"], crystals=len(result.crystals),
            failures=[{"id": failure.id, "reason": failure.reason} for failure in result.failures],
        )  # fmt: skip
    Console(soft_wrap=True).print(report.table())
    print(f"\n{len(result.crystals)} crystals in {out}:")
    print(f"  {out / 'crystals'}/          a CIF for each")
    print(f"  {out / 'crystals.extxyz'}    all in one file")
    print(f"  {out / 'crystals.png'}       the first sixteen, drawn")
    print(f"  {out / 'evaluation.json'}    the numbers above, for machines")


def _check_is_ours(out: Path) -> None:
    """An earlier demo is replaced; anything else is left alone."""
    if not out.exists():
        return
    try:
        made_by = json.loads((out / "manifest.json").read_text(encoding="utf-8")).get("command")
    except (OSError, ValueError, AttributeError):
        made_by = None
    if made_by != "demo":
        raise InputError(f"{out} exists and is no earlier demo: give another --out or remove it")
