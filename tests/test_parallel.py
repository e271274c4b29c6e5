"""Work in processes, here and on a cluster: the same results as a plain loop, and one bad item costs only itself."""

from __future__ import annotations

import os
import pickle
import queue
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dpcdvae.errors import InputError
from dpcdvae.parallel import (
    HERE,
    Engine,
    LocalEngine,
    Lost,
    available_cores,
    clusters,
    dask_engine,
    engine_for,
    local,
    report,
)
from dpcdvae.parallel.batches import BATCH_SECONDS, TRIES, Batches
from dpcdvae.parallel.dask_engine import DaskEngine
from dpcdvae.parallel.versions import SAME, SAME_IF_HERE, check_versions
from dpcdvae.parallel.worker import portable

LOST = "every dask worker that was given it died"


def square(x: int) -> int:
    return x * x


def hang_at_7(x: int) -> int:
    if x == 7:
        time.sleep(600)
    return x * x


def compute_at_7(x: int) -> int:
    while x == 7:
        pass
    return x * x


def compute_a_little(x: int) -> int:
    until = time.process_time() + 0.3
    while time.process_time() < until:
        x += 1
    return x


def sleep_briefly(x: int) -> int:
    time.sleep(1.2)
    return x * x


def die_at_7(x: int) -> int:
    if x == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return x * x


def fail_at_7(x: int) -> int:
    if x == 7:
        raise LookupError("no 7")
    return x * x


def time_out(flag: Path) -> None:
    """As a function does whose own attempt takes too long; not more than twice."""
    if len(list(flag.parent.iterdir())) < 2:
        (flag.parent / f"{os.getpid()} {time.monotonic()}").touch()
        raise TimeoutError("of the function")


def find_empty(_: int) -> None:
    raise queue.Empty


def kill_dask_at_1(x: int) -> int:
    if x == 1:
        os.kill(os.getppid(), signal.SIGKILL)
    return x * x


def kill_dask_once(flag: Path) -> str:
    if not flag.exists():
        flag.touch()
        os.kill(os.getppid(), signal.SIGKILL)
    return flag.name


def wait_for(flag: Path | None) -> bool:
    while flag is not None and not flag.exists():
        time.sleep(0.01)
    return flag is None


def threads(_: int) -> int:
    return int(os.environ["OMP_NUM_THREADS"])


def process(_: int) -> int:
    return os.getpid()


@pytest.fixture(scope="module")
def cluster() -> Iterator[DaskEngine]:
    with DaskEngine("local:2") as engine:
        yield engine


@pytest.fixture(params=["one process", "two processes", "cluster"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Every engine whose workers may be killed."""
    if request.param == "cluster":
        yield request.getfixturevalue("cluster")
    else:
        with LocalEngine(1 if request.param == "one process" else 2) as local:
            yield local


def run(engine: Engine, function: Callable[[Any], Any], items: Any, time_limit: float = 60) -> list[Any]:
    return engine.map(function, items, time_limit=time_limit, description="testing")


def test_results_are_those_of_a_plain_loop(engine: Engine) -> None:
    assert run(engine, square, range(40)) == run(HERE, square, range(40)) == [x * x for x in range(40)]
    assert run(engine, square, []) == run(HERE, square, []) == []


def test_one_item_that_kills_its_process_costs_only_itself(engine: Engine) -> None:
    lost = Lost("the worker process died (exit code -9)")
    assert run(engine, die_at_7, range(20)) == [lost if x == 7 else x * x for x in range(20)]


@pytest.mark.parametrize("engine", ["two processes", "cluster"], indirect=True)  # a cluster has engines of one process
def test_one_item_that_hangs_costs_only_itself(engine: Engine) -> None:
    """What computes is ended by its own CPU time, what waits by the clock, ten times as late."""
    lost = Lost("no result after 0.5 s of CPU time")
    assert run(engine, compute_at_7, range(20), 0.5) == [lost if x == 7 else x * x for x in range(20)]
    lost = Lost("no result after 5 s")
    assert run(engine, hang_at_7, range(20), 0.5) == [lost if x == 7 else x * x for x in range(20)]


def test_time_in_which_an_item_does_not_compute_does_not_count(engine: Engine) -> None:
    """As on a machine that others use: more seconds go by than the limit has."""
    assert run(engine, sleep_briefly, range(2), 0.3) == [0, 1]


def test_a_limit_of_cpu_time_is_for_each_item(engine: Engine) -> None:
    assert all(type(result) is int for result in run(engine, compute_a_little, range(4), 0.6))


def test_a_limit_by_the_clock_holds_for_what_waits(engine: Engine) -> None:
    """For items that start programs of their own, whose CPU time is not the worker's."""
    results = dict(engine.stream(hang_at_7, [7], time_limit=0.5))
    assert results == {0: Lost("no result after 0.5 s")}


def test_an_exception_comes_back_as_it_is(engine: Engine) -> None:
    for one in (engine, HERE):
        with pytest.raises(LookupError, match="no 7"):
            run(one, fail_at_7, range(20))
        with pytest.raises(queue.Empty):  # which engines use too
            run(one, find_empty, range(2))
    assert run(engine, square, [3]) == [9]  # and the engine is as good as before


def test_a_timeout_of_the_function_is_an_exception_like_others(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="of the function"):
        run(engine, time_out, [tmp_path / "none"])
    assert len(list(tmp_path.iterdir())) == 1  # it was not tried again


def test_an_exception_passed_on_has_its_traceback_once() -> None:
    class Local(Exception):
        """Not to be pickled, as nobody can import it."""

    for error in (LookupError("no 7"), Local("no 7")):
        try:
            raise error
        except Exception as caught:
            there = portable(portable(caught))
        again = portable(pickle.loads(pickle.dumps(there)))
        (note,) = again.__notes__
        assert "in test_an_exception_passed_on_has_its_traceback_once" in note
        assert "no 7" in str(again)


def test_results_come_one_by_one(engine: Engine, tmp_path: Path) -> None:
    """The second item ends only after the first result was seen."""
    flag = tmp_path / "seen"
    seen = []
    for index, result in engine.stream(wait_for, [None, flag], time_limit=60):
        flag.touch()
        seen.append((index, result))
    assert seen == [(0, True), (1, False)]


@pytest.mark.parametrize(
    ("wish", "cores", "workers", "expected"),
    [
        (None, 16, 1, 1),
        ("", 16, 1, 1),
        ("many", 16, 1, 1),
        ("3", 16, 1, 3),
        ("8,2", 16, 1, 8),
        ("16", 16, 2, 8),
        ("16", 16, 5, 3),
        ("16", 16, 16, 1),
        ("4", 2, 8, 1),
    ],
)
def test_threads_are_those_asked_for_as_far_as_cores_go(
    wish: str | None, cores: int, workers: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "available_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if wish is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", wish)
    assert local.threads_of_each(workers) == expected


@pytest.mark.parametrize(("workers", "expected"), [(1, 3), (2, 1)])
def test_processes_are_given_their_threads_and_the_caller_keeps_its_own(
    workers: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "available_cores", lambda: 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    with LocalEngine(workers) as engine:
        assert run(engine, threads, [0]) == [expected]
    assert os.environ["OMP_NUM_THREADS"] == "5"


def test_processes_stay_from_one_loop_to_the_next_until_closed() -> None:
    with LocalEngine(1) as engine:
        (first,) = run(engine, process, [0])
        assert run(engine, process, [0]) == [first] != [os.getpid()]
    assert gone(first)


def gone(pid: int) -> bool:
    """Whether within a minute a process has ended."""
    for _ in range(600):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][1] == "Z":
            return True  # ended, and nobody has asked how
        time.sleep(0.1)
    return False


SCRIPT = """
import time
from dpcdvae.parallel import engine_for

if __name__ == "__main__":
    with engine_for({arguments}) as engine:
        items = ["__import__('os').getpid()", "__import__('time').sleep(600)"]
        for _, pid in engine.stream(eval, items, time_limit=900):
            print(pid, flush=True)
"""


def start(folder: Path, arguments: str, **environment: str) -> tuple[subprocess.Popen[str], int]:
    """A program with a group of its own whose engine is at an item that takes for ever, and the process at it."""
    script = folder / "script.py"
    script.write_text(SCRIPT.format(arguments=arguments))
    program = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | environment,
    )
    assert program.stdout is not None
    line = program.stdout.readline()
    assert line, program.communicate()
    return program, int(line)


def test_a_worker_ends_with_a_program_that_is_killed(tmp_path: Path) -> None:
    program, worker = start(tmp_path, "workers=1")
    program.kill()
    program.communicate()
    assert gone(worker)


def test_programs_that_an_item_has_started_end_with_it(tmp_path: Path) -> None:
    """A DFT code whose time is over, or whose campaign was killed, does not compute on for nobody."""
    pid = tmp_path / "pid"
    command = f"__import__('subprocess').run(['sh', '-c', 'echo $$ > {pid}; exec sleep 600'])"
    with LocalEngine(1) as engine:
        assert dict(engine.stream(eval, [command], time_limit=2)) == {0: Lost("no result after 2 s")}
    assert gone(int(pid.read_text()))
    pid.unlink()
    script = tmp_path / "campaign.py"
    script.write_text(
        "from dpcdvae.parallel import LocalEngine\n"
        f"LocalEngine(1).map(eval, [{command!r}], time_limit=900, description='')\n"
    )
    with subprocess.Popen([sys.executable, script]) as program:
        while not pid.is_file() or not pid.read_text():
            assert program.poll() is None
            time.sleep(0.05)
        program.kill()
    assert gone(int(pid.read_text()))


def test_ctrl_c_ends_a_cluster_that_was_started(tmp_path: Path) -> None:
    """The terminal sends it to every process; the program alone answers."""
    program, worker = start(tmp_path, "scheduler='local:1'")
    os.killpg(program.pid, signal.SIGINT)
    _, err = program.communicate(timeout=1800)
    assert program.returncode == -signal.SIGINT
    assert err.count("Traceback") == 1
    assert gone(worker)


def test_a_plain_script_is_not_run_again_by_the_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from math import sqrt\nfrom dpcdvae.parallel import LocalEngine\n"
        "print(LocalEngine(1).map(sqrt, [1, 4], time_limit=60, description=''))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=1800)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[1.0, 2.0]\n", "")


def test_at_least_one_core() -> None:
    assert available_cores() >= 1


def test_a_dask_worker_that_dies_loses_nothing(cluster: DaskEngine, tmp_path: Path) -> None:
    flags = [tmp_path / str(k) for k in range(2)]
    assert run(cluster, kill_dask_once, flags) == ["0", "1"]


def test_what_keeps_killing_dask_workers_is_lost_and_nothing_beside_it(
    cluster: DaskEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster._cluster.scheduler, "allowed_failures", 0)
    monkeypatch.setattr(dask_engine, "RESULT_SECONDS", 2.0)
    assert run(cluster, kill_dask_at_1, range(4)) == [0, Lost(LOST), 4, 9]


@pytest.mark.parametrize("seconds", [1e-4, 0.1, 60.0])
def test_batches_hold_every_item_once_and_take_seconds(seconds: float) -> None:
    batches = Batches(2000)
    found, longest = [], 0
    while batch := batches.next(2, alone=True):
        batches.learn(len(batch), len(batch) * seconds)
        found += batch
        longest = max(longest, len(batch))
    assert found == list(range(2000))
    assert longest == 1 or longest * seconds <= 2 * BATCH_SECONDS
    assert longest >= 300 or longest * seconds >= 0.5


@pytest.mark.parametrize("size", [1, 8])
def test_no_batch_is_done_again_without_end(size: int) -> None:
    """Results that never arrive: each item is given up once, after at most a few tries."""
    batches = Batches(size)
    batches.size = size
    tries, lost = Counter[int](), []
    while batches.left:
        batch = batches.next(1, alone=True)
        tries.update(batch)
        assert max(tries.values()) <= TRIES + 2
        if not batches.again(batch):
            lost += batch
    assert sorted(lost) == list(range(size))


def test_what_does_not_arrive_once_is_done_again(cluster: DaskEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    on_time, late = cluster._result, iter([True, False, True])

    def result(future: Any) -> tuple[str, Any, float]:
        return ("missed", None, 0.0) if next(late, False) else on_time(future)

    monkeypatch.setattr(cluster, "_result", result)
    assert run(cluster, square, range(8)) == [x * x for x in range(8)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, DaskEngine]]:
    """Somebody else's cluster of one worker with two threads, in this process, and an impatient engine on it."""
    from distributed import LocalCluster

    monkeypatch.setattr(dask_engine, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(dask_engine, "WORKER_SECONDS", 0.5)
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, scheduler_kwargs={"dashboard_address": "127.0.0.1:0"}
        ) as theirs,
        DaskEngine(theirs.scheduler_address) as engine,
    ):
        yield theirs, engine


def test_the_threads_of_a_dask_worker_share_its_cores(
    small: tuple[Any, DaskEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "available_cores", lambda: 7)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert run(small[1], threads, range(4)) == [3] * 4


def test_a_cluster_that_has_lost_its_workers_is_not_waited_for_without_end(
    small: tuple[Any, DaskEngine], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, engine = small
    address, flag = theirs.scheduler_address, tmp_path / "never"
    message = rf"^--scheduler {address}: no dask worker for 0.5 s$"
    stream = engine.stream(wait_for, [None, flag], time_limit=60)
    assert next(stream) == (0, True)
    theirs.scale(0)
    with pytest.raises(InputError, match=message):
        next(stream)
    flag.touch()  # sets the thread free
    assert capsys.readouterr().err == f"waiting for a worker of {address}\n"
    with pytest.raises(InputError, match=message):  # and from the start
        run(engine, square, [1])


def test_a_cluster_is_waited_for_while_workers_are_queued(
    small: tuple[Any, DaskEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, engine = small
    theirs.scale(0)
    theirs.sync(theirs._correct_state)
    asked = []

    def queued(_: Any) -> bool:
        asked.append(0)
        if len(asked) == 3:
            theirs.scale(1)
        return True

    engine._source = clusters.Source(engine._source.open, queued)
    assert run(engine, square, range(3)) == [0, 1, 4]
    assert len(asked) >= 3


def test_a_cluster_and_this_machine_give_the_same_report(
    cluster: DaskEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dpcdvae.evaluation import evaluate
    from dpcdvae.prototypes import build_prototypes

    real = build_prototypes()[::40][:30]
    reports = []
    for name, engine in (("local", LocalEngine(1)), ("cluster", cluster)):
        monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path / name))  # no result of the other
        reports.append(evaluate(real[1:], real[:-1], engine=engine, baselines=()).to_json())
    assert reports[0] == reports[1]
    assert len(reports[0]["metrics"]) > 5


def test_only_the_same_versions_work_together() -> None:
    packages = {"python": "3.12.1.final.0", **dict.fromkeys(SAME, "1.0")}
    here = {"client": {"packages": packages}}
    patched = {"tcp://n1:1": {"packages": packages | {"python": "3.12.9.final.0"}}}
    check_versions({**here, "workers": patched})
    for there, message in (
        ({"python": "3.11.1.final.0"}, "tcp://n2:1 has python 3.11, here is 3.12: install the same versions on both"),
        ({"spglib": "2.0"}, "tcp://n2:1 has spglib 2.0, here is 1.0"),
        ({"dpcdvae": None}, "tcp://n2:1 has dpcdvae not installed, here is 1.0"),
        ({"torch": "2.0+cpu"}, "tcp://n2:1 has torch 2.0, here is 1.0"),
    ):
        workers = {**patched, "tcp://n2:1": {"packages": packages | there}}
        with pytest.raises(InputError, match=re.escape(message)):
            check_versions({**here, "workers": workers})


def test_calculators_are_compared_where_they_are_installed_here_and_builds_for_other_hardware_are_not() -> None:
    there = {"python": "3.12.1.final.0", **dict.fromkeys(SAME, "1.0"), **dict.fromkeys(SAME_IF_HERE)}
    for name in SAME_IF_HERE:
        check_versions({"client": {"packages": there}, "workers": {"tcp://n1:1": {"packages": there | {name: "1.0"}}}})
        with pytest.raises(InputError, match=f"has {name} not installed, here is 2.0"):
            check_versions(
                {"client": {"packages": there | {name: "2.0"}}, "workers": {"tcp://n1:1": {"packages": there}}}
            )
    check_versions(
        {
            "client": {"packages": there | {"torch": "1.0+cpu"}},
            "workers": {"tcp://n1:1": {"packages": there | {"torch": "1.0+cu126"}}},
        }
    )


@pytest.mark.parametrize("make", [LocalEngine, engine_for])
def test_fewer_workers_than_none_and_more_than_a_machine_takes_are_refused(make: Callable[[int], Engine]) -> None:
    with pytest.raises(InputError, match=r"^workers is a number of processes, or 0 for none, not -1$"):
        make(-1)
    with pytest.raises(InputError, match=r"^at most 4096 workers can be started, not 1000000$"):
        make(10**6)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ("slrm:c.toml", "--scheduler takes tcp://HOST:PORT, a scheduler's JSON file, slurm:CONFIG or local:N, not"),
        ("local:none", "local: needs a number of workers"),
        ("local:0", "local: needs a number of workers"),
        ("slurm:none.toml", "cannot read cluster file none.toml"),
        ("tcp://127.0.0.1", "'tcp://127.0.0.1' is no address of a scheduler"),
        ("tcp://", "'tcp://' is no address of a scheduler"),
        ("http://127.0.0.1:1", "is no address of a scheduler"),
        ("local:99999999999", "give at most"),
    ],
)
def test_what_is_no_scheduler_is_refused_at_once(scheduler: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        engine_for(scheduler=scheduler)


@pytest.mark.parametrize("scheduler", ["tcp://127.0.0.1:1", "none.json"])
def test_a_scheduler_that_does_not_answer_is_an_error(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_engine, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(clusters, "FILE_SECONDS", 0.1)
    engine = engine_for(scheduler=scheduler)
    with pytest.raises(
        InputError, match=f"^--scheduler {re.escape(scheduler)}: (no dask scheduler answers|there is no)"
    ):
        run(engine, square, [1])
    assert run(engine, square, []) == []  # for nothing, nobody is asked


def test_one_place_to_work_and_dask_only_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="give one of them"):
        engine_for(2, "local:2")
    monkeypatch.setattr(clusters, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs dask, distributed: pip install 'dpcdvae\[cluster\]'$"):
        engine_for(scheduler="tcp://127.0.0.1:1")


def tell_halves(item: int) -> int:
    report(item / 2)
    time.sleep(0.6)  # not so often that the way there is full of them
    report(item)
    return item


@pytest.mark.parametrize("workers", [0, 2])
def test_items_report_their_progress(workers: int) -> None:
    told: list[tuple[int, float]] = []
    with LocalEngine(workers) as engine:
        stream = engine.stream(tell_halves, [3, 5], time_limit=60, on_report=lambda k, done: told.append((k, done)))
        assert sorted(stream) == [(0, 3), (1, 5)]
    assert {(0, 3), (1, 5)} <= set(told)
    report(1.0)  # nobody listens
    assert len(told) <= 4
