"""The stages of one preset and seed: train, sample, evaluate. A stage that is complete is not done again.

Its record, a JSON file for people too, is written last and makes it complete; a run whose folder is removed is done
again. Sampling reads the best checkpoint and evaluation the files of crystals, so a benchmark that was stopped between
them ends with the same numbers as one that was not.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpcdvae.checkpoints.loading import load_model
from dpcdvae.comparison.plan import Contender, Plan
from dpcdvae.comparison.timing import machine
from dpcdvae.evaluation import evaluate, resolve_reference
from dpcdvae.files import write_json
from dpcdvae.io import Failure, read, write
from dpcdvae.model_store import best_checkpoint, read_description, read_json
from dpcdvae.run_log import RUN_FILE, read_run
from dpcdvae.sampling import kinds, reconstruction
from dpcdvae.sampling.finished_batches import GenerationResult
from dpcdvae.training.lightning_module import TrainingDivergedError
from dpcdvae.training.train import train

TASKS = {"reconstructed": "reconstruct", "generated": "generate"}  # of the samples


@dataclass(frozen=True)
class Run:
    """One preset and seed, and where all of it lies."""

    contender: Contender
    seed: int
    epochs: int
    folder: Path

    @property
    def preset(self) -> str:
        return self.contender.preset

    @property
    def samples(self) -> list[str]:
        """What its model can make: a kind without encoder reconstructs nothing."""
        kind = kinds.sampled_kind(self.contender.config.kind, self.preset)
        return [sample for sample, task in TASKS.items() if getattr(kind, task) is not None]

    def record(self, stage: str) -> dict[str, Any] | None:
        """The record of a stage (``training``, ``generated.evaluation``, ...); None before it is complete."""
        path = self.folder / f"{stage}.json"
        return read_json(path) if path.exists() else None

    def keep(self, stage: str, record: dict[str, Any]) -> dict[str, Any]:
        write_json(self.folder / f"{stage}.json", record)
        return record

    @property
    def complete(self) -> bool:
        training = self.record("training")
        if training is None or training["failed"]:
            return training is not None
        return all(self.record(f"{sample}.evaluation") for sample in self.samples)


def complete_run(run: Run, plan: Plan, workers: int | None, on_stage: Callable[[str], None]) -> None:
    """Does the stages of a run that are left; ``on_stage`` is called with the name of each."""
    run.folder.mkdir(parents=True, exist_ok=True)
    training = run.record("training")
    if training is None:
        on_stage(f"training, up to epoch {run.epochs}")
        training = run.keep("training", _train(run, plan))
    if training["failed"]:
        return
    for sample in run.samples:
        if run.record(sample) is None:
            on_stage(f"sampling ({sample})")
            run.keep(sample, _sample(run, plan, sample))
    for sample in run.samples:
        if run.record(f"{sample}.evaluation") is None:
            on_stage(f"evaluating ({sample})")
            run.keep(f"{sample}.evaluation", _evaluate(run, plan, sample, workers))


def _train(run: Run, plan: Plan) -> dict[str, Any]:
    """The run's facts, or in ``failed`` why there is no model. Goes on where an earlier process was stopped."""
    folder = run.folder / "training"
    resume = (folder / RUN_FILE).is_file()
    if not resume and folder.exists():
        shutil.rmtree(folder)  # stopped before it began
    config = run.contender.configured(run.seed, run.epochs)
    try:
        train(plan.tables, plan.dataset, config, folder, preset=run.preset, resume=resume)
    except TrainingDivergedError as error:
        return {"failed": str(error), "machine": machine()}
    log = read_run(folder)
    return {
        "failed": "",
        "machine": machine(),
        "epochs": len(log.epochs),
        "best_epoch": read_description(best_checkpoint(folder))["facts"]["epoch"],
        "cpu_seconds": log.total("cpu_seconds"),
        "seconds": log.total("seconds"),
    }


def _sample(run: Run, plan: Plan, sample: str) -> dict[str, Any]:
    """Crystals into a file, unless there are none; those that could not be built into the record."""
    settings = plan.suite.sample
    on_cpu = run.contender.config.train.accelerator == "cpu"
    model = load_model(run.folder / "training", "cpu" if on_cpu else "auto")
    start, cpu_start = time.monotonic(), time.process_time()
    names = getattr(kinds.sampled_kind(model.config.kind, run.preset), TASKS[sample])
    how = {name: getattr(settings, name) for name in ("steps", "candidates") if name in names}
    result: GenerationResult
    if sample == "reconstructed":
        result = reconstruction.reconstruct(model, plan.truths, seed=run.seed, **how)
    else:
        result = kinds.generate(model, settings.generate, seed=run.seed, **how)
    cpu, seconds = time.process_time() - cpu_start, time.monotonic() - start
    if result.crystals:
        write(result.crystals, _file(run, sample), overwrite=True)
    return {
        "crystals": len(result.crystals),
        "failures": [{"id": failure.id, "reason": failure.reason} for failure in result.failures],
        "cpu_seconds": round(cpu, 2),
        "seconds": round(seconds, 2),
    }


def _evaluate(run: Run, plan: Plan, sample: str, workers: int | None) -> dict[str, Any]:
    """The report of ``dpcdvae evaluate`` on the file of crystals."""
    record = run.record(sample)
    assert record is not None
    failures = [Failure(failure["id"], "sampling", failure["reason"]) for failure in record["failures"]]
    crystals = read(_file(run, sample), failures) if record["crystals"] else []
    reference = resolve_reference(plan.source)
    paired = sample == "reconstructed"
    if paired:
        reference = reference.only({str(name) for name in plan.truths.ids})
    cutoffs = (plan.suite.cutoffs[0], plan.suite.cutoffs[1]) if plan.suite.cutoffs else None
    report = evaluate(
        crystals,
        reference,
        paired=paired,
        failures=failures,
        workers=workers,
        cutoffs=cutoffs,
        baselines=(),
        may_be_empty=True,
    )
    return report.to_json()


def _file(run: Run, sample: str) -> Path:
    return run.folder / f"{sample}.extxyz"
