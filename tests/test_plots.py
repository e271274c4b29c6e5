"""Plots: they show the numbers of the evaluation, whole and in any format, and say what they lack."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dpcdvae
from dpcdvae.cli import main
from dpcdvae.drawing.figures import FORMATS
from dpcdvae.errors import InputError
from dpcdvae.evaluation import EnergyModel, Report
from dpcdvae.plots import PLOTS
from dpcdvae.plots import plot as draw_plot
from dpcdvae.structures.crystal import Crystal
from pages import PEROVSKITE, SALT

HEAD = "epoch,cpu_seconds,lr,val/loss,val/criterion,val/kl,val/coords,train/loss\n"
EPOCHS = "1,60,0.001,9,8,50,1,10\n2,60,0.001,,,,,nan\n3,30,0.0005,5,6,40,0.5,4\n"
RELAXED = {"initial_enthalpy_eV_per_atom": -3.0, "enthalpy_eV_per_atom": -3.1, "volume_A3_per_atom": 9.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Generated crystals, their references, a report with its manifest, a run, relaxed crystals."""
    path = tmp_path_factory.mktemp("plots")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPCDVAE_HOME", str(path / "home"))
        patch.chdir(path)
        for name, content in {"run": HEAD + EPOCHS, "young": HEAD, "odd": "epoch\nx\n"}.items():
            Path(name).mkdir()
            Path(name, "metrics.csv").write_text(content)
        Path("fresh").mkdir()
        Path("fresh", "run.json").write_text("{}")
        dpcdvae.write(crystals(30, 0.02), "c.extxyz")
        dpcdvae.write(crystals(30, 0.0), "truth.extxyz")
        relaxed = [
            replace(c, properties={**RELAXED, "pressure_GPa": 10.0, "converged": k > 2})
            for k, c in enumerate(crystals(9))
        ]
        dpcdvae.write(relaxed, "relaxed.extxyz")
        command = "evaluate c.extxyz --reference truth.extxyz --paired --protocol cdvae --baselines none --workers 0"
        assert main(f"{command} --json n.json".split()) == 0
        yield path


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DPCDVAE_HOME", str(folder / "home"))


def crystals(n: int, noise: float = 0.0) -> list[Crystal]:
    """Perovskites and salts of growing cells, with latent distances."""
    rng = np.random.default_rng(0)
    return [
        replace(
            base,
            id=str(k),
            lattice=base.lattice * (1 + k / 200 + noise),
            frac_coords=base.frac_coords + noise * rng.normal(size=base.frac_coords.shape),
            properties={"latent_distance": 0.1 * (k + 1)},
        )
        for k, base in enumerate([PEROVSKITE, SALT] * (n // 2) + [SALT] * (n % 2))
    ]


def words(figure: object, panel: int = 0) -> str:
    """All that is written on a panel."""
    axes = figure.axes[panel]
    legend = axes.get_legend()
    texts = [*axes.texts, *(legend.get_texts() if legend else ()), axes.title, axes.xaxis.label, axes.yaxis.label]
    return " | ".join(text.get_text() for text in [*texts, axes._left_title])


def report(**more: object) -> Report:
    return dpcdvae.evaluate(crystals(30, 0.02), crystals(30), workers=0, **more)


def test_a_report_is_plotted_with_its_own_numbers() -> None:
    """The distances and rates on the panels are those of the report, the baseline is its baseline."""
    energy = EnergyModel("m", "energy_x", lambda some: (np.array([c.density**2 for c in some]), {}))
    scored = report(paired=True, energy_model=energy)
    figure = dpcdvae.plot(scored, workers=0)
    titles = [axes._left_title.get_text() for axes in figure.axes]
    assert titles == [
        "Density", "Number of elements", "Predicted energy x", "Space groups", "Match rate",
        "Match rate by latent distance",
    ]  # fmt: skip
    for panel, name in enumerate(("density_wasserstein", "num_elements_wasserstein", "energy_wasserstein")):
        assert f"{scored[name].value:.3g} (" in words(figure, panel)
        assert f"{scored.baselines['reference'][name, 'none'].value:.3g} for as many" in words(figure, panel)
    assert f"{100 * scored['space_group_distance'].value:.1f}% (" in words(figure, 3)
    assert f"{100 * scored['match_rate'].value:.1f}% of 30 match" in words(figure, 4)
    rates = {number.gate: number.value for name, number in scored.numbers if name == "match_rate_by_tolerance"}
    (points,) = (line for line in figure.axes[4].lines if line.get_marker() == "s")
    np.testing.assert_allclose(points.get_ydata(orig=False), [100 * rate for rate in rates.values()])
    curve = figure.axes[4].lines[0].get_ydata()
    assert (np.diff(curve) >= 0).all()
    assert curve[-1] == pytest.approx(100 * scored["match_rate"].value)


def test_histograms_hold_all_crystals_of_the_axis() -> None:
    """The bars of generated and reference crystals add up to 100%, or to what does not lie beyond the axis."""
    from matplotlib.patches import StepPatch

    figure = dpcdvae.plot(crystals(30, 0.02), reference=crystals(20), only=["density"], workers=0)
    for stairs in (patch for patch in figure.axes[0].patches if isinstance(patch, StepPatch)):
        beyond = re.search(r"(\d+) generated beyond", words(figure))
        missing = 100 * int(beyond[1]) / 30 if beyond and "generated" in stairs.get_label() else 0.0
        assert stairs.get_data().values.sum() == pytest.approx(100 - missing)


def test_a_reference_of_statistics_has_densities_and_elements_alone() -> None:
    figure = dpcdvae.plot(crystals(4), reference="perov-5-compact", workers=0)
    assert [axes._left_title.get_text() for axes in figure.axes] == ["Density", "Number of elements", "Space groups"]
    assert "statistics only" in words(figure, 2)


def test_a_run_shows_every_epoch_with_its_minutes() -> None:
    figure = dpcdvae.plot("run")
    titles = [axes._left_title.get_text() for axes in figure.axes]
    assert titles == ["Loss", "Terms of the validation loss", "Criterion of the best checkpoint", "Learning rate"]
    losses = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert losses == {"training": [[1, 10], [3, 4]], "validation": [[1, 9], [3, 5]]}
    assert "best: 6 in epoch 3" in words(figure, 2)
    figure.draw_without_rendering()
    (top,) = figure.axes[3].child_axes
    assert top.get_xlim() == pytest.approx((0.0, 2.5))  # CPU minutes of 150 seconds


def test_relaxed_crystals_show_what_they_lost() -> None:
    figure = dpcdvae.plot("relaxed.extxyz", workers=0)
    assert "Enthalpy lost" in words(figure)
    assert "median 100 meV/atom of 6 crystals" in words(figure)
    assert "3 left out" in words(figure)
    (bars,) = figure.axes[0].patches
    values, edges, _ = bars.get_data()
    assert values.sum() == 6
    (full,) = np.flatnonzero(values)
    assert (edges[full], edges[full + 1]) == (64, 128)
    points = sum(len(line.get_xdata()) for line in figure.axes[1].lines)
    assert points == 9
    assert "above the lowest" in words(figure, 1)  # of two compositions


def test_a_ground_state_is_plotted_from_its_json(folder: Path) -> None:
    from dpcdvae.relaxation.relaxed_crystal import Relaxed

    items = [
        Relaxed(c, c, 0.0, True, "", initial_energy=-3.0 + k, energy=-3.5, volume=9.0)
        for k, c in enumerate(crystals(4))
    ]
    table = dpcdvae.ground_state(items)
    Path("table3.json").write_text(json.dumps(table.to_json()))
    one, other = dpcdvae.plot(table), dpcdvae.plot("table3.json")
    assert words(one) == words(other)
    assert "median 2000 meV/atom of 4 crystals" in words(one)


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_the_command_writes_any_format_the_same_each_time(suffix: str) -> None:
    files = [f"{k}{suffix}" for k in range(2)]
    for file in files:
        assert main(f"plot n.json --only density --only match-rate --workers 0 --out {file}".split()) == 0
    assert Path(files[0]).read_bytes() == Path(files[1]).read_bytes()
    assert json.loads(Path(f"{files[0]}.manifest.json").read_text())["arguments"]["only"] == ["density", "match-rate"]


def test_the_report_and_its_crystals_give_the_same_figure() -> None:
    assert main("plot n.json --only match-rate --workers 0 --out a.svg".split()) == 0
    assert (
        main("plot c.extxyz --reference truth.extxyz --paired --only match-rate --workers 0 --out b.svg".split()) == 0
    )
    assert Path("a.svg").read_bytes() == Path("b.svg").read_bytes()


def test_a_reference_that_changed_since_the_report_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("truth.extxyz").read_text()
    try:
        Path("truth.extxyz").write_text(before + "\n")
        assert main("plot n.json --workers 0 --out changed.svg".split()) == 2
    finally:
        Path("truth.extxyz").write_text(before)
    assert "not what the report was compared with" in capsys.readouterr().err
    assert not Path("changed.svg").exists()


def test_nothing_is_smaller_than_eight_points_and_numbers_have_units() -> None:
    from matplotlib.text import Text

    figures = [dpcdvae.plot(source, workers=0) for source in ("run", "relaxed.extxyz", "n.json")]
    for figure in figures:
        figure.draw_without_rendering()
        assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 8
        for axes in figure.axes:
            assert axes.get_xlabel()
            assert axes.get_ylabel() or axes._left_title.get_text() == "Space groups"


def test_every_plot_is_described_in_the_documentation() -> None:
    page = (Path(__file__).parents[1] / "docs" / "plots.md").read_text(encoding="utf-8")
    assert [name for name in PLOTS if f"`{name}`" not in page] == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("young --out p.svg", "no finished epoch"),
        ("fresh --out p.svg", "no finished epoch"),
        ("odd --out p.svg", "not the epochs"),
        ("run --out p.jpg", "written as .svg, .pdf or .png"),
        ("run --only losses --out p.svg", "did you mean 'loss'"),
        ("run --only density --out p.svg", "no plot density of this: choose from loss"),
        ("run --reference truth.extxyz --out p.svg", "not for run"),
        ("c.extxyz --out p.svg", "give --reference"),
        ("c.extxyz --paired --out p.svg", "--paired: only for crystals with a --reference"),
        ("c.extxyz --reference truth.extxyz --only match-rate --out p.svg", "--paired"),
        ("c.extxyz --reference truth.extxyz --only energy --out p.svg", "--energy-model"),
        ("n.json --paired --out p.svg", "give its crystals instead"),
        ("lonely.json --out p.svg", "give the crystals and --reference"),
        ("stale.json --out p.svg", "evaluate it again"),
        ("gone.json --out p.svg", "no such file"),
        ("run --out run/metrics.csv --overwrite", "would lie among the files"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    Path("lonely.json").write_text(Path("n.json").read_text())
    Path("stale.json").write_text(Path("n.json").read_text())
    stale = json.loads(Path("n.json.manifest.json").read_text())
    Path("stale.json.manifest.json").write_text(json.dumps(stale | {"crystals_sha256": "0"}))
    assert main(["plot", *command.split(), "--workers", "0"]) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, error), error
    assert not list(folder.glob("p.*"))


def test_in_python_too_what_a_plot_lacks_is_said() -> None:
    with pytest.raises(InputError, match="unknown plot 'x'"):
        draw_plot("run", only=["x"])
    bare = [replace(crystal, properties={}) for crystal in crystals(4)]
    with pytest.raises(InputError, match="a latent distance are needed, there are 0"):
        draw_plot(bare, reference=bare, paired=True, only=["latent-distance"], workers=0)
    with pytest.raises(InputError, match="nothing to plot"):
        draw_plot([SALT])
    unlike = [replace(crystal, properties=RELAXED) for crystal in (SALT, PEROVSKITE)]
    with pytest.raises(InputError, match="different compositions cannot be compared"):
        draw_plot(unlike, only=["enthalpy-volume"])
    with pytest.raises(InputError, match="not for a Report"):
        draw_plot(report(protocol="cdvae", baselines=()), reference=[SALT])


def test_the_marks_of_a_short_run_stand_apart() -> None:
    """Epochs are whole, and no two numbers of an axis overlap or share a place, nor does one lie beyond the axis."""
    Path("short").mkdir(exist_ok=True)
    Path("short", "metrics.csv").write_text(HEAD + "1,368,0.001,5.4,2.5,183,1,8.4\n2,372,0.001,5.0,2.0,163,1,5.2\n")
    figure = dpcdvae.plot("short")
    figure.draw_without_rendering()
    assert len(figure.axes) == 4
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.child_axes[0].xaxis):
            low, high = sorted(axis.get_view_interval())
            shown = [tick for tick in axis.get_major_ticks() if low - 1e-9 <= tick.get_loc() <= high + 1e-9]
            boxes = sorted(
                (
                    label.get_window_extent()
                    for label in (t.label1 if t.label1.get_visible() else t.label2 for t in shown)
                ),
                key=lambda box: box.x0,
            )
            assert len(boxes) >= 2
            assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
        assert all(float(tick).is_integer() for tick in axes.get_xticks())


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ({"arguments": {"crystals": "/"}}, "larger than what is read"),
        ({"arguments": {"crystals": "/proc"}}, "larger than what is read"),
        ({"arguments": {"crystals": "many"}}, "larger than what is read"),
        ({"arguments": {"reference": "many"}}, "larger than what is read"),
        ({"arguments": {"training": "many"}}, "larger than what is read"),
        ({"arguments": {"reference": "run"}}, "not what the report was compared with"),
        ({"arguments": {"training": "truth.extxyz"}}, "not what the report was compared with"),
        ({"reference_sha256": None}, "not what the report was compared with"),
    ],
)
def test_what_a_manifest_claims_is_looked_at_only_as_far_as_it_is_small_and_right(
    claim: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of a folder that is too large is read, neither to hash it nor for its crystals."""
    monkeypatch.setattr("dpcdvae.report_files.MOST_FILES", 20)
    Path("many").mkdir(exist_ok=True)
    for k in range(21):
        Path("many", f"{k}.cif").touch()
    opened: list[str] = []
    opens = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *a, **b: (opened.append(str(path)), opens(path, *a, **b))[1])
    Path("lying.json").write_text(Path("n.json").read_text())
    manifest = json.loads(Path("n.json.manifest.json").read_text())
    arguments = {**manifest["arguments"], **claim.get("arguments", {})}  # type: ignore[dict-item]
    Path("lying.json.manifest.json").write_text(json.dumps({**manifest, **claim, "arguments": arguments}))
    for command in ("plot", "view") if "crystals" in claim.get("arguments", {}) else ("plot",):  # type: ignore[operator]
        code = main(
            [
                command,
                "lying.json",
                "--overwrite",
                "--workers",
                "0",
                "--out",
                f"lie.{'svg' if command == 'plot' else 'html'}",
            ]
        )
        assert code == (2 if command == "plot" else 0)  # of a page the numbers are left
        assert said in capsys.readouterr().err
    assert not [path for path in opened if path.startswith(("many", "/proc"))]


def test_forces_that_no_plot_shows_are_not_spoken_of(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Path("relaxed.extxyz").read_text().replace("Properties=", 'stress="0 0 0 0 0 0" Properties=')
    Path("forces.extxyz").write_text(lines)
    dpcdvae.read("forces.extxyz")
    assert "stress" in capsys.readouterr().err
    assert main("plot forces.extxyz --workers 0 --out forces.svg".split()) == 0
    assert capsys.readouterr().err == ""
