"""``dpcdvae models``, ``dpcdvae generate``, ``dpcdvae reconstruct``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpcdvae.cli.batchwise import ShardOption, Target, WorkersOption, run_batches
from dpcdvae.cli.common import OutOption, OverwriteOption, SchedulerOption, SeedOption, tell_failures

if TYPE_CHECKING:
    from dpcdvae.sampling.generation import GenerationResult

ModelArgument = Annotated[
    str, typer.Argument(help="A bundled model, a run folder or a checkpoint folder.", show_default=False)
]
StepsOption = Annotated[
    int | None,
    typer.Option("--steps", min=1, help="Passes of the network; fewer is faster.", show_default="the model's own"),
]
SolverOption = Annotated[
    str | None,
    typer.Option(
        "--solver",
        help="How a step is made: eq7, eq6, ddim, dpm++2m; of wrapped-normal: jump, ancestral, pf-ode.",
        show_default="the model's own",
    ),
]
CandidatesOption = Annotated[
    int | None,
    typer.Option(
        "--candidates",
        help="Most decodes of each latent; the one whose encoding lies nearest to it is kept. 1: as published.",
        show_default="the model's own",
    ),
]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1, help="Crystals at a time: memory and speed.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, or auto.")]


def models() -> None:
    """The models that come with the package.

    \b
    Example:
      dpcdvae models
    """
    from dpcdvae.model_store import bundled_models, read_card

    for name in bundled_models():
        print(f"{name}  {read_card(name)['summary']}")


def generate(
    model: ModelArgument,
    out: OutOption,
    n: Annotated[int, typer.Option("-n", min=1, help="How many crystals.")] = 100,
    seed: SeedOption = 0,
    steps: StepsOption = None,
    solver: SolverOption = None,
    candidates: CandidatesOption = None,
    prior: Annotated[
        str | None,
        typer.Option("--prior", help="What z is drawn from: normal, as published.", show_default="the model's own"),
    ] = None,
    num_atoms: Annotated[int | None, typer.Option("--num-atoms", min=1, help="Atoms in every cell.")] = None,
    formula: Annotated[str | None, typer.Option("--formula", help="Atoms of every cell, e.g. SrTiO3.")] = None,
    first: Annotated[
        int, typer.Option("--first", min=0, max=2**62, help="Number of the first crystal, to share out a seed.")
    ] = 0,
    batch_size: BatchOption = 256,
    shard: ShardOption = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
) -> None:
    """Generate new crystals; the ending of --out chooses the format (a folder gets CIFs).

    Crystal k of a seed gets the same noise whatever the batch size, the shard or the number of workers, and, with the
    same batch size, the same digits. Finished batches are kept in OUT.work: after a kill the same command goes on.

    \b
    Examples:
      dpcdvae generate perov-5-compact -n 100 --seed 0 --out crystals.extxyz
      dpcdvae generate perov-5-compact -n 10 --formula SrTiO3 --out srtio3/
      dpcdvae generate perov-5-compact -n 1000000 --shard 3/100 --out shards/3.extxyz
    """
    target = Target(out, overwrite, batch_size, shard, device, workers, scheduler)
    target.check()
    from dpcdvae.sampling.batchwise import Generate
    from dpcdvae.sampling.generation import prior_name, sampling_settings

    options = {
        "seed": seed, **sampling_settings(model, steps, solver, candidates), "prior": prior_name(model, prior),
        "num_atoms": num_atoms, "formula": formula,
    }  # fmt: skip
    run_batches(
        "generate", "generating", model, n, target, lambda source: Generate(source, first, options),
        lambda batch: batch, {"n": n, "first": first, **options},
    )  # fmt: skip


def reconstruct(
    model: ModelArgument,
    crystals: Annotated[str, typer.Argument(help="DATASET or DATASET:split (test without).", show_default=False)],
    out: OutOption,
    force_num_atoms: Annotated[bool, typer.Option("--force-num-atoms", help="True number of atoms.")] = False,
    force_types: Annotated[bool, typer.Option("--force-types", help="True number and types of atoms.")] = False,
    sample_latent: Annotated[
        bool, typer.Option("--sample-latent", help="Draw z as the paper does, instead of its mean.")
    ] = False,
    seed: SeedOption = 0,
    steps: StepsOption = None,
    solver: SolverOption = None,
    candidates: CandidatesOption = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many.")] = None,
    batch_size: BatchOption = 256,
    shard: ShardOption = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
) -> None:
    """Encode crystals and decode them again, under their own ids.

    Finished batches are kept in OUT.work: after a kill the same command goes on.

    \b
    Example:
      dpcdvae reconstruct runs/perov perov_5:test --out recon.extxyz
      dpcdvae evaluate recon.extxyz --reference perov_5:test --paired
    """
    from dpcdvae.datasets import load_split

    target = Target(out, overwrite, batch_size, shard, device, workers, scheduler)
    target.check()
    table = load_split(crystals)
    if limit:
        table = table.select(range(min(limit, len(table))))
    from dpcdvae.sampling.batchwise import Reconstruct, check_table, table_hash
    from dpcdvae.sampling.generation import sampling_settings

    check_table(table, model, whole=force_num_atoms or force_types)
    options = {
        "seed": seed, **sampling_settings(model, steps, solver, candidates), "force_num_atoms": force_num_atoms,
        "force_types": force_types, "sample_latent": sample_latent,
    }  # fmt: skip
    run_batches(
        "reconstruct", "reconstructing", model, len(table), target, lambda source: Reconstruct(source, options),
        lambda batch: (batch.start, table.select(batch)), {"crystals": crystals, "limit": limit, **options},
        crystals_sha256=table_hash(table),
    )  # fmt: skip


def finish(
    result: GenerationResult, command: str, model: str, out: Path, overwrite: bool, arguments: dict[str, Any]
) -> None:
    """Writes the crystals and their manifest; says on standard error what could not be built."""
    from dpcdvae.errors import InputError
    from dpcdvae.files import write_manifest
    from dpcdvae.io import write
    from dpcdvae.model_store import read_description, resolve_model

    failures = tell_failures(result.failures)
    total = len(result.crystals) + len(result.failures)
    if not result.crystals:
        raise InputError(f"none of {total} crystals could be built: the model needs more training")
    write(result.crystals, out, overwrite=overwrite)
    write_manifest(
        out, command, {"model": model, **arguments},
        model_sha256=read_description(resolve_model(model))["sha256"], crystals=len(result.crystals),
        passes=result.passes, failures=failures,
    )  # fmt: skip
    print(f"{out}: {len(result.crystals)} of {total} crystals")
