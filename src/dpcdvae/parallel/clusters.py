"""Where a scheduler of dask comes from: what ``--scheduler`` takes."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dpcdvae.errors import InputError
from dpcdvae.files import read_whole
from dpcdvae.parallel.engine import available_cores
from dpcdvae.parallel.local import threads_of_each
from dpcdvae.parallel.worker import interrupts_held_back

FORMS = "tcp://HOST:PORT, a scheduler's JSON file, slurm:CONFIG or local:N"
FILE_SECONDS = 30.0
"""For the file of a scheduler that was started at the same time."""

MOST_PER_CORE = 4
"""Workers of ``local:N``: more would only get in one another's way."""


@dataclass(frozen=True)
class Source:
    """A scheduler that can be opened.

    Attributes:
        open: gives what ``distributed.Client`` takes: an address, or a cluster that it has started.
        queued: of that cluster, whether workers may still come, however long they let wait.
        hint: where to look if none comes.
        refusal: of that cluster, why no worker will come; empty where some may.
    """

    open: Callable[[], Any]
    queued: Callable[[Any], bool] = lambda _: False
    hint: str = ""
    refusal: Callable[[Any], str] = lambda _: ""


def source_of(scheduler: str) -> Source:
    """What opens a scheduler; all that can be checked before is checked here.

    Raises:
        InputError: dask is missing, no form of a scheduler, or a bad file.
    """
    kind, colon, rest = scheduler.partition(":")
    _check_installed(*(["dask_jobqueue"] if kind == "slurm" else []))
    if kind == "slurm" and colon:
        from dpcdvae.parallel import slurm

        config = slurm.read_config(rest)
        return Source(partial(slurm.submit, config), slurm.queued, slurm.hint(config), slurm.refusal)
    if kind == "local" and colon:
        if not rest.isascii() or not rest.isdigit() or int(rest) < 1:
            raise InputError(f"--scheduler {scheduler}: local: needs a number of workers, such as local:2")
        if int(rest) > MOST_PER_CORE * available_cores():
            raise InputError(
                f"--scheduler {scheduler}: {rest} workers on {available_cores()} cores: "
                f"give at most {MOST_PER_CORE * available_cores()}"
            )
        return Source(partial(_local, int(rest)))
    if "://" in scheduler:
        return Source(partial(str, _checked(scheduler, scheduler)))
    path = Path(scheduler)
    if path.suffix != ".json" and not path.is_file():
        raise InputError(f"--scheduler takes {FORMS}, not '{scheduler}'")
    return Source(partial(_address_in, path))


def _checked(address: str, given: str) -> str:
    """dask itself would take half a minute and a traceback to say so."""
    if not re.fullmatch(r"(tcp|tls|ucx)://[^\s/]+:\d{1,5}|inproc://\S+", address):
        raise InputError(f"--scheduler {given}: '{address}' is no address of a scheduler, such as tcp://HOST:8786")
    return address


def _check_installed(*more: str) -> None:
    missing = [name for name in ("dask", "distributed", *more) if find_spec(name) is None]
    if missing:
        raise InputError(f"--scheduler needs {', '.join(missing)}: pip install 'dpcdvae[cluster]'")


def _local(workers: int) -> Any:
    from multiprocessing import resource_tracker

    from distributed import LocalCluster

    resource_tracker.ensure_running()  # started from a thread of the cluster, it would let Ctrl-C through again
    with interrupts_held_back():  # by the threads and processes that it starts, for good
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=None,
            silence_logs=logging.CRITICAL,
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            env={"OMP_NUM_THREADS": str(threads_of_each(workers))},
        )


def _address_in(path: Path) -> str:
    """The address in the file that ``dask scheduler --scheduler-file`` writes, waiting for it to be there."""
    end = time.monotonic() + FILE_SECONDS
    while True:
        try:
            address = str(json.loads(read_whole(path))["address"])
        except FileNotFoundError:
            reason = "there is no such file: start dask scheduler --scheduler-file with it"
        except OSError as error:
            reason = str(error.strerror)
        except Exception:  # whatever else it holds
            reason = "it is no file of a dask scheduler"
        else:
            return _checked(address, str(path))
        if time.monotonic() > end:
            raise InputError(f"--scheduler {path}: {reason}")
        time.sleep(0.2)
