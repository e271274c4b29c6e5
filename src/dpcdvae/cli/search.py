"""``dpcdvae optimize``, ``dpcdvae interpolate``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dpcdvae.cli.energies import load_energy_model
from dpcdvae.cli.groups import Call, argument, option
from dpcdvae.cli.options import Column, Decoding, Json, Model, Out, Overwrite, Processes, Symmetrise
from dpcdvae.cli.outputs import check_paths, facts_of, write_crystals, write_report
from dpcdvae.errors import InputError
from dpcdvae.parallel import TIME_LIMIT

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dpcdvae.model.regressor import PropertyRegressor
    from dpcdvae.model_store import StoredModel
    from dpcdvae.parallel import Engine
    from dpcdvae.sampling.finished_batches import GenerationResult
    from dpcdvae.structures.crystal import Crystal
    from dpcdvae.structures.table import CrystalTable

RANDOM = "random"
MOST = 10**6  # latents, which lie in memory at once


def optimize(
    call: Call,
    model: Model,
    out: Out,
    decoding: Decoding,
    processes: Processes,
    n: int = option(100, "How many starting points.", "-n", min=1, max=MOST),
    start: str = option(RANDOM, "DATASET[:split]: its first crystals, encoded; or random."),
    gradient_steps: int = option(5000, "Steps of Adam on z.", min=2, max=10**9),
    lr: float = option(1e-3, "Learning rate of Adam."),
    saved: int = option(10, "Number of gradient steps at which z is decoded, first and last included.", min=2),
    maximize: bool = option(False, "Maximize the property instead of minimizing it.", "--maximize"),
    energy_model: str | None = option(None, "An independent property model that evaluates the crystals."),
    time_limit: float = option(TIME_LIMIT, "Seconds for the bonds of one crystal.", min=0.1),
    json: Json = None,
    symmetrise: Symmetrise = None,
    overwrite: Overwrite = False,
) -> None:
    """Search for crystals with a low (or high) property: gradient descent on z, with success rates.

    The model needs a property head (train --property). Every starting point is decoded at --saved gradient
    steps, as ID@STEP. A starting point is a success (SR5, SR10, SR15) if its best valid crystal reaches the
    5, 10, 15 % quantile of the training set. --energy-model predicts the property of the crystals; without
    it, the head that guided the search does, which is optimistic.

    \b
    Example:
      dpcdvae optimize runs/perov -n 100 --start perov_5:test --energy-model runs/energy --out best.extxyz
    """
    from dpcdvae.evaluation.success import SearchReport, check_tools, thresholds
    from dpcdvae.files import check_output
    from dpcdvae.io import check_destination
    from dpcdvae.model_store import find_crystal_vae, find_property_model
    from dpcdvae.structures.crystal import EVALUATED

    check_paths([out, json])
    check_destination(out, overwrite=overwrite, symmetrise=symmetrise)
    if json is not None:
        check_output(json, overwrite=overwrite)
    check_tools()
    source = find_crystal_vae(model)
    energy = None if energy_model is None else find_property_model(energy_model)
    how = decoding.settings(source)
    engine = processes.engine()
    table = None if start == RANDOM else _first_crystals(start, n)
    import numpy as np

    from dpcdvae.checkpoints.loading import load_crystal_vae
    from dpcdvae.sampling import search

    loaded = load_crystal_vae(source, decoding.device)
    search.property_head(loaded)
    known = source.card().get("property", {})
    goals = thresholds(known.get("quantiles", {}), maximize=maximize)
    evaluator = None
    if energy is not None:
        numbers = set() if table is None else set(table.atomic_numbers.tolist())
        evaluator = load_energy_model(energy, decoding.device, loaded.target, "the search is for", {start: numbers})
    begin = search.random_start(loaded, n, seed=decoding.seed) if table is None else search.encoded_start(loaded, table)
    result = search.optimize(
        loaded,
        begin,
        gradient_steps=gradient_steps,
        lr=lr,
        saved=saved,
        maximize=maximize,
        batch_size=decoding.batch_size,
        **how,
    )
    valid = _valid(result.crystals)
    crystals, lost, values = result.crystals, {"crystals that could not be built": len(result.failures)}, None
    if evaluator is not None:
        with engine:
            values, more = _evaluated(evaluator, crystals, valid, engine, time_limit)
        lost |= more
        crystals = [
            _with(c, f"{EVALUATED}{evaluator.target}", value) for c, value in zip(crystals, values, strict=True)
        ]
    call = call.resolved(**how)
    hashes = {"model_sha256": source.sha256} | ({} if energy is None else {"energy_model_sha256": energy.sha256})
    report = SearchReport(
        loaded.target,
        known.get("unit", ""),
        _model_in_words(energy),
        maximize,
        result.steps,
        result.predicted,
        result.predicted if values is None else result.spread(values, np.nan),
        result.spread(valid, False),
        goals,
        lost,
        {**call.arguments, **hashes},
    )
    _write(call, replace(result, crystals=crystals), out, hashes, overwrite, symmetrise)
    write_report(call, report, json, hashes)


def interpolate(
    *,
    call: Call,
    model: Model,
    from_: str = argument(..., "A file of one crystal, or DATASET[:split]/ID.", metavar="FROM"),
    to: str = argument(..., "Likewise.", metavar="TO"),
    out: Out,
    decoding: Decoding,
    n: int = option(8, "How many crystals, both ends included.", "-n", min=2, max=MOST),
    column: Column = None,
    symmetrise: Symmetrise = None,
    overwrite: Overwrite = False,
) -> None:
    """Decode crystals along the straight line between the latents of two.

    All get the same noise, so that only the latent changes; the ends are the two crystals reconstructed. A split
    that is not named is test.

    \b
    Example:
      dpcdvae interpolate runs/perov start.cif perov_5:test/8355 -n 8 --out line.extxyz
    """
    from dpcdvae.datasets.bonded_crystals import bonded_crystal
    from dpcdvae.io import check_destination, columns_of
    from dpcdvae.model_store import find_crystal_vae
    from dpcdvae.sampling.decoding_settings import generative_config
    from dpcdvae.structures.table import CrystalTable

    check_destination(out, overwrite=overwrite, symmetrise=symmetrise)
    source = find_crystal_vae(model)
    how, most = decoding.settings(source), generative_config(source).model.max_atoms
    columns = columns_of(column, [from_, to])
    ends = [bonded_crystal(text, name) for text, name in zip((from_, to), columns, strict=True)]
    table = CrystalTable.from_crystals([crystal for crystal, _ in ends], [bonds for _, bonds in ends])
    from dpcdvae.checkpoints.loading import load_crystal_vae
    from dpcdvae.sampling import interpolation

    loaded = load_crystal_vae(source, decoding.device)
    for crystal in table:
        if crystal.num_atoms > most:
            print(
                f"note: '{crystal.id}' has {crystal.num_atoms} atoms and this model decodes at most {most}: "
                "that end will not come back as it is",
                file=sys.stderr,
            )
    result = interpolation.interpolate(loaded, table, n, batch_size=decoding.batch_size, **how)
    _write(call.resolved(**how), result, out, {"model_sha256": source.sha256}, overwrite, symmetrise)


def _write(
    call: Call,
    result: GenerationResult,
    out: Path,
    hashes: dict[str, str],
    overwrite: bool,
    symmetrise: float | None,
) -> None:
    facts = hashes | facts_of(result)
    write_crystals(call, result.crystals, out, facts, overwrite=overwrite, symmetrise=symmetrise)
    print(f"{out}: {len(result.crystals)} of {len(result.crystals) + len(result.failures)} crystals")


def _first_crystals(start: str, n: int) -> CrystalTable:
    """The first n crystals of DATASET[:split]."""
    from dpcdvae.datasets import load_split

    table = load_split(start)
    if n > len(table):
        raise InputError(f"--start {start} has {len(table)} crystals, fewer than -n {n}: ask for fewer")
    return table.select(range(n))


def _model_in_words(energy_model: StoredModel | None) -> str:
    """Its name, what it was trained on and how wrong it is, as far as its card says; "" for none."""
    from dpcdvae.datasets.origin import noted
    from dpcdvae.model_store import CARD

    if energy_model is None or not (energy_model.folder / CARD).is_file():
        return "" if energy_model is None else energy_model.name
    card = energy_model.card()
    data, errors = card.get("dataset"), card.get("errors", {})
    error = errors.get("test") or errors.get("val")
    known = [f"trained on {noted(data)}"] if data else []
    known += [f"mean absolute error {error['mae']:.4f} on {error['crystals']} others"] if error else []
    return f"{energy_model.name} ({', '.join(known)})" if known else energy_model.name


def _valid(crystals: Sequence[Crystal]) -> npt.NDArray[np.bool_]:
    from dpcdvae.structures.neutrality import compositionally_valid
    from dpcdvae.structures.validity import structurally_valid

    return structurally_valid(crystals) & compositionally_valid(crystals)


def _evaluated(
    evaluator: PropertyRegressor,
    crystals: Sequence[Crystal],
    valid: npt.NDArray[np.bool_],
    engine: Engine,
    time_limit: float,
) -> tuple[npt.NDArray[np.float64], dict[str, int]]:
    """(crystals,) property of the valid ones, NaN for the others; how many valid ones have none, by reason."""
    import numpy as np

    from dpcdvae.sampling.property_prediction import predict_crystals

    values, candidates = np.full(len(crystals), np.nan), [c for c, good in zip(crystals, valid, strict=True) if good]
    values[valid], reasons = predict_crystals(evaluator, candidates, engine=engine, time_limit=time_limit)
    untrained = sum(bool(evaluator.unknown_elements(candidates[k].atomic_numbers.tolist())) for k in reasons)
    return values, {
        "valid crystals with elements that the property model was not trained on": untrained,
        "valid crystals whose bonds could not be found": len(reasons) - untrained,
    }


def _with(crystal: Crystal, name: str, value: float) -> Crystal:
    return replace(crystal, properties={**crystal.properties, name: float(value)})
