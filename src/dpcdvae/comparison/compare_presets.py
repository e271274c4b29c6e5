"""Presets compared: each is timed, then trained and evaluated with each seed; a stopped comparison goes on."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from dpcdvae.comparison.plan import Plan, make_plan
from dpcdvae.comparison.results import collect
from dpcdvae.comparison.suite import Suite
from dpcdvae.comparison.tables import counted, markdown
from dpcdvae.comparison.timing import epoch_cpu_seconds, epochs_within
from dpcdvae.comparison.train_and_evaluate import Run, complete_run
from dpcdvae.files import write_json, write_text
from dpcdvae.parallel.store import Store
from dpcdvae.progress import Progress, duration

RESULTS, TABLE = "results.json", "table.md"
TIMING = "epoch_cpu_seconds"
ROUNDS = 3


def compare_presets(suite: Suite, out: str | Path, *, workers: int | None = None) -> dict[str, Any]:
    """Does what is left of a suite in the folder ``out``; returns the document of its results.

    After every run the document (``results.json``) and the table (``table.md``) in ``out`` are those so far.

    Args:
        workers: processes of the evaluation, as in :func:`dpcdvae.evaluation.evaluate`.

    Raises:
        InputError: the suite does not fit its data, or ``out`` holds another one or is in use.
    """
    out = Path(out)
    plan = make_plan(suite)
    with Store(out, plan.recorded(), instead="give another --out") as store:
        epoch_seconds = _timed(plan, store)
        runs = _runs(plan, out, epoch_seconds)
        document = _write(plan, runs, epoch_seconds, out)
        start = time.monotonic()
        left = [run for run in runs if not run.complete]
        for done, run in enumerate(left):
            prefix = f"[{runs.index(run) + 1}/{len(runs)}] {run.preset}, seed {run.seed}"
            rest = len(left) - done
            guess = f"about {duration((time.monotonic() - start) / done * rest)}" if done else counted(rest, "run")
            complete_run(run, plan, workers, partial(_print_stage, prefix, guess))
            document = _write(plan, runs, epoch_seconds, out)
    return document


def _timed(plan: Plan, store: Store) -> dict[str, float]:
    """CPU seconds of an epoch by preset, where the budget is CPU time.

    Measured before the first run and kept, so that a run that goes on keeps its number of epochs. In rounds, as a
    busy machine slows its cores down for a while: no preset should meet that alone.
    """
    if plan.suite.cpu_minutes is None:
        return {}
    if TIMING in store:
        return store.get(TIMING)
    measured: dict[str, list[float]] = {contender.preset: [] for contender in plan.contenders}
    with Progress("timing an epoch of each preset", ROUNDS * len(measured)) as bar:
        for _ in range(ROUNDS):
            for contender in plan.contenders:
                measured[contender.preset].append(epoch_cpu_seconds(contender.config, plan.tables))
                bar.advance()
    seconds = {preset: median(times) for preset, times in measured.items()}
    store.add(TIMING, seconds)
    for preset, epoch in seconds.items():
        epochs = epochs_within(plan.suite.cpu_minutes, epoch)
        _print(f"{preset}: {epoch:.3g} CPU seconds an epoch, {counted(epochs, 'epoch')}")
    return seconds


def _runs(plan: Plan, out: Path, epoch_seconds: dict[str, float]) -> list[Run]:
    """Every preset with the first seed, then with the next: the table has all rows early."""
    runs = []
    for seed in plan.suite.seeds:
        for number, contender in enumerate(plan.contenders):
            if plan.suite.cpu_minutes is not None:
                epochs = epochs_within(plan.suite.cpu_minutes, epoch_seconds[contender.preset])
            else:
                assert plan.suite.epochs is not None
                epochs = plan.suite.epochs
            name = "".join(c if c.isalnum() or c in "-_+" else "-" for c in contender.preset.removesuffix(".toml"))
            runs.append(Run(contender, seed, epochs, out / f"{number + 1:02d}-{name.strip('-')}-seed{seed}"))
    return runs


def _write(plan: Plan, runs: list[Run], epoch_seconds: dict[str, float], out: Path) -> dict[str, Any]:
    document = collect(plan, runs, epoch_seconds)
    write_json(out / RESULTS, document)
    write_text(out / TABLE, markdown(document))
    return document


def _print_stage(run: str, left: str, stage: str) -> None:
    _print(f"{run}: {stage}; {left} left")


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
