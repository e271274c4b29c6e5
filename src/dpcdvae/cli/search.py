"""``dpcdvae optimize``, ``dpcdvae interpolate``."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpcdvae.cli.common import OutOption, OverwriteOption, SchedulerOption, SeedOption, WorkersOption, check_distinct
from dpcdvae.cli.sample import (
    BatchOption,
    CandidatesOption,
    DeviceOption,
    ModelArgument,
    SolverOption,
    StepsOption,
    finish,
)
from dpcdvae.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dpcdvae.datasets.preparation import Prepared
    from dpcdvae.model.regressor import PropertyRegressor
    from dpcdvae.parallel import Engine
    from dpcdvae.structures.crystal import Crystal
    from dpcdvae.structures.table import CrystalTable

RANDOM = "random"


def optimize(
    model: ModelArgument,
    out: OutOption,
    n: Annotated[int, typer.Option("-n", min=1, help="How many starting points.")] = 100,
    start: Annotated[
        str, typer.Option("--start", help="DATASET[:split]: its first crystals, encoded; or random.")
    ] = RANDOM,
    gradient_steps: Annotated[int, typer.Option("--gradient-steps", min=2, help="Steps of Adam on z.")] = 5000,
    lr: Annotated[float, typer.Option("--lr", help="Learning rate of Adam.")] = 1e-3,
    saved: Annotated[int, typer.Option("--saved", min=2, help="Points of the way to decode, both ends included.")] = 10,
    maximize: Annotated[bool, typer.Option("--maximize", help="Uphill instead of down.")] = False,
    energy_model: Annotated[
        str | None,
        typer.Option("--energy-model", help="An independent model of the property, as judge.", show_default=False),
    ] = None,
    steps: StepsOption = None,
    solver: SolverOption = None,
    candidates: CandidatesOption = None,
    seed: SeedOption = 0,
    json: Annotated[Path | None, typer.Option("--json", help="Write the numbers here too, for machines.")] = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    time_limit: Annotated[float, typer.Option("--time-limit", min=0.1, help="Seconds for the bonds of one.")] = 60.0,
    batch_size: BatchOption = 256,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
) -> None:
    """Search for crystals with a low (or high) property: gradient descent on z, with success rates.

    The model needs a property head (train --property). Every starting point is decoded at --saved points of the
    way, as ID@STEP. A starting point is a success (SR5, SR10, SR15) where the best valid crystal of its way
    reaches the 5, 10, 15 % quantile of the training set, as --energy-model judges it; without one the head judges
    its own work, which is optimistic.

    \b
    Example:
      dpcdvae optimize runs/perov -n 100 --start perov_5:test --energy-model runs/energy --out best.extxyz
    """
    from rich.console import Console

    from dpcdvae.evaluation.success import SearchReport, check_tools, thresholds
    from dpcdvae.files import check_output, write_json, write_manifest
    from dpcdvae.io import check_destination
    from dpcdvae.model_store import read_card, read_description, resolve_model
    from dpcdvae.parallel import engine_for

    check_distinct(out, json)
    check_destination(out, overwrite=overwrite)
    if json is not None:
        check_output(json, overwrite=overwrite)
    check_tools()
    engine = engine_for(workers, scheduler)
    table = None if start == RANDOM else _first_crystals(start, n)
    import numpy as np

    from dpcdvae.checkpoints.checkpoint import load_model
    from dpcdvae.sampling import search
    from dpcdvae.sampling.generation import GenerationResult, sampling_settings

    loaded = load_model(model, device)
    decoding = sampling_settings(model, steps, solver, candidates)
    search.property_head(loaded)
    card = read_card(model).get("property", {})
    goals = thresholds(card.get("quantiles", {}), maximize=maximize)
    judge = None if energy_model is None else _load_judge(energy_model, device, loaded.target, start, table)
    begin = search.random_start(loaded, n, seed=seed) if table is None else search.encoded_start(loaded, table)
    result = search.optimize(
        loaded, begin, gradient_steps=gradient_steps, lr=lr, saved=saved, maximize=maximize, seed=seed,
        batch_size=batch_size, **decoding,
    )  # fmt: skip
    valid = _valid(result.crystals)
    crystals, lost, values = result.crystals, {"crystals that could not be built": len(result.failures)}, None
    if judge is not None:
        with engine:
            values, more = _judge(judge, crystals, valid, engine, time_limit)
        lost |= more
        crystals = [_with(c, f"judged_{judge.target}", value) for c, value in zip(crystals, values, strict=True)]

    arguments = {
        "n": n, "start": start, "gradient_steps": gradient_steps, "lr": lr, "saved": saved, "maximize": maximize,
        "energy_model": energy_model, **decoding, "seed": seed, "time_limit": time_limit,
    }  # fmt: skip
    facts: dict[str, Any] = {"model_sha256": read_description(resolve_model(model))["sha256"]}
    if energy_model is not None:
        facts["energy_model_sha256"] = read_description(resolve_model(energy_model))["sha256"]
    report = SearchReport(
        loaded.target, card.get("unit", ""), _judge_in_words(energy_model), maximize, result.steps, result.predicted,
        result.predicted if values is None else result.spread(values, np.nan), result.spread(valid, False), goals, lost,
        {"model": model, **arguments, **facts},
    )  # fmt: skip
    finish(GenerationResult(crystals, result.failures, result.passes), "optimize", model, out, overwrite, arguments)
    Console(width=None if sys.stdout.isatty() else 120).print(report.table())
    if json is not None:
        write_json(json, report.to_json())
        write_manifest(json, "optimize", {"model": model, **arguments}, **facts)


def interpolate(
    model: ModelArgument,
    first: Annotated[
        str, typer.Argument(metavar="FROM", help="A file of one crystal, or DATASET[:split]/ID.", show_default=False)
    ],
    last: Annotated[str, typer.Argument(metavar="TO", help="Likewise.", show_default=False)],
    out: OutOption,
    n: Annotated[int, typer.Option("-n", min=2, help="How many crystals, both ends included.")] = 8,
    seed: SeedOption = 0,
    steps: StepsOption = None,
    solver: SolverOption = None,
    candidates: CandidatesOption = None,
    batch_size: BatchOption = 256,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
) -> None:
    """Decode crystals along the straight line between the latents of two.

    All get the same noise, so that only the latent changes; the ends are the two crystals reconstructed. A split
    that is not named is test.

    \b
    Example:
      dpcdvae interpolate runs/perov start.cif perov_5:test/8355 -n 8 --out line.extxyz
    """
    from dpcdvae.io import check_destination
    from dpcdvae.structures.table import CrystalTable

    check_destination(out, overwrite=overwrite)
    ends = [bonded_crystal(text) for text in (first, last)]
    table = CrystalTable.from_crystals([crystal for crystal, _ in ends], [bonds for _, bonds in ends])
    from dpcdvae.checkpoints.checkpoint import load_model
    from dpcdvae.sampling import interpolation
    from dpcdvae.sampling.generation import sampling_settings

    loaded = load_model(model, device)
    decoding = sampling_settings(model, steps, solver, candidates)
    most = loaded.config.model.max_atoms
    for crystal in table:
        if crystal.num_atoms > most:
            print(f"note: '{crystal.id}' has {crystal.num_atoms} atoms and this model decodes at most {most}: "
                  "that end will not come back as it is", file=sys.stderr)  # fmt: skip
    result = interpolation.interpolate(loaded, table, n, seed=seed, batch_size=batch_size, **decoding)
    arguments = {"from": first, "to": last, "n": n, "seed": seed, **decoding}
    finish(result, "interpolate", model, out, overwrite, arguments)


def bonded_crystal(text: str) -> Prepared:
    """A crystal with its bonds: from a file of one, prepared as data sets are, or DATASET[:split]/ID.

    Raises:
        InputError: nothing there, several crystals, one that cannot be prepared, no such id (the nearest is offered).
    """
    if Path(text).is_file():
        return _from_file(Path(text))
    named = re.fullmatch(r"(?P<data>.+?\.npz|[^/:]+)(?P<split>:[^/]*)?/(?P<id>.+)", text)
    if named is None or (Path(text).suffix and Path(text).parent.is_dir()):
        raise InputError(f"no such file: {text}; give a file of one crystal, or DATASET[:split]/ID")
    from dpcdvae.datasets import load_split

    table = load_split(named["data"] + (named["split"] or ""))
    ids = table.ids.tolist()
    if named["id"] not in ids:
        import difflib

        near = difflib.get_close_matches(named["id"], ids, n=1, cutoff=0)
        hint = f": did you mean '{near[0]}'?" if near else ""
        raise InputError(f"no crystal '{named['id']}' among the {len(ids)} of {text[: named.start('id') - 1]}{hint}")
    chosen = table.select([ids.index(named["id"])])
    return chosen[0], (chosen.bonds, chosen.bond_images)


def _from_file(path: Path) -> Prepared:
    from dpcdvae.datasets.building import MAX_ATOMS
    from dpcdvae.datasets.preparation import Settings, prepare_one
    from dpcdvae.io import read

    crystals = read(path)
    if len(crystals) != 1:
        raise InputError(f"{path} holds {len(crystals)} crystals: give a file of one")
    prepared = prepare_one((crystals[0], Settings(max_atoms=MAX_ATOMS)))
    if isinstance(prepared, str):
        raise InputError(f"{path} cannot be used: {prepared}")
    return prepared


def _first_crystals(start: str, n: int) -> CrystalTable:
    """The first n crystals of DATASET[:split]."""
    from dpcdvae.datasets import load_split

    table = load_split(start)
    if n > len(table):
        raise InputError(f"--start {start} has {len(table)} crystals, fewer than -n {n}: ask for fewer")
    return table.select(range(n))


def _load_judge(
    energy_model: str, device: str, target: str, start: str, table: CrystalTable | None
) -> PropertyRegressor:
    """Raises InputError unless it predicts ``target`` and knows the elements of the starting points."""
    from dpcdvae.checkpoints.checkpoint import load_regressor

    judge = load_regressor(energy_model, device)
    if judge.target != target:
        raise InputError(f"--energy-model {energy_model} predicts '{judge.target}', but the search is for '{target}'")
    if table is not None and (unknown := judge.unknown_elements(table.atomic_numbers.tolist())):
        raise InputError(
            f"--energy-model {energy_model} was trained without {', '.join(unknown)}, which are in {start}: it cannot "
            "judge this search"
        )
    return judge


def _judge_in_words(energy_model: str | None) -> str:
    """Its name, what it was trained on and how wrong it is, as far as its card tells; "" for none."""
    from dpcdvae.datasets.origin import noted
    from dpcdvae.model_store import CARD, read_card, resolve_model

    if energy_model is None or not (resolve_model(energy_model) / CARD).is_file():
        return energy_model or ""
    card = read_card(energy_model)
    data, errors = card.get("dataset"), card.get("errors", {})
    error = errors.get("test") or errors.get("val")
    known = [f"trained on {noted(data)}"] if data else []
    known += [f"mean absolute error {error['mae']:.4f} on {error['crystals']} others"] if error else []
    return f"{energy_model} ({', '.join(known)})" if known else energy_model


def _valid(crystals: Sequence[Crystal]) -> npt.NDArray[np.bool_]:
    from dpcdvae.evaluation.validity import compositionally_valid, structurally_valid

    return structurally_valid(crystals) & compositionally_valid(crystals)


def _judge(
    judge: PropertyRegressor, crystals: Sequence[Crystal], valid: npt.NDArray[np.bool_], engine: Engine,
    time_limit: float,
) -> tuple[npt.NDArray[np.float64], dict[str, int]]:  # fmt: skip
    """(crystals,) property of the valid ones, NaN for the others; how many valid ones it cannot tell, by reason."""
    import numpy as np

    from dpcdvae.model.regressor import predict_crystals

    values, candidates = np.full(len(crystals), np.nan), [c for c, good in zip(crystals, valid, strict=True) if good]
    values[valid], reasons = predict_crystals(judge, candidates, engine=engine, time_limit=time_limit)
    foreign = sum(bool(judge.unknown_elements(candidates[k].atomic_numbers.tolist())) for k in reasons)
    return values, {
        "valid crystals with elements that the judge was not trained on": foreign,
        "valid crystals whose bonds could not be found": len(reasons) - foreign,
    }


def _with(crystal: Crystal, name: str, value: float) -> Crystal:
    from dataclasses import replace

    return replace(crystal, properties={**crystal.properties, name: float(value)})
