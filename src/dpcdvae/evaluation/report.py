"""The result of an evaluation: every number with what is needed to trust it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from dpcdvae.errors import InputError
from dpcdvae.evaluation.crystal_table import CrystalColumns, crystal_table
from dpcdvae.evaluation.metrics import METRICS
from dpcdvae.evaluation.reference import Reference
from dpcdvae.evaluation.sample import Number, Sample
from dpcdvae.io import Failure

if TYPE_CHECKING:
    from rich.console import RenderableType

SCHEMA = "dpcdvae.evaluation/2"
TOOLS = ("dpcdvae", "numpy", "scipy", "pymatgen", "pymatgen-core", "spglib", "smact")

Key = tuple[str, str]
"""What tells the numbers of a report apart: metric and gate."""


@dataclass(frozen=True)
class Report:
    """The result of :func:`dpcdvae.evaluation.evaluate`; ``docs/evaluation.md`` describes its JSON.

    Attributes:
        numbers: (metric, number) in the order of the table of metrics.
        baselines: the same numbers for other crystals, by name of the baseline.
        sample: the crystals that were judged, and what was found out about them.
        given_up: comparisons that were cut off, those of the baselines included: what, id, reason.
        settings: all that shaped the numbers.
        versions: of the tools that did.
    """

    numbers: tuple[tuple[str, Number], ...]
    baselines: Mapping[str, Mapping[Key, Number]]
    sample: Sample
    given_up: Sequence[Mapping[str, str]]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]

    @property
    def generated(self) -> int:
        """Crystals asked for or found, those that could not be read included."""
        return self.sample.generated

    @property
    def failures(self) -> Sequence[Failure]:
        """What could not be read, or not be built."""
        return self.sample.failures

    @property
    def reference(self) -> Reference:
        return self.sample.reference

    def crystals(self) -> CrystalColumns:
        """What is known of each single crystal, by column; one row for each of ``generated``.

        What the numbers did not ask for, as in a short protocol, is computed now, on the engine of the evaluation.
        """
        return crystal_table(self.sample)

    def __getitem__(self, name: str) -> Number:
        """The number of a metric, e.g. ``report["match_rate"]``; of several gates the first, which is the widest."""
        METRICS[name]
        for key, number in self.numbers:
            if key == name:
                return number
        raise InputError(
            f"the report has no {name}: it needs a paired evaluation, the crystals of the reference, a training "
            "set, energies, or another protocol"
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values, schema ``docs/evaluation.schema.json``."""
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
                    **_value(number),
                    "unit": METRICS[name].unit,
                    "note": number.note,
                    "baselines": {
                        baseline: _value(values[name, number.gate])
                        for baseline, values in self.baselines.items()
                        if (name, number.gate) in values
                    },
                }
                for name, number in self.numbers
            ],
            "given_up": [dict(entry) for entry in self.given_up],
            "settings": dict(self.settings),
            "versions": dict(self.versions),
        }

    def table(self, width: int = 120) -> RenderableType:
        """What a person reads on a terminal of so many columns; print it with rich."""
        from dpcdvae.evaluation.tables import rich_table

        return rich_table(self, width)

    def markdown(self) -> str:
        """The same for a paper."""
        from dpcdvae.evaluation.tables import markdown

        return markdown(self)


def _value(number: Number) -> dict[str, Any]:
    interval = None if number.interval is None else list(number.interval)
    return {"value": number.value, "interval": interval, "n": number.n}


def tool_versions() -> dict[str, str]:
    """Versions of the installed tools that shape the numbers."""
    versions = {}
    for tool in TOOLS:
        try:
            versions[tool] = version(tool)
        except PackageNotFoundError:
            continue
    return versions
