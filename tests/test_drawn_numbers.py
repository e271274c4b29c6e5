"""Numbers of files that are drawn or written as text: whatever a file says, no warning, and no nan or inf."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dpcdvae
from dpcdvae.cli import main
from dpcdvae.drawing.page.report_section import report_section
from dpcdvae.errors import InputError
from dpcdvae.intervals import Number, drawable
from dpcdvae.relaxation.ground_state import SCHEMA as GROUND_STATE
from dpcdvae.run_log import read_run
from dpcdvae.structures.summary import ReferenceStatistics
from pages import SALT, report_of

ODD = ["1e308", "-1e308", "1e400", "inf", "-inf", "nan", "1e-320", "3e38", "-9e37", "0", ""]
HEAD = ["epoch", "cpu_seconds", "lr", "val/loss", "val/criterion", "val/kl", "train/loss"]


@pytest.fixture(autouse=True)
def _strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error")
        yield


def run_of(*rows: list[str], head: list[str] = HEAD) -> Path:
    Path("run").mkdir(exist_ok=True)
    Path("run/metrics.csv").write_text("".join(",".join(row) + "\n" for row in (head, *rows)))
    return Path("run")


def texts_of(figure: Any) -> list[str]:
    from matplotlib.text import Text

    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(Text)]


def has_none(text: str) -> bool:
    """Whether a text holds a number that is none."""
    return re.search(r"(?<![a-z])(nan|inf)(?![a-z])", text, re.IGNORECASE) is not None


@pytest.mark.parametrize("turn", range(len(ODD)))
def test_a_run_log_is_drawn_whatever_its_numbers_are(turn: int) -> None:
    """Over all turns each column holds each of the odd values, before another one and a usual one."""
    odd = [(ODD * 2)[turn:], (ODD * 2)[turn + 3 :]]
    run = run_of(["1", *odd[0][:6]], ["2", *odd[1][:6]], ["3", "60", "0.0005", "5", "6", "40", "4"])
    figure = dpcdvae.plot(run)
    assert not [text for text in texts_of(figure) if has_none(text)]
    for line in (line for axes in figure.axes for line in axes.lines):
        assert np.isfinite(np.asarray(line.get_xydata(), float)).all()
    dpcdvae.view(run, "page.html")
    section = Path("page.html").read_text().partition('<section id="run"')[2].partition("</section>")[0]
    assert section.count("<polyline") == 4
    assert not has_none(section)


@pytest.mark.parametrize(
    ("head", "rows", "said"),
    [
        (["lr"], [["1"]], "no column 'epoch'"),
        ([], [], "no column 'epoch'"),
        (["epoch", "lr", "lr"], [["1", "2", "3"]], "two columns are called 'lr'"),
        (["epoch", "lr"], [["1"]], "row 1 has 1 cells, the first line 2 names"),
        (["epoch", "lr"], [["1", "x"]], "row 1, 'lr': 'x' is no number"),
        *((["epoch", "lr"], [[odd, "1"]], "must count") for odd in (*ODD, "1.5", "1e10", "-1")),
        (["epoch", "lr"], [["2", "1"], ["1", "1"]], "must increase"),
        (["epoch", "lr"], [["1", "nan"]], "nothing to (show|plot)|no loss"),
    ],
)
def test_a_run_log_that_is_none_is_refused_in_a_line_that_says_where(
    capsys: pytest.CaptureFixture[str], head: list[str], rows: list[list[str]], said: str
) -> None:
    run_of(*rows, head=head)
    for command in ("view run --out p.html", "plot run --out p.svg"):
        assert main(command.split()) == 2
        (error,) = capsys.readouterr().err.strip().splitlines()
        assert re.search(said, error), error
        assert not re.search(r"\w+Error", error)
    assert not list(Path().glob("p.*"))


def test_a_run_log_that_a_spreadsheet_saved_is_the_same() -> None:
    run = run_of(["1", "60", "0.001", "9", "8", "50", "10"])
    plain = read_run(run).columns
    path = run / "metrics.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_run(run).columns == plain


def test_a_log_that_is_a_folder_is_one_line() -> None:
    Path("run/metrics.csv").mkdir(parents=True)
    Path("run/run.json").write_text("{}")
    with pytest.raises(InputError, match="is a directory"):
        read_run(Path("run"))


@pytest.mark.parametrize(
    "odd", [1e308, float("inf"), float("nan"), 10**400, -1, 1.5, True, False, "0.5", "", [0.5], {}]
)
@pytest.mark.parametrize("key", ["value", "low", "high", "n", "undecided", "baseline", "generated"])
def test_a_report_with_a_number_that_no_evaluation_gives_is_refused(odd: Any, key: str) -> None:
    report = report_of(4)
    (metric,) = report["metrics"]
    if key in ("low", "high"):
        metric["interval"][("low", "high").index(key)] = odd
    elif key == "baseline":
        metric["baselines"]["x"] = {**metric["baselines"]["x"], "value": odd}
    elif key == "generated":
        report["crystals"]["generated"] = odd
    else:
        metric[key] = odd
    with pytest.raises(InputError, match="evaluate --json"):
        report_section(report)


def test_a_number_goes_through_json_unchanged() -> None:
    for number, unit in [
        (Number(0.25, 4, (0.1, 0.5)), ""), (Number(None, 0), ""), (Number(3e4, 2, None), "Å"), (Number.rate(3, 3), ""),
        (Number(-2.5, 9, (-3.0, 0.0)), "eV/atom"),
    ]:  # fmt: skip
        assert Number.from_json(json.loads(json.dumps(number.to_json())), unit) == number


@pytest.mark.parametrize("odd", [1e308, -1e308])
def test_relaxed_crystals_are_drawn_whatever_their_energies_are(odd: float) -> None:
    names = ["initial_enthalpy_eV_per_atom", "enthalpy_eV_per_atom", "volume_A3_per_atom", "pressure_GPa"]
    usual = dict(zip(names, (-3.0, -3.1, 9.0, 1.0), strict=True))
    for name in names:
        crystals = [replace(SALT, id=str(k), properties={**usual, name: odd} if k < 2 else usual) for k in range(4)]
        assert not [text for text in texts_of(dpcdvae.plot(crystals, workers=0)) if has_none(text)]


@pytest.mark.parametrize("odd", ["1e308", "-1e308", "1e400", "[1]", '"x"'])
@pytest.mark.parametrize("key", ["delta_enthalpy", "pressure_GPa"])
def test_a_ground_state_is_drawn_or_refused(odd: str, key: str) -> None:
    rows = [{"delta_enthalpy": 30.0, "converged": True}, {"delta_enthalpy": 10.0, "converged": True}]
    content = json.dumps({"schema": GROUND_STATE, "rows": rows, "settings": {"pressure_GPa": 0.0}})
    Path("g.json").write_text(re.sub(rf'("{key}": )[\d.]+', rf"\g<1>{odd}", content, count=1))
    if odd.startswith(("[", '"')) or key == "pressure_GPa":
        with pytest.raises(InputError, match="ground-state --json"):
            dpcdvae.plot("g.json")
    else:
        assert not [text for text in texts_of(dpcdvae.plot("g.json")) if has_none(text)]


@pytest.mark.parametrize(
    "odd",
    [
        {"count": 10**15, "num_elements": {"2": 10**15}},
        {"count": float("inf")},
        {"density_quantiles": [1.0, 1e308]},
        {"density_quantiles": [-1.0, 2.0]},
        {"density_quantiles": [1.0, 10**400]},
        {"num_elements": {"2": 3, "3": -1}},
    ],
)
def test_statistics_of_a_card_that_no_crystals_have_are_refused(odd: dict[str, Any]) -> None:
    usual = {
        "source": "s", "sha256": "", "count": 2, "density_quantiles": [1.0, 2.0], "num_elements": {"2": 2},
        "num_atoms": {"5": 2},
    }  # fmt: skip
    assert ReferenceStatistics.from_json(usual).count == 2
    with pytest.raises(InputError, match="not statistics of a data set"):
        ReferenceStatistics.from_json(usual | odd)


def test_what_can_be_drawn_is_left_as_it_is() -> None:
    values = np.array([0.0, 1.5, -2e37, 1e-30, np.nan, 1e39, -np.inf, 1e-39])
    np.testing.assert_array_equal(drawable(values), [0.0, 1.5, -2e37, 1e-30, np.nan, np.nan, np.nan, 0.0])
