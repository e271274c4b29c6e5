"""How close generated crystals lie to their ground states: Table 3 of the paper, with intervals and failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dpcdvae.io import Failure
from dpcdvae.parallel import HERE, Engine, Lost
from dpcdvae.relaxation.comparison import PUBLISHED, match_distances
from dpcdvae.relaxation.relaxed import Relaxed

if TYPE_CHECKING:
    from rich.console import RenderableType

SCHEMA = "dpcdvae.ground_state/1"
LEVEL = 0.95  # of the intervals
REPLICATES = 1000
BIN_EDGES = (0.0, *(2.0**k for k in range(18)))  # meV/atom: 0-1, 1-2, 2-4 ... as the paper's mode is one of 64-128

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """A number over the crystals: None if there is nothing behind it, ``n`` crystals else, and its 95 % interval."""

    name: str
    title: str
    unit: str
    value: float | None
    interval: tuple[float, float] | None
    n: int


@dataclass(frozen=True)
class Row:
    """One crystal: differences are generated minus relaxed; None where the relaxation did not converge."""

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
        figures: Table 3, its enthalpy version and the medians.
        rows: crystal by crystal.
        failures: crystals that could not be read.
        unmatched: comparisons that were given up, by id; they count as no match.
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

    def __getitem__(self, name: str) -> Figure:
        return next(figure for figure in self.figures if figure.name == name)

    @property
    def mode(self) -> tuple[float, float] | None:
        """The fullest bin of the histogram, meV/atom."""
        low, high, count = max(self.histogram, key=lambda item: item[2])
        return (low, high) if count else None

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Why crystals did not converge, the commonest first, figures left out."""
        return Counter(
            row.reason.split(" (")[0].split(", at ")[0] for row in self.rows if not row.converged
        ).most_common()

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
            "figures": [asdict(figure) for figure in self.figures],
            "energy_histogram": {
                "unit": "meV/atom", "below_zero": self.below_zero, "bins": self.histogram, "mode": self.mode,
            },
            "rows": [asdict(row) for row in self.rows],
            "unmatched": self.unmatched,
            "settings": {
                "pressure_GPa": self.pressure, "interval": LEVEL, "replicates": REPLICATES,
                "matcher": dict(zip(("ltol", "stol", "angle_tol"), PUBLISHED, strict=True)),
            },
        }  # fmt: skip

    def table(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table

        given, converged = len(self.rows) + len(self.failures), sum(row.converged for row in self.rows)
        table = Table(title=f"{given} crystals, {converged} relaxed at {self.pressure:g} GPa", title_justify="left")
        for header in ("", "value", "95 %", "n"):
            table.add_column(header, justify="left" if not header else "right", no_wrap=True)
        for figure in self.figures:
            unit = f" ({figure.unit})" if figure.unit else ""
            value = "–" if figure.value is None else f"{figure.value:.4g}"
            interval = "–" if figure.interval is None else "{:.4g} to {:.4g}".format(*figure.interval)
            table.add_row(figure.title + unit, value, interval, str(figure.n))
        lines = [f"not relaxed: {count} × {reason}" for reason, count in self.reasons]
        lines += [f"could not be read: {len(self.failures)}"] if self.failures else []
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
    time_limit: float = 60.0,
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
    pairs = [(relaxed[k].final, relaxed[k].initial) for k in done]
    found = dict(zip(done, match_distances(pairs, engine=engine, time_limit=time_limit), strict=True))
    rows = tuple(_row(item, found.get(k)) for k, item in enumerate(relaxed))
    energies = _column(rows, "delta_energy")
    counts, _ = np.histogram(energies, BIN_EDGES)
    return GroundState(
        figures=tuple(_figures(rows, len(rows) + len(failures), seed)),
        rows=rows,
        failures=tuple(failures),
        unmatched={rows[k].id: result.reason for k, result in found.items() if isinstance(result, Lost)},
        below_zero=int((energies < 0).sum()),
        histogram=tuple(zip(BIN_EDGES[:-1], BIN_EDGES[1:], counts.tolist(), strict=True)),
        pressure=relaxed[0].pressure if relaxed else 0.0,
        pushed_apart=sum(item.pushed_apart for item in relaxed),
    )


def _row(item: Relaxed, found: float | Lost | None) -> Row:
    if not item.converged:
        return Row(item.initial.id, False, item.reason, None, None, None, None)
    return Row(
        item.initial.id, True, "", None if isinstance(found, Lost) else found,
        _finite(item.initial_volume - item.volume),
        _finite(1000 * (item.initial_energy - item.energy)),
        _finite(1000 * (item.initial_enthalpy - item.enthalpy)),
    )  # fmt: skip


def _figures(rows: Sequence[Row], given: int, seed: int) -> list[Figure]:
    from scipy.stats import binomtest

    rms, volume, energy, enthalpy = (
        _column(rows, name) for name in ("rms", "delta_volume", "delta_energy", "delta_enthalpy")
    )
    if given:
        interval = binomtest(len(rms), given).proportion_ci(LEVEL, method="wilson")
        rate = Figure(
            "match_rate", "match rate", "", len(rms) / given, (float(interval.low), float(interval.high)), given
        )
    else:
        rate = Figure("match_rate", "match rate", "", None, None, 0)
    kinds: list[tuple[str, str, str, Values, Callable[[Values], float]]] = [
        ("match_rms", "⟨δ_rms⟩ of the matched", "", rms, _mean),
        ("match_rms_median", "median of it", "", rms, _median),
        ("delta_volume_rms", "ΔV_rms", "Å^3/atom", volume, _root_mean_square),
        ("delta_volume_median", "median of |ΔV|", "Å^3/atom", np.abs(volume), _median),
        ("delta_energy_rms", "ΔE_rms", "meV/atom", energy, _root_mean_square),
        ("delta_energy_median", "median of ΔE", "meV/atom", energy, _median),
        ("delta_enthalpy_rms", "ΔH_rms", "meV/atom", enthalpy, _root_mean_square),
        ("delta_enthalpy_median", "median of ΔH", "meV/atom", enthalpy, _median),
    ]
    return [rate, *(_figure(name, title, unit, values, of, seed) for name, title, unit, values, of in kinds)]


def _figure(
    name: str, title: str, unit: str, values: Values, statistic: Callable[[Values], float], seed: int
) -> Figure:
    """With the percentile interval of a bootstrap over the crystals."""
    if len(values) == 0:
        return Figure(name, title, unit, None, None, 0)
    rng = np.random.default_rng(seed)
    drawn = [statistic(values[rng.integers(len(values), size=len(values))]) for _ in range(REPLICATES)]
    low, high = np.quantile(drawn, (0.5 - LEVEL / 2, 0.5 + LEVEL / 2))
    return Figure(name, title, unit, statistic(values), (float(low), float(high)), len(values))


def _mean(values: Values) -> float:
    return float(values.mean())


def _median(values: Values) -> float:
    return float(np.median(values))


def _root_mean_square(values: Values) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _column(rows: Sequence[Row], name: str) -> Values:
    return np.array([value for row in rows if (value := getattr(row, name)) is not None], np.float64)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
