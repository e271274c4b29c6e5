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

from dpcdvae.evaluation import result_cache
from dpcdvae.evaluation.result_cache import Kind, Result, ResultCache, joint_hash
from dpcdvae.parallel import HERE, LocalEngine, Lost

KIND = Kind("square", "1", {"tolerance": 0.1}, block=8)


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
    counted = Counted()
    return ResultCache(HERE, 60, folder).results(counted, numbers, keys(numbers), kind, "squaring"), counted.calls


def same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return all(
        a == b if isinstance(a, str) else np.array_equal(a, b) for a, b in zip(one, other, strict=True)
    )  # fmt: skip


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


def test_other_settings_versions_and_kinds_are_other_results(tmp_path: Path) -> None:
    run([1, 2], tmp_path)
    for other in (
        Kind("square", "1", {"tolerance": 0.2}, block=8),
        Kind("square", "2", {"tolerance": 0.1}, block=8),
        Kind("cube", "1", {"tolerance": 0.1}, block=8),
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
t.ResultCache(t.HERE, 60, Path({folder!r})).results(until_killed, numbers, t.keys(numbers), t.KIND, "")
"""


def test_a_killed_run_goes_on_with_the_unfinished_blocks(tmp_path: Path) -> None:
    program = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout.split() == [str(n) for n in range(22)]
    again, calls = run(range(40), tmp_path)
    assert calls == list(range(16, 40))
    assert same(again, run(range(40), None)[0])
    assert run(range(40), tmp_path)[1] == []


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut off", 40, 200], ids=str)
def test_damaged_files_count_as_absent(tmp_path: Path, damage: bytes | int) -> None:
    first, _ = run(range(16), tmp_path)
    file = sorted(tmp_path.rglob("*.npz"))[0]
    whole = bytearray(file.read_bytes())
    if isinstance(damage, bytes):
        file.write_bytes(damage)
    else:
        whole[damage] ^= 0xFF
        file.write_bytes(whole[:-30] if damage == 40 else whole)
    again, calls = run(range(16), tmp_path)
    assert same(first, again)
    assert len(calls) in (0, 8), "a flipped byte of padding may go unnoticed, anything else costs one block"
    assert isinstance(damage, int) or len(calls) == 8
    assert run(range(16), tmp_path)[1] == []


def test_a_file_of_another_layout_counts_as_absent(tmp_path: Path) -> None:
    run(range(8), tmp_path)
    (file,) = tmp_path.rglob("*.npz")
    np.savez(file, values=np.zeros(3), lengths=np.array([1, 1]), reasons=np.array(["", ""]))
    assert run(range(8), tmp_path)[1] == list(range(8))


def test_what_was_lost_is_tried_again_and_a_reason_is_kept(tmp_path: Path) -> None:
    class Losing(LocalEngine):
        def stream(self, function: Callable[..., Any], items: Sequence[Any], **_: Any) -> Generator[tuple[int, Any]]:
            for k, item in enumerate(items):
                yield k, Lost("too long") if item == 5 else function(item)

    numbers = list(range(4, 14))
    results = ResultCache(Losing(0), 60, tmp_path).results(square, numbers, keys(numbers), KIND, "")
    assert results[1] == Lost("too long")
    assert results[-1] == "unlucky"
    again, calls = run(numbers, tmp_path)
    assert calls == [5]
    assert same(again, run(numbers, None)[0])


def test_short_work_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_cache, "WORTH_KEEPING", 60.0)
    run(range(40), tmp_path)
    assert not list(tmp_path.rglob("*.npz"))


def test_a_folder_that_cannot_be_written_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "square-1").write_text("a file where the folder should be")
    results, calls = run(range(10), tmp_path)
    assert same(results, run(range(10), None)[0])
    assert len(calls) == 10
