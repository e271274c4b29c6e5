"""Trains the models of queue.toml one after the other, in the background, each for its CPU minutes.

    nohup python benchmarks/train_queue.py --state ../state > ../queue.log &   # goes on where it stopped
    python benchmarks/train_queue.py --state ../state --show                   # how far every run is
    python benchmarks/train_queue.py --state ../state --collect                # what is there, into the checkout

Every run keeps the commit that it was begun with. More in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from dpcdvae.errors import InputError
from dpcdvae.locks import lock
from queueing.clones import check_commits, check_entries, clone, resolve
from queueing.collect import collect
from queueing.plan import chosen, read_queue
from queueing.state import Run
from queueing.table import table
from queueing.work import Queue
from speed.command import Parser, folder
from speed.command import run as run_command
from speed.record import ROOT

STOPPED = 130


def main() -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=folder, required=True, metavar="FOLDER", help="outside the checkout")
    parser.add_argument("--queue", type=Path, default=ROOT / "benchmarks" / "queue.toml", metavar="FILE")
    parser.add_argument("--commit", default="HEAD", metavar="REF", help="of runs that have not begun (default HEAD)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these runs alone")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--join", action="store_true", help="help a queue that is at work: take runs that nobody is at")
    what.add_argument("--show", action="store_true", help="a table of all runs")
    what.add_argument("--collect", action="store_true", help="copy models and weights into the checkout")
    arguments = parser.parse_args()
    state = arguments.state.resolve()
    try:
        above = next(path for path in (state, *state.parents) if path.exists())
    except OSError as error:
        raise InputError(f"--state {str(state)[:80]}: {error.strerror}: choose another folder") from None
    if not above.is_dir():
        raise InputError(f"--state {state}: {above} is not a folder: choose another")
    if state.is_relative_to(ROOT):
        raise InputError(f"--state {state} lies in the checkout {ROOT}: choose a folder outside it")
    runs = [Run(state, entry) for entry in chosen(read_queue(arguments.queue), arguments.only)]
    if arguments.show:
        print(table(runs))
        return 0
    if arguments.collect:
        return collect(runs)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return work(state, runs, arguments.commit, join=arguments.join)
    except KeyboardInterrupt:
        print("stopped: the same command goes on", file=sys.stderr)
        return STOPPED


def work(state: Path, runs: list[Run], ref: str, *, join: bool) -> int:
    """Refuses what cannot be done before anything begins, then works; returns the exit code."""
    commit = resolve(ref)
    if commit is None:
        raise InputError(f"--commit {ref}: {ROOT} has no such commit")
    sound = [run for run in runs if not run.damage()]
    for run in sound:
        run.check()
    check_commits(sound)
    try:
        for name in ("runs", "models", "log", "clones"):
            (state / name).mkdir(parents=True, exist_ok=True)
        held = None if join else lock(state, "wait for it, stop it, or help it with --join")
    except OSError as error:
        raise InputError(f"--state {state} cannot be written: {error.strerror}") from None
    known: list[str] = []
    if new := [run.entry for run in sound if not (run.finished or run.begun or run.skipped)]:
        known = check_entries(clone(state, commit), new)
    code = Queue(state, runs, commit, known).work()
    if held:
        held.close()
    return code


if __name__ == "__main__":
    run_command(main)
