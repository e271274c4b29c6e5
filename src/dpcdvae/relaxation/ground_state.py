"""How close generated crystals lie to their ground states: Table 3 of the paper, with intervals and failures."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dpcdvae.errors import unknown_name
from dpcdvae.intervals import LEVEL, REPLICATES, Floats, Number, bootstrap
from dpcdvae.io import Failure
from dpcdvae.parallel import HERE, TIME_LIMIT, Engine
from dpcdvae.parallel.results import Results
from dpcdvae.relaxation.relaxed_crystal import Relaxed, count_reasons
from dpcdvae.structures.pair_matching import match_pairs
from dpcdvae.structures.tolerances import PUBLISHED

if TYPE_CHECKING:
    from rich.console import RenderableType

SCHEMA = "dpcdvae.ground_state/1"
BIN_EDGES = (0.0, *(2.0**k for k in range(18)))  # meV/atom: 0-1, 1-2, 2-4 ... as the paper's mode is one of 64-128

MOST_REASONS = 10  # lines


@dataclass(frozen=True)
class Figure:
    """An entry of the table; a rate has no unit."""

    name: str
    title: str
    unit: str
    number: Number


@dataclass(frozen=True)
class Row:
    """One crystal: differences are generated minus relaxed.

    They are None where the relaxation did not converge, those of energies also where one of them is not known.
    ``reason`` says why.
    """

    id: str
    converged: bool
    reason: str
    rms: float | None
    delta_volume: float | None
    delta_energy: float | None
    delta_enthalpy: float | None


@dataclass(frozen=True)
class GroundState:
    """Result of :func:`ground_state`.

    Attributes:
        figures: the numbers of Table 3, its enthalpy version and the medians.
        rows: crystal by crystal.
        failures: crystals that could not be read or built.
        unmatched: comparisons without a result, by id; they count as no match.
        below_zero: crystals whose energy rose.
        histogram: (from, to, crystals) of the energy difference, meV/atom.
        pressure: GPa.
        pushed_apart: crystals with atoms upon one another.
    """

    figures: tuple[Figure, ...]
    rows: tuple[Row, ...]
    failures: tuple[Failure, ...]
    unmatched: dict[str, str]
    below_zero: int
    histogram: tuple[tuple[float, float, int], ...]
    pressure: float
    pushed_apart: int

    def __getitem__(self, name: str) -> Number:
        """The number of a figure. Raises InputError, with the choices, where there is no such figure."""
        found = {figure.name: figure.number for figure in self.figures}
        if name not in found:
            raise unknown_name("figure", name, found)
        return found[name]

    @property
    def mode(self) -> tuple[float, float] | None:
        """The fullest bin of the histogram, meV/atom."""
        low, high, count = max(self.histogram, key=lambda item: item[2])
        return (low, high) if count else None

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Why crystals did not converge, the commonest first, figures left out."""
        return count_reasons(row.reason for row in self.rows if not row.converged)

    @property
    def unknown_energies(self) -> list[tuple[str, int]]:
        """Why crystals that did converge have no difference of energies, the commonest first."""
        return count_reasons(row.reason for row in self.rows if row.converged and row.reason)

    def to_json(self) -> dict[str, Any]:
        """JSON values, described in ``docs/relaxation.md``."""
        return {
            "schema": SCHEMA,
            "crystals": {
                "given": len(self.rows) + len(self.failures),
                "converged": sum(row.converged for row in self.rows),
                "pushed_apart": self.pushed_apart,
                "failures": [asdict(failure) for failure in self.failures],
            },
            "figures": [
                {"name": figure.name, "title": figure.title, "unit": figure.unit, **figure.number.to_json()}
                for figure in self.figures
            ],
            "energy_histogram": {
                "unit": "meV/atom",
                "below_zero": self.below_zero,
                "bins": self.histogram,
                "mode": self.mode,
            },
            "rows": [asdict(row) for row in self.rows],
            "unmatched": self.unmatched,
            "settings": {
                "pressure_GPa": self.pressure,
                "interval": LEVEL,
                "replicates": REPLICATES,
                "matcher": asdict(PUBLISHED),
            },
        }

    def table(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table

        given, converged = len(self.rows) + len(self.failures), sum(row.converged for row in self.rows)
        table = Table(title=f"{given} crystals, {converged} relaxed at {self.pressure:g} GPa", title_justify="left")
        for header in ("", "value", f"{LEVEL:.0%}", "n"):
            table.add_column(header, justify="left" if not header else "right", no_wrap=True)
        for figure in self.figures:
            unit = f" ({figure.unit})" if figure.unit else ""
            table.add_row(figure.title + unit, *figure.number.shown(figure.unit), str(figure.number.n))
        lines = reason_lines("not relaxed", self.reasons)
        lines += reason_lines("relaxed, energy before unknown", self.unknown_energies)
        lines += [f"could not be read or built: {len(self.failures)}"] if self.failures else []
        lines += [f"atoms pushed apart before relaxation: {self.pushed_apart}"] if self.pushed_apart else []
        lines += [f"energy higher after relaxation: {self.below_zero}"] if self.below_zero else []
        if self.mode is not None:
            lines.append("commonest ΔE: {:g} to {:g} meV/atom".format(*self.mode))
        return Group(table, *lines)


def ground_state(
    relaxed: Sequence[Relaxed],
    *,
    failures: Sequence[Failure] = (),
    engine: Engine = HERE,
    time_limit: float = TIME_LIMIT,
    seed: int = 0,
) -> GroundState:
    """Table 3: match rate and ⟨δ_rms⟩ with the relaxed crystal as base, and the differences to it.

    Only converged relaxations count as relaxed. The others, and crystals that could not be read, are in the match
    rate as crystals without a match, and not in the differences.

    Args:
        time_limit: seconds for one comparison.
        seed: of the bootstrap.
    """
    done = [k for k, item in enumerate(relaxed) if item.converged]
    results = Results(engine, time_limit)
    found = match_pairs([relaxed[k].final for k in done], [relaxed[k].initial for k in done], results)
    rms = dict(zip(done, found.rms.tolist(), strict=True))
    rows = tuple(_row(item, rms.get(k, math.nan)) for k, item in enumerate(relaxed))
    energies = _column(rows, "delta_energy")
    counts, _ = np.histogram(energies, BIN_EDGES)
    return GroundState(
        figures=tuple(_figures(rows, len(rows) + len(failures), seed)),
        rows=rows,
        failures=tuple(failures),
        unmatched={rows[done[n]].id: reason for n, reason in found.reasons.items()},
        below_zero=int((energies < 0).sum()),
        histogram=tuple(zip(BIN_EDGES[:-1], BIN_EDGES[1:], counts.tolist(), strict=True)),
        pressure=relaxed[0].pressure if relaxed else 0.0,
        pushed_apart=sum(item.pushed_apart for item in relaxed),
    )


def _row(item: Relaxed, rms: float) -> Row:
    if not item.converged:
        return Row(item.initial.id, False, item.reason, None, None, None, None)
    return Row(
        item.initial.id,
        True,
        item.initial_reason,
        _finite(rms),
        _finite(item.initial_volume - item.volume),
        _finite(1000 * (item.initial_energy - item.energy)),
        _finite(1000 * (item.initial_enthalpy - item.enthalpy)),
    )


def reason_lines(what: str, reasons: Sequence[tuple[str, int]]) -> list[str]:
    """One line for each of the commonest reasons, and one for all others."""
    lines = [f"{what}: {count} × {reason}" for reason, count in reasons[:MOST_REASONS]]
    others = reasons[MOST_REASONS:]
    return lines + [f"{what}: {sum(count for _, count in others)} × {len(others)} other reasons"] * bool(others)


def _figures(rows: Sequence[Row], given: int, seed: int) -> list[Figure]:
    rms, volume, energy, enthalpy = (
        _column(rows, name) for name in ("rms", "delta_volume", "delta_energy", "delta_enthalpy")
    )

    def root_mean_square(values: Floats) -> Number:
        interval = functools.partial(bootstrap, statistic=_root_mean_square, seed=seed)
        return Number.of(values, _root_mean_square, interval)

    return [
        Figure("match_rate", "match rate", "", Number.rate(len(rms), given)),
        Figure("match_rms", "⟨δ_rms⟩ of the matched", "(V/N)^(1/3)", Number.mean(rms, seed=seed)),
        Figure("match_rms_median", "median of it", "(V/N)^(1/3)", Number.median(rms)),
        Figure("delta_volume_rms", "ΔV_rms", "Å^3/atom", root_mean_square(volume)),
        Figure("delta_volume_median", "median of |ΔV|", "Å^3/atom", Number.median(np.abs(volume))),
        Figure("delta_energy_rms", "ΔE_rms", "meV/atom", root_mean_square(energy)),
        Figure("delta_energy_median", "median of ΔE", "meV/atom", Number.median(energy)),
        Figure("delta_enthalpy_rms", "ΔH_rms", "meV/atom", root_mean_square(enthalpy)),
        Figure("delta_enthalpy_median", "median of ΔH", "meV/atom", Number.median(enthalpy)),
    ]


def _root_mean_square(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _column(rows: Sequence[Row], name: str) -> Floats:
    return np.array([value for row in rows if (value := getattr(row, name)) is not None], np.float64)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
