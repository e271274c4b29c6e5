"""Plots of relaxed crystals: how far they were from their minima, and which minima there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dpcdvae.drawing.figures import BLUE, GREY, LIGHT, ORANGE
from dpcdvae.intervals import drawable
from dpcdvae.plots.plot_table import head, plot_of
from dpcdvae.relaxation.ground_state import BIN_EDGES
from dpcdvae.structures.crystal import Crystal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dpcdvae.plots.plot_table import Panel

Floats = npt.NDArray[np.float64]

INITIAL, FINAL, VOLUME = "initial_enthalpy_eV_per_atom", "enthalpy_eV_per_atom", "volume_A3_per_atom"
"""Properties of a relaxed crystal."""

MARKS = ["o", "s", "^", "D", "v", "P"]


@dataclass(frozen=True)
class RelaxedSet:
    """What a relaxation says of many crystals; NaN where something is not known.

    Attributes:
        change: (n,) eV/atom, enthalpy before less that after. volume: (n,) Å³/atom after. enthalpy: (n,) eV/atom after.
        converged: (n,).
        formulas: of all.
        pressures: GPa, each once.
    """

    change: Floats
    volume: Floats
    enthalpy: Floats
    converged: npt.NDArray[np.bool_]
    formulas: Sequence[str]
    pressures: Sequence[float]

    @classmethod
    def of_crystals(cls, crystals: Sequence[Crystal]) -> RelaxedSet | None:
        """None where none of them bears what ``dpcdvae relax`` writes."""
        if not any(FINAL in crystal.properties for crystal in crystals):
            return None

        def values(name: str) -> Floats:
            return drawable([crystal.properties.get(name, np.nan) for crystal in crystals])

        return cls(
            values(INITIAL) - values(FINAL),
            values(VOLUME),
            values(FINAL),
            np.array([bool(crystal.properties.get("converged", True)) for crystal in crystals]),
            [crystal.formula for crystal in crystals],
            sorted({float(p) for p in values("pressure_GPa") if np.isfinite(p)}),
        )

    @classmethod
    def of_ground_state(cls, content: Mapping[str, Any]) -> RelaxedSet:
        """Of the JSON of ``dpcdvae ground-state``, which knows differences only.

        Raises:
            KeyError, TypeError, ValueError: it is another.
        """
        rows = content["rows"]
        change = drawable([np.nan if (d := row["delta_enthalpy"]) is None else d / 1000 for row in rows])
        unknown = np.full(len(rows), np.nan)
        converged = np.array([bool(row["converged"]) for row in rows], bool)
        pressure = float(content["settings"]["pressure_GPa"])
        if not np.isfinite(drawable(pressure)):
            raise ValueError(f"a pressure of {pressure} GPa")
        return cls(change, unknown, unknown, converged, [""] * len(rows), [pressure])

    @property
    def quantity(self) -> str:
        """What there is a difference of: without pressure the enthalpy is the energy."""
        return "energy" if all(pressure == 0 for pressure in self.pressures) else "enthalpy"


@plot_of(RelaxedSet, "energy-change")
def _energy_change(relaxed: RelaxedSet) -> Panel | str:
    """Histogram of the energy (enthalpy under pressure) that crystals lose when they are relaxed."""
    known = 1000 * relaxed.change[relaxed.converged & np.isfinite(relaxed.change)]
    if not len(known):
        return "no crystal has converged with a known energy before and after"
    left_out = len(relaxed.change) - len(known)
    rose = int((known < 0).sum())
    middle = float(np.median(known))
    words = [f"median {middle:.{0 if abs(middle) >= 100 else 2}f} meV/atom of {len(known)} crystals"]
    words += [f"{rose} rose (in the first bar, below 1 meV/atom)"] if rose else []
    words += [f"{left_out} left out (not converged, or an energy unknown)"] if left_out else []
    edges = np.array([0.5, *BIN_EDGES[1:]])
    counts = np.histogram(np.clip(known, 0.6, edges[-1]), edges)[0]
    filled = np.flatnonzero(counts)
    first, last = max(int(filled[0]) - 1, 0), min(int(filled[-1]) + 2, len(edges) - 1)

    def panel(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator, NullFormatter

        title = f"{relaxed.quantity.capitalize()} lost in relaxation"
        head(axes, title, words[0] + ("\n" + "; ".join(words[1:]) if words[1:] else ""))
        axes.set_xscale("log")
        axes.stairs(
            counts[first:last], edges[first : last + 1], fill=True, facecolor=LIGHT, edgecolor=GREY, linewidth=0.8
        )
        if middle > edges[first]:
            axes.axvline(middle, color=BLUE, linestyle="--", label="median")
            axes.legend()
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(f"{relaxed.quantity} before − after (meV/atom)")
        axes.set_ylabel("crystals")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))

    return panel


@plot_of(RelaxedSet, "enthalpy-volume")
def _enthalpy_volume(relaxed: RelaxedSet) -> Panel | str:
    """Where the relaxed crystals lie: enthalpy against volume; of several compositions each above its lowest."""
    known = np.isfinite(relaxed.volume) & np.isfinite(relaxed.enthalpy)
    if not known.any():
        return "the volumes and enthalpies of the crystals are not known"
    if len(relaxed.pressures) > 1:
        return "enthalpies at different pressures cannot be compared: plot the crystals of each pressure alone"
    formulas = np.array(relaxed.formulas)
    counts = Counter(formulas[known].tolist())
    commonest = [formula for formula, _ in counts.most_common()]
    if len(commonest) > 1 and counts[commonest[0]] == 1:
        return "enthalpies of different compositions cannot be compared, and each composition is there once"
    enthalpy = relaxed.enthalpy.copy()
    label = f"{relaxed.quantity} (eV/atom)"
    if len(commonest) > 1:
        label = f"{relaxed.quantity} above the lowest\nof its composition (eV/atom)"
        for formula in commonest:
            of_it = known & (formulas == formula)
            enthalpy[of_it] -= enthalpy[of_it].min()
    named = commonest if len(commonest) <= len(MARKS) else []
    pressures = ", ".join(f"{pressure:g}" for pressure in relaxed.pressures)

    def panel(axes: Axes) -> None:
        count = f"{int(known.sum())} crystals" + (f" at {pressures} GPa" if pressures else "")
        head(axes, f"{relaxed.quantity.capitalize()} against volume", count)
        for formula, mark in zip(named or [""], MARKS, strict=False):
            these = known & ((formulas == formula) if named else True)
            for part, face in ((these & relaxed.converged, BLUE), (these & ~relaxed.converged, "none")):
                axes.plot(
                    relaxed.volume[part],
                    enthalpy[part],
                    mark,
                    ms=4,
                    mfc=face,
                    mec=BLUE if face != "none" else ORANGE,
                    mew=0.8,
                    alpha=0.8,
                    label=(formula if len(named) > 1 else "converged") if face != "none" else "_",
                )
        if (known & ~relaxed.converged).any():
            axes.plot([], [], "o", ms=4, mfc="none", mec=ORANGE, label="not converged")
        if len(axes.get_legend_handles_labels()[0]) > 1:
            axes.legend()
        axes.set_xlabel("volume (Å³/atom)")
        axes.set_ylabel(label)

    return panel
