"""Work in processes: the same results as without, and one bad item costs only itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dpcdvae.parallel import LocalEngine, Lost, available_cores


def square(x: int) -> int:
    return x * x


def hang_at_7(x: int) -> int:
    if x == 7:
        time.sleep(600)
    return x * x


def die_at_7(x: int) -> int:
    if x == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return x * x


def fail_at_7(x: int) -> int:
    if x == 7:
        raise LookupError("no 7")
    return x * x


def threads(_: int) -> str:
    return os.environ["OMP_NUM_THREADS"]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_are_in_order(workers: int) -> None:
    assert LocalEngine(workers).map(square, range(40), time_limit=60, description="") == [x * x for x in range(40)]


@pytest.mark.parametrize("workers", [0, 2])
def test_no_items(workers: int) -> None:
    assert LocalEngine(workers).map(square, [], time_limit=60, description="") == []


@pytest.mark.parametrize(
    ("function", "reason"),
    [(hang_at_7, "no result after 1 s"), (die_at_7, "the worker process died (exit code -9)")],
)
def test_one_bad_item_costs_only_itself(function: object, reason: str) -> None:
    results = LocalEngine(1).map(function, range(20), time_limit=1, description="")  # type: ignore[arg-type]
    assert results == [Lost(reason) if x == 7 else x * x for x in range(20)]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_exception_comes_back_as_it_is(workers: int) -> None:
    with pytest.raises(LookupError, match="no 7"):
        LocalEngine(workers).map(fail_at_7, range(20), time_limit=60, description="")


def test_workers_use_one_thread_and_the_caller_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert LocalEngine(1).map(threads, [0], time_limit=60, description="") == ["1"]
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_at_least_one_core() -> None:
    assert available_cores() >= 1


def test_a_plain_script_is_not_run_again_by_the_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from math import sqrt\nfrom dpcdvae.parallel import LocalEngine\n"
        "print(LocalEngine(1).map(sqrt, [1, 4], time_limit=60, description=''))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[1.0, 2.0]\n", "")
