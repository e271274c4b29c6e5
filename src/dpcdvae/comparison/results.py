"""One document of the records of all runs: per run, and per preset with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dpcdvae.comparison.plan import Plan
from dpcdvae.comparison.train_and_evaluate import Run
from dpcdvae.evaluation import METRICS
from dpcdvae.evaluation.report import tool_versions
from dpcdvae.intervals import Interval, Number, t_interval

SCHEMA = "dpcdvae.benchmark/1"


@dataclass(frozen=True)
class Column:
    """A metric of one of the samples."""

    title: str
    sample: str
    metric: str
    gate: str = ""

    @property
    def key(self) -> str:
        return f"{self.sample}/{self.metric}" + (f" ({self.gate})" if self.gate != "none" and self.gate else "")

    @property
    def unit(self) -> str:
        return METRICS[self.metric].unit


COLUMNS = (
    Column("match rate", "reconstructed", "match_rate", "none"),
    Column("match rate, valid", "reconstructed", "match_rate", "prediction valid"),
    Column("rms", "reconstructed", "match_rms", "none"),
    Column("struct. valid", "generated", "structural_validity"),
    Column("comp. valid", "generated", "compositional_validity"),
    Column("COV-R", "generated", "coverage_recall"),
    Column("COV-P", "generated", "coverage_precision"),
    Column("W density", "generated", "density_wasserstein"),
    Column("W elements", "generated", "num_elements_wasserstein"),
    Column("unique", "generated", "uniqueness"),
)


def collect(plan: Plan, runs: Sequence[Run], epoch_seconds: dict[str, float]) -> dict[str, Any]:
    """The document of ``--json``; ``docs/benchmark.md`` describes it. Runs that are not done are pending."""
    documents = [_run_document(run) for run in runs]
    rows = []
    for contender in plan.contenders:
        own = [document for document in documents if document["preset"] == contender.preset]
        rows.append({"preset": contender.preset, "parameters": contender.parameters, **_summary(own)})
    machines = [document["machine"] for document in documents if document["machine"]]
    return {
        "schema": SCHEMA,
        "suite": plan.suite.to_dict(),
        "dataset": {**plan.dataset, "reconstructed": len(plan.truths)},
        "interval": "over seeds" if len(plan.suite.seeds) > 1 else "over crystals",
        "rows": rows,
        "runs": documents,
        "time": {"epoch_cpu_seconds_measured_first": epoch_seconds},
        "machines": [machine for k, machine in enumerate(machines) if machine not in machines[:k]],
        "versions": tool_versions(),
    }


def _run_document(run: Run) -> dict[str, Any]:
    document: dict[str, Any] = {
        "preset": run.preset,
        "seed": run.seed,
        "folder": run.folder.name,
        "status": "pending",
        "reason": "",
        "epochs": None,
        "best_epoch": None,
        "values": {},
        "time": {},
        "machine": None,
    }
    training = run.record("training")
    if training is None:
        return document
    document["machine"] = training["machine"]
    if training["failed"]:
        return document | {"status": "failed", "reason": training["failed"]}
    document |= {"epochs": training["epochs"], "best_epoch": training["best_epoch"]}
    document["time"] = {"training_cpu_seconds": training["cpu_seconds"], "training_seconds": training["seconds"]}
    reports, reasons = {}, []
    for sample in run.samples:
        record, report = run.record(sample), run.record(f"{sample}.evaluation")
        if record is None or report is None:
            return document
        reports[sample] = report
        total = record["crystals"] + len(record["failures"])
        for kind in ("cpu_seconds", "seconds"):
            document["time"][f"{sample}_{kind}_per_crystal"] = record[kind] / total
        if not record["crystals"]:
            reasons.append(f"none of {total} crystals {sample}: {record['failures'][0]['reason']}")
    document["values"] = {column.key: _value(column, reports.get(column.sample)) for column in COLUMNS}
    # What builds no crystal has values all the same: rates of 0.
    return document | {"status": "failed" if reasons else "done", "reason": "; ".join(reasons)}


def _value(column: Column, report: dict[str, Any] | None) -> dict[str, Any]:
    """The number of a column; without a value where the kind of model makes no such sample."""
    for number in [] if report is None else report["metrics"]:
        if number["name"] == column.metric and number["gate"] == column.gate:
            return Number.from_json(number, column.unit).to_json()
    return Number(None, 0).to_json()


def _summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of a preset over its seeds: means with the interval over seeds, or the report's own for one seed."""
    with_values = [run for run in runs if run["values"]]
    values: dict[str, Any] = {}
    for column in COLUMNS:
        found = [run["values"][column.key] for run in with_values]
        known = [value for value in found if value["value"] is not None]
        if len(runs) == 1 and known:
            values[column.key] = known[0]
        else:
            numbers = [value["value"] for value in known]
            values[column.key] = Number(_mean(numbers), len(numbers), _possible(column, numbers)).to_json()
    trained = [run for run in runs if run["time"]]
    times = sorted({name for run in trained for name in run["time"]})
    return {
        "seeds": {status: sum(run["status"] == status for run in runs) for status in ("done", "failed", "pending")},
        "notes": [f"seed {run['seed']}: {run['reason']}" for run in runs if run["reason"]],
        "epochs": _mean([run["epochs"] for run in trained]),
        "best_epoch": _mean([run["best_epoch"] for run in trained]),
        "values": values,
        "time": {name: _mean([run["time"][name] for run in trained if name in run["time"]]) for name in times},
    }


def _possible(column: Column, numbers: Sequence[float]) -> Interval | None:
    """The t-interval, cut at what the metric can be: none is below 0, no rate above 1."""
    interval = t_interval(numbers)
    top = math.inf if column.unit else 1.0
    return None if interval is None else (max(0.0, interval[0]), min(top, interval[1]))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
