"""SLURM jobs as a file describes them: the script that is submitted, the jobs' life, and what is refused."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dpcdvae.errors import InputError
from dpcdvae.parallel import dask_engine, engine_for
from dpcdvae.parallel.slurm import queued, read_config, refusal, submit
from test_parallel import gone, start

CONFIG = """
jobs = 1
cores = 6
memory = "8GiB"
walltime = "01:30:00"
"""
MORE = """
queue = "long"
account = "physics"
job_name = "crystals"
interface = "lo"
job_extra_directives = ["--constraint=avx2"]
job_directives_skip = ["--mem"]
job_script_prologue = ["module load python"]
python = "/opt/python"
local_directory = "/scratch"
worker_extra_args = ["--lifetime", "80m"]
death_timeout = 77
"""

SBATCH = """#!{python}
# SLURM on one machine: a job is a session of processes.
import pathlib, shutil, subprocess, sys

if sys.argv[1:] == ["--test-only"]:
    if "#SBATCH -A nobody" in sys.stdin.read():
        sys.exit("allocation failure: Invalid account")
else:
    script = pathlib.Path(__file__).with_name("job.sh")
    shutil.copy(sys.argv[1], script)
    log = open(script.with_suffix(".log"), "w")
    job = subprocess.Popen(["bash", script], start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    print("Submitted batch job", job.pid)
"""
SQUEUE = """#!{python}
# The jobs that still are. They may be more than those asked about.
import pathlib, sys

queue = pathlib.Path(__file__).with_name("queue")
if not queue.exists():
    sys.exit("slurm_load_jobs error: Unable to contact slurm controller")
print(queue.read_text())
"""
SCANCEL = """#!{python}
import os, signal, sys

os.killpg(int(sys.argv[1]), signal.SIGKILL)
"""


def config(folder: Path, text: str) -> Path:
    path = folder / "cluster.toml"
    path.write_text(text)
    return path


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with a stand-in for SLURM's commands."""
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("scancel", SCANCEL)):
        (tmp_path / name).write_text(text.format(python=sys.executable))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_the_job_is_what_the_file_says(tmp_path: Path) -> None:
    from dask_jobqueue.slurm import SLURMJob

    keywords = read_config(config(tmp_path, CONFIG + MORE)).keywords()
    for of_the_cluster in ("scheduler_options", "silence_logs"):
        del keywords[of_the_cluster]
    script = SLURMJob("tcp://here:1", name="n", **keywords).job_script()
    lines = script.splitlines()
    asked = ["-J crystals", "-p long", "-A physics", "-n 1", "--cpus-per-task=6", "-t 01:30:00", "--constraint=avx2"]
    assert {f"#SBATCH {option}" for option in asked} <= set(lines)
    assert {"export OMP_NUM_THREADS=1", "module load python"} <= set(lines)
    assert not [line for line in lines if "--mem=" in line]
    assert "#SBATCH --mem=8G" in SLURMJob("", "n", **keywords | {"job_directives_skip": []}).job_script().splitlines()
    worker = lines[-1] or lines[-2]
    assert worker.startswith("/opt/python -m distributed.cli.dask_worker tcp://here:1 --name n --nthreads 6 ")
    for option in ("--local-directory /scratch", "--lifetime 80m", "--death-timeout 77", "--interface lo", "--nanny"):
        assert option in worker
    assert "--nworkers" not in worker


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("jobs = 1", ""), "jobs is missing"),
        (("jobs = 1", "jobs = 0"), "jobs: more than 0 is needed, not 0"),
        (("jobs = 1", "jobs = 'many'"), "jobs: a whole number is needed, not 'many'"),
        (
            ("jobs = 1", "jobs = 1\nwaltime = '1'"),
            "unknown key 'waltime': did you mean 'walltime'? choose from account,",
        ),
        (('"01:30:00"', '"1.5 h"'), "walltime: a time such as '02:00:00' is needed, not '1.5 h'"),
        (('"01:30:00"', '"00:00:00"'), "walltime: a time such as '02:00:00' is needed, not '00:00:00'"),
        (('"8GiB"', '"much"'), "memory: a memory such as '16GB' is needed, not 'much'"),
        (("jobs = 1", "jobs = 1\nscheduler_options = { prot = 1 }"), "scheduler_options.prot"),
        (("jobs = 1", "jobs ="), "is not TOML"),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = config(tmp_path, CONFIG.replace(*change))
    with pytest.raises(InputError) as caught:
        engine_for(scheduler=f"slurm:{path}")
    assert str(caught.value).startswith(f"cluster file {path}")
    assert message in str(caught.value)


@pytest.mark.parametrize("walltime", ["90", "90:00", "1-12", "2-00:30:00"])
def test_times_as_slurm_writes_them(tmp_path: Path, walltime: str) -> None:
    assert read_config(config(tmp_path, CONFIG.replace("01:30:00", walltime))).walltime == walltime


def test_slurm_that_is_missing_or_refuses_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slurm: Path
) -> None:
    refused = read_config(config(tmp_path, CONFIG + 'interface = "lo"\naccount = "nobody"\n'))
    with pytest.raises(InputError, match=r"^SLURM refuses the job: allocation failure: Invalid account$"):
        submit(refused)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"^there is no sbatch here"):
        submit(refused)


def test_a_refusal_at_submission_is_reported_at_once_with_the_message_of_slurm(
    tmp_path: Path, slurm: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The test that is asked for before has passed; nothing is waited for and no traceback printed."""
    words = "sbatch: error: QOSMaxSubmitJobPerUserLimit"
    test = '[ "$1" = --test-only ] && exit 0'
    (slurm / "sbatch").write_text(f"#!/bin/sh\n{test}\necho '{words}' >&2\nexit 1\n")
    path = config(tmp_path, CONFIG + 'interface = "lo"\n')
    with engine_for(scheduler=f"slurm:{path}") as engine, pytest.raises(InputError) as caught:
        engine.map(abs, [1], time_limit=60, description="testing")
    assert str(caught.value) == f"--scheduler slurm:{path}: SLURM refuses the job: {words}"
    assert "Traceback" not in capfd.readouterr().err


def test_jobs_that_slurm_took_are_waited_for_though_it_refused_others() -> None:
    jobs = [SimpleNamespace(refusal=""), SimpleNamespace(refusal="limit")]
    for chosen, said in ((jobs, ""), (jobs[:1], ""), (jobs[1:], "limit"), ([], "")):
        cluster = SimpleNamespace(workers=dict(enumerate(chosen)))
        assert refusal(cluster) == said  # type: ignore[arg-type]


def test_no_scheduler_stays_behind_when_submitting_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slurm: Path
) -> None:
    from dask_jobqueue import SLURMCluster

    scale, close, closed = SLURMCluster.scale, SLURMCluster.close, []

    def fail(cluster: SLURMCluster, *arguments: Any, **keywords: Any) -> None:
        if "jobs" in keywords:
            raise LookupError("while submitting")
        scale(cluster, *arguments, **keywords)

    def closing(cluster: SLURMCluster, *arguments: Any, **keywords: Any) -> Any:
        closed.append(cluster)
        return close(cluster, *arguments, **keywords)

    monkeypatch.setattr(SLURMCluster, "scale", fail)
    monkeypatch.setattr(SLURMCluster, "close", closing)
    asked = read_config(config(tmp_path, CONFIG + 'interface = "lo"\n'))
    with pytest.raises(LookupError, match="while submitting"):
        submit(asked)
    assert len(closed) == 1
    (slurm / "sbatch").write_text("#!/no/such/interpreter\n")
    with pytest.raises(InputError, match=r"^SLURM cannot be asked: sbatch does not run: "):
        submit(asked)
    assert len(closed) == 2


@pytest.mark.parametrize(
    ("queue", "expected"), [(None, True), ("", False), ("12\n", True), ("7\n12\n", True), ("112\n", False)]
)
def test_jobs_are_waited_for_while_slurm_has_one_of_them(slurm: Path, queue: str | None, expected: bool) -> None:
    if queue is not None:
        (slurm / "queue").write_text(queue)
    cluster = SimpleNamespace(workers={name: SimpleNamespace(job_id=name) for name in ("11", "12")})
    assert queued(cluster) is expected  # type: ignore[arg-type]


def test_jobs_that_die_at_once_are_reported_with_their_logs(
    tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_engine, "WORKER_SECONDS", 0.5)
    (slurm / "queue").touch()
    logs = tmp_path / "logs"
    text = CONFIG + f'interface = "lo"\njob_script_prologue = ["exit 1"]\nlog_directory = "{logs}"\n'
    path = config(tmp_path, text)
    with engine_for(scheduler=f"slurm:{path}") as engine, pytest.raises(InputError) as caught:
        engine.map(abs, [1], time_limit=60, description="testing")
    assert str(caught.value) == (
        f"--scheduler slurm:{path}: no dask worker for 0.5 s; "
        f"SLURM has none of its jobs any more, what they printed is in {logs}"
    )


def test_jobs_do_the_work_and_ctrl_c_cancels_them(tmp_path: Path, slurm: Path) -> None:
    path = config(tmp_path, CONFIG.replace("cores = 6", "cores = 2") + 'interface = "lo"\n')
    program, worker = start(tmp_path, f"scheduler='slurm:{path}'", OMP_NUM_THREADS="1")
    assert "#SBATCH -t 01:30:00" in (slurm / "job.sh").read_text()
    os.killpg(program.pid, signal.SIGINT)
    _, err = program.communicate(timeout=1800)
    assert program.returncode == -signal.SIGINT
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    assert gone(worker)
