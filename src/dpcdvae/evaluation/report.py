"""All numbers about a set of crystals, for machines and for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcdvae.crystal import Crystal
from dpcdvae.errors import InputError
from dpcdvae.evaluation.energy import EnergyModel
from dpcdvae.evaluation.fingerprint_cache import ALGORITHM
from dpcdvae.evaluation.intervals import LEVEL, REPLICATES
from dpcdvae.evaluation.matching import TOLERANCES
from dpcdvae.evaluation.metrics import METRICS
from dpcdvae.evaluation.reference import Reference, as_reference
from dpcdvae.evaluation.sample import Number, Sample
from dpcdvae.evaluation.validity import MIN_DISTANCE, MIN_VOLUME
from dpcdvae.io import Failure
from dpcdvae.parallel import available_cores
from dpcdvae.statistics import ReferenceStatistics

if TYPE_CHECKING:
    from rich.console import RenderableType

SCHEMA = "dpcdvae.evaluation/1"
TIME_LIMIT = 60.0
TOOLS = ("dpcdvae", "numpy", "scipy", "pymatgen", "pymatgen-core", "spglib", "smact")


@dataclass(frozen=True)
class Report:
    """The result of :func:`evaluate`; ``docs/evaluation.md`` describes its JSON.

    Attributes:
        numbers: (metric, number) in the order of the table of metrics.
        generated: crystals asked for or found, those that could not be read included.
        failures: those that could not be read.
        given_up: comparisons that were cut off: what, id, reason.
        settings: all that shaped the numbers.
        versions: of the tools that did.
    """

    numbers: tuple[tuple[str, Number], ...]
    generated: int
    failures: tuple[Failure, ...]
    reference: Reference
    given_up: tuple[dict[str, str], ...]
    settings: dict[str, Any]
    versions: dict[str, str]

    def __getitem__(self, name: str) -> Number:
        """The number of a metric, e.g. ``report["match_rate"]``; ungated where it has several gates."""
        METRICS[name]
        for key, number in self.numbers:
            if key == name:
                return number
        raise InputError(
            f"the report has no {name}: it needs a paired evaluation, the crystals of the reference, or an energy model"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "crystals": {
                "generated": self.generated,
                "read": self.generated - len(self.failures),
                "failures": [{"id": f.id, "where": f.where, "reason": f.reason} for f in self.failures],
            },
            "reference": {
                "source": self.reference.source,
                "sha256": self.reference.sha256,
                "count": self.reference.count,
                "kind": "statistics" if self.reference.crystals is None else "crystals",
            },
            "metrics": [
                {
                    "name": name,
                    "gate": number.gate,
                    "value": number.value,
                    "interval": None if number.interval is None else list(number.interval),
                    "n": number.n,
                    "unit": METRICS[name].unit,
                    "note": number.note,
                }
                for name, number in self.numbers
            ],
            "given_up": list(self.given_up),
            "settings": self.settings,
            "versions": self.versions,
        }

    def table(self) -> RenderableType:
        """What a person reads; print it with rich."""
        from rich.table import Table

        failed = f", {len(self.failures)} of them not readable" if self.failures else ""
        table = Table(
            title=f"{self.generated} crystals{failed}, against {self.reference.source}",
            title_justify="left",
            title_style="bold",
            caption_justify="left",
            caption="\n".join(self._footnotes()),
        )
        table.add_column("metric", no_wrap=True)
        table.add_column("value", justify="right", no_wrap=True)
        table.add_column(f"{LEVEL:.0%}", justify="right", no_wrap=True)
        table.add_column("n", justify="right", no_wrap=True)
        table.add_column("note", overflow="fold")
        for name, number in self.numbers:
            metric = METRICS[name]
            show = _percent if not metric.unit else _decimal
            interval = "" if number.interval is None else "–".join(show(bound) for bound in number.interval)
            note = ", ".join(filter(None, [metric.unit, number.gate and f"gate: {number.gate}", number.note]))
            table.add_row(metric.title, show(number.value), interval, str(number.n), note)
        return table

    def _footnotes(self) -> list[str]:
        notes = [f"{what}: {sum(g['what'] == what for g in self.given_up)} comparisons given up (see --json)"
                 for what in sorted({g["what"] for g in self.given_up})]  # fmt: skip
        return notes + [" ".join(f"{name} {number}" for name, number in self.versions.items())]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def evaluate(
    crystals: Sequence[Crystal],
    reference: Reference | ReferenceStatistics | Sequence[Crystal] | str | Path,
    *,
    paired: bool = False,
    failures: Sequence[Failure] = (),
    workers: int | None = None,
    seed: int = 0,
    time_limit: float = TIME_LIMIT,
    cutoffs: tuple[float, float] | None = None,
    energy_model: EnergyModel | None = None,
) -> Report:
    """Scores crystals of any origin with every metric of :data:`~dpcdvae.evaluation.metrics.METRICS`.

    Args:
        crystals: what was generated.
        reference: crystals, statistics, or what ``--reference`` takes: a data set, file or model.
        paired: each crystal is a reconstruction of one of the reference: also match rate and rms distance.
        failures: what could not be read or built; it counts in every rate.
        workers: processes for comparing structures, by default one for each core; 0 for none, and then
            no time limit.
        seed: of the bootstrap intervals; the values do not depend on it.
        time_limit: seconds for one comparison or fingerprint; what takes longer counts as no match, or as not
            covered, and is reported.
        energy_model: for the distribution of energies, which is left out without one.
        cutoffs: of the coverage, for structure and composition; by default the data set's, or those of MP-20.

    Raises:
        InputError: nothing to evaluate, a reference that cannot be found, or pairs that do not fit.
    """
    if not crystals and not failures:
        raise InputError("there are no crystals to evaluate")
    if cutoffs is not None and not all(0 < cutoff < float("inf") for cutoff in cutoffs):
        raise InputError(f"--cutoffs {cutoffs[0]:g} {cutoffs[1]:g}: both must be above 0 and finite")
    workers = available_cores() if workers is None else workers
    sample = Sample(
        crystals, failures, as_reference(reference), paired, workers, seed, time_limit, cutoffs=cutoffs,
        energy_model=energy_model,
    )  # fmt: skip
    if energy_model is not None and sample.reference.crystals is None:
        raise InputError(f"energies need the crystals of the reference, and {sample.reference.source} has none")
    if paired:
        sample.pairs  # noqa: B018 -- pairs that do not fit are told before minutes of work
    numbers = tuple((name, number) for name, metric in METRICS.items() for number in metric.measure(sample))
    return Report(
        numbers=numbers,
        generated=sample.generated,
        failures=tuple(failures),
        reference=sample.reference,
        given_up=tuple(sample.given_up),
        settings={
            "paired": paired,
            "seed": seed,
            "time_limit_s": time_limit,
            "matcher": {"name": "pymatgen StructureMatcher", **TOLERANCES},
            "min_distance_A": MIN_DISTANCE,
            "min_volume_A3": MIN_VOLUME,
            "energy_model": None if energy_model is None else energy_model.source,
            "coverage": {"cutoffs": list(sample.coverage_cutoffs[0]), "fingerprint": ALGORITHM},
            "interval_level": LEVEL,
            "bootstrap_replicates": REPLICATES,
        },
        versions=tool_versions(),
    )


def tool_versions() -> dict[str, str]:
    """Versions of the installed tools that shape the numbers."""
    versions = {}
    for tool in TOOLS:
        try:
            versions[tool] = version(tool)
        except PackageNotFoundError:
            continue
    return versions
