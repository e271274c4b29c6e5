"""A cluster of SLURM jobs, described by a TOML file."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from dpcdvae.errors import InputError, misfit, one_line, unknown_name
from dpcdvae.files import read_toml

if TYPE_CHECKING:
    from dask_jobqueue import SLURMCluster

_TIME = r"(\d+-)?\d+(:\d\d){0,2}"


def _memory(text: str) -> str:
    from dask.utils import parse_bytes

    try:
        enough = parse_bytes(text) >= 2**20
    except ValueError:
        enough = False
    if not enough:
        raise ValueError("a memory such as '16GB' is needed")
    return text


def _walltime(text: str) -> str:
    """SLURM's own forms: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]]."""
    if not re.fullmatch(_TIME, text) or not any(int(part) for part in re.findall(r"\d+", text)):
        raise ValueError("a time such as '02:00:00' is needed")
    return text


class SlurmConfig(BaseModel):
    """The keys of the file: ``jobs``, and keywords of ``dask_jobqueue.SLURMCluster`` by their names there."""

    model_config = ConfigDict(extra="forbid", strict=True)

    jobs: PositiveInt = Field(description="jobs that run at the same time")
    cores: PositiveInt = Field(description="of one job; each does one item at a time")
    memory: Annotated[str, AfterValidator(_memory)] = Field(description="of one job")
    walltime: Annotated[str, AfterValidator(_walltime)] = Field(description="of one job; it is submitted again after")
    queue: str | None = Field(None, description="partition")
    account: str | None = None
    interface: str | None = Field(None, description="network of scheduler and workers, e.g. ib0")
    job_name: str = "dpcdvae"
    job_extra_directives: list[str] = Field([], description="more #SBATCH lines")
    job_directives_skip: list[str] = Field([], description="#SBATCH lines to leave out")
    job_script_prologue: list[str] = Field([], description="shell lines before the worker: modules, environments")
    python: str | None = Field(None, description="on the nodes, if it is another path than here")
    local_directory: str | None = Field(None, description="scratch folder of a node")
    log_directory: str | None = Field(None, description="for what the jobs print")
    worker_extra_args: list[str] = Field([], description="more arguments of dask worker")
    death_timeout: PositiveInt = Field(120, description="seconds without a scheduler after which a worker ends")
    scheduler_options: dict[Literal["host", "port", "interface"], str | int] = Field(
        {}, description="of the scheduler, if its address is not that of the interface"
    )

    def keywords(self) -> dict[str, Any]:
        """Of ``SLURMCluster``: one dask worker a job, whose threads each drive a process that can be killed."""
        given = self.model_dump(exclude={"jobs"}, exclude_none=True)
        given["job_script_prologue"] = ["export OMP_NUM_THREADS=1", *self.job_script_prologue]
        given["scheduler_options"] = {"dashboard": False, "dashboard_address": ":0", **self.scheduler_options}
        return {**given, "processes": 1, "silence_logs": logging.CRITICAL}


def read_config(path: str | Path) -> SlurmConfig:
    """Raises InputError: no such file, no TOML, a key or value that is not meant."""
    path = Path(path)
    values = read_toml(path, "cluster file")
    try:
        return SlurmConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            key = ".".join(map(str, first["loc"]))
            raise InputError(f"cluster file {path}: {unknown_name('key', key, SlurmConfig.model_fields)}") from None
        raise InputError(f"cluster file {path}: {misfit(error)}") from None


def submit(config: SlurmConfig) -> SLURMCluster:
    """Starts a scheduler here and submits the jobs.

    Raises:
        InputError: no SLURM on this machine, or SLURM refuses the job.
    """
    answer = signal.getsignal(signal.SIGINT)
    from dask_jobqueue import SLURMCluster
    from dask_jobqueue.slurm import SLURMJob
    from distributed.core import Status

    signal.signal(signal.SIGINT, answer)  # the import makes Ctrl-C end the program as if all had gone well

    class Job(SLURMJob):
        """Keeps what SLURM says against it, which dask would print as tracebacks and then wait for ever."""

        refusal = ""

        async def start(self) -> None:
            try:
                await super().start()  # type: ignore[no-untyped-call]
            except (RuntimeError, ValueError, OSError) as error:
                self.refusal = _words(error)
                self.status = Status.running  # so that dask asks no further

    class Cluster(SLURMCluster):
        job_cls = Job

    if shutil.which("sbatch") is None:
        raise InputError("there is no sbatch here: run this where SLURM jobs are submitted, on a login node")
    try:
        cluster: Any = Cluster(**config.keywords())
    except (RuntimeError, OSError, ValueError) as error:
        raise InputError(f"no scheduler could be started for the SLURM jobs: {one_line(error)}") from error
    try:
        asked = subprocess.run(
            ["sbatch", "--test-only"], input=cluster.job_script(), capture_output=True, text=True, check=False
        )
        if asked.returncode != 0:
            raise InputError(f"SLURM refuses the job: {' '.join(asked.stderr.split())}")
        cluster.scale(jobs=config.jobs)
    except BaseException as error:
        cluster.close()
        if isinstance(error, OSError):
            raise InputError(f"SLURM cannot be asked: sbatch does not run: {error.strerror}") from error
        raise
    return cast("SLURMCluster", cluster)


def _words(error: Exception) -> str:
    """What sbatch wrote to its standard error, out of dask_jobqueue's message of a submission that failed."""
    text = str(error)
    found = re.search(r"stderr:\s*(.*?)\s*\Z", text, re.DOTALL)
    return one_line(found[1] if found and found[1] else text)[:300]


def refusal(cluster: SLURMCluster) -> str:
    """What SLURM said when it refused every job of the cluster at its submission; empty where it took one."""
    said = [job.refusal for job in list(cluster.workers.values())]
    return said[0] if all(said) and said else ""


def queued(cluster: SLURMCluster) -> bool:
    """Whether SLURM has a job of the cluster, waiting or running; so it is held too while SLURM does not answer."""
    ours = {job.job_id for job in cluster.workers.values()}
    asked = ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%A"]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return True
    return answer.returncode != 0 or not ours.isdisjoint(answer.stdout.split())


def hint(config: SlurmConfig) -> str:
    """Where to look if no job ever becomes a worker."""
    import dask.config

    folder = config.log_directory or dask.config.get("jobqueue.slurm.log-directory", None) or "."
    return f"SLURM has none of its jobs any more, what they printed is in {Path(folder).absolute()}"
