"""What a GPU hour would buy: proportional to the rates, and one line for what cannot be read."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

import gpu_hour
from speed.command import run

Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The script with some options: its exit code, and what it says."""

    def called(*options: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["gpu_hour.py", *options])
        with pytest.raises(SystemExit) as stopped:
            run(gpu_hour.main)
        said = capsys.readouterr()
        return int(stopped.value.code or 0), said.out + said.err

    return called


def column(table: str, number: int) -> list[float]:
    return [float(line.split("|")[number]) for line in table.splitlines()[2:]]


def test_twice_the_rate_takes_half_the_time(call: Call) -> None:
    one, two = call("--tflops", "1")[1], call("--tflops", "2")[1]
    assert column(one, 2)
    assert column(one, 2) == pytest.approx([2 * time for time in column(two, 2)], abs=0.011)  # two digits are shown
    assert column(one, 3) == column(two, 3)


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", "x"])
def test_a_rate_lies_above_zero(rate: str, call: Call) -> None:
    code, said = call("--tbytes", rate)
    assert (code, said.count("\n")) == (2, 1)
    assert "above 0" in said


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", json.dumps({"cases": [{"preset": "paper"}]})])
def test_what_is_no_result_is_one_line(text: str | None, tmp_path: Path, call: Call) -> None:
    file = tmp_path / "result.json"
    if text is not None:
        file.write_text(text)
    code, said = call("--results", str(file))
    assert (code, said.count("\n")) == (2, 1)
    assert "result.json" in said
