"""The result cache: killed and damaged runs give the same numbers, and only what is missing is computed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpcdvae.parallel import HERE, LocalEngine, Lost
from dpcdvae.parallel import results as result_cache
from dpcdvae.parallel.results import Kind, Result, Results, joint_hash

KIND = Kind("square", "1", {"tolerance": 0.1})


def square(number: int) -> Result:
    """A vector whose length differs from number to number; some numbers have none."""
    return "unlucky" if number == 13 else np.array([number**2, np.inf] + [0.5] * (number % 3))


def keys(numbers: Sequence[int]) -> list[str]:
    return [joint_hash([str(number)]) for number in numbers]


@pytest.fixture(autouse=True)
def everything_is_worth_keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_cache, "WORTH_KEEPING", 0.0)


class Counted:
    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, number: int) -> Result:
        self.calls.append(number)
        return square(number)


def run(numbers: Sequence[int], folder: Path | None, kind: Kind = KIND) -> tuple[list[Any], list[int]]:
    """What there is for each number, a vector or a reason, and the numbers that were computed."""
    counted = Counted()
    values, reasons = Results(HERE, 60, folder).compute(counted, numbers, keys(numbers), kind, "squaring")
    assert [k for k, value in enumerate(values) if value is None] == list(reasons)
    return [reasons.get(k, value) for k, value in enumerate(values)], counted.calls


def same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return all(a == b if isinstance(a, str) else np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_with_and_without_cache_the_numbers_are_the_same(tmp_path: Path) -> None:
    numbers = list(range(20))
    plain, calls = run(numbers, None)
    assert calls == numbers
    first, calls = run(numbers, tmp_path)
    assert calls == numbers
    second, calls = run(numbers, tmp_path)
    assert calls == []
    assert same(plain, first)
    assert same(plain, second)


def test_equal_items_are_computed_once(tmp_path: Path) -> None:
    results, calls = run([3, 4, 3, 3, 4], None)
    assert calls == [3, 4]
    assert [float(result[0]) for result in results] == [9, 16, 9, 9, 16]


def test_one_object_computes_nothing_twice_without_a_folder_too() -> None:
    counted, results = Counted(), Results(HERE, 60)
    first = results.compute(counted, [3, 13], keys([3, 13]), KIND, "")
    values, reasons = results.compute(counted, [13, 4, 3], keys([13, 4, 3]), KIND, "")
    assert counted.calls == [3, 13, 4]
    assert reasons == {0: "unlucky"}
    np.testing.assert_array_equal(values[2], first[0][0])
    results.compute(counted, [3], keys([3]), Kind("square", "1", {"tolerance": 0.2}), "")
    assert counted.calls == [3, 13, 4, 3]


def test_other_settings_versions_and_kinds_are_other_results(tmp_path: Path) -> None:
    run([1, 2], tmp_path)
    for other in (
        Kind("square", "1", {"tolerance": 0.2}),
        Kind("square", "2", {"tolerance": 0.1}),
        Kind("cube", "1", {"tolerance": 0.1}),
    ):
        assert run([1, 2], tmp_path, other)[1] == [1, 2]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_result_cache as t
t.result_cache.WORTH_KEEPING = 0.0
def until_killed(number):
    print(number, flush=True)
    if number == 21:
        os.kill(os.getpid(), signal.SIGKILL)
    return t.square(number)
numbers = list(range(40))
t.Results(t.HERE, 60, Path({folder!r})).compute(until_killed, numbers, t.keys(numbers), t.KIND, "")
"""


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    program = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=1800)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout.split() == [str(n) for n in range(22)]
    again, calls = run(range(40), tmp_path)
    assert calls == list(range(21, 40))
    assert same(again, run(range(40), None)[0])
    assert run(range(40), tmp_path)[1] == []


def test_what_else_is_asked_for_makes_no_difference(tmp_path: Path) -> None:
    run(range(10, 30), tmp_path)
    assert run([3, *range(25, 8, -1)], tmp_path)[1] == [3, 9]


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("damage", ["empty", "noise", "cut", "flipped", "torn"])
def test_damaged_results_count_as_absent_and_are_written_anew(tmp_path: Path, damage: str) -> None:
    numbers = list(range(60))
    first, _ = run(numbers, tmp_path)
    file = max(files(tmp_path), key=lambda path: path.stat().st_size)
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x04
    file.write_bytes(
        {
            "empty": b"",
            "noise": np.random.default_rng(0).bytes(5000),
            "cut": whole[:-20],
            "flipped": bytes(flipped),
            "torn": whole + whole.strip()[:40],  # as by a kill; what is appended next must not suffer from it
        }[damage]
    )
    lost = {"cut": 1, "flipped": 1, "torn": 0}.get(damage, whole.count(b" v") + whole.count(b" t"))
    again, calls = run([*numbers, 1000, 1001, 1002], tmp_path)
    assert len(calls) == lost + 3
    assert same(first, again[:-3])
    assert run([*numbers, 1000, 1001, 1002], tmp_path)[1] == []


def test_several_processes_may_write_at_once(tmp_path: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_result_cache as t\n"
        f"from pathlib import Path; t.result_cache.WORTH_KEEPING = 0.0\n"
        f"t.run(range(int(sys.argv[1]), 400), Path({str(tmp_path)!r}))"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(start)]) for start in (0, 100)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    results, calls = run(range(400), tmp_path)
    assert calls == []
    assert same(results, run(range(400), None)[0])


def test_a_file_that_has_grown_too_large_keeps_its_newer_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_cache, "LARGEST", 2000)
    first, _ = run(range(1000), tmp_path)
    assert max(file.stat().st_size for file in files(tmp_path)) <= 2000
    assert len(files(tmp_path)) == 16
    assert run(range(990, 1000), tmp_path)[1] == []
    again, calls = run(range(1000), tmp_path)
    assert same(first, again)
    assert 500 < len(calls) < 1000


def test_what_was_lost_is_tried_again_and_a_reason_is_kept(tmp_path: Path) -> None:
    class Losing(LocalEngine):
        def stream(self, function: Callable[..., Any], items: Sequence[Any], **_: Any) -> Generator[tuple[int, Any]]:
            for k, item in enumerate(items):
                yield k, Lost("too long") if item == 5 else function(item)

    numbers = list(range(4, 14))
    _, reasons = Results(Losing(0), 60, tmp_path).compute(square, numbers, keys(numbers), KIND, "")
    assert reasons == {1: "too long", 9: "unlucky"}
    again, calls = run(numbers, tmp_path)
    assert calls == [5]
    assert same(again, run(numbers, None)[0])


def test_short_work_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_cache, "WORTH_KEEPING", 60.0)
    run(range(40), tmp_path)
    assert not list(tmp_path.rglob("*"))


def test_a_folder_that_cannot_be_written_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "square-1").write_text("a file where the folder should be")
    results, calls = run(range(10), tmp_path)
    assert same(results, run(range(10), None)[0])
    assert len(calls) == 10
