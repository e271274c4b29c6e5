"""Working through the queue: begin or go on, plan the epochs, export, tell."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO

from dpcdvae.errors import InputError, one_line
from dpcdvae.files import write_json
from queueing.child import ChildError, call
from queueing.clones import clone, settings
from queueing.state import WEIGHTS, Run

# One epoch at nearly the full rate: the cosine of so many hardly falls in the first. The budget's own cosine follows.
FIRST_EPOCHS = 1000
FIRST_MINUTES = 1e-9  # a second epoch never fits, however short the first one was
FINISH = "train.finish"  # what is fitted after the last epoch takes minutes, and is of no use after the first
LEAST_EPOCHS = 2
LEAST_SECONDS = 0.05  # metrics.csv has one decimal
LINE_SECONDS = 60.0


class Queue:
    """``runs`` in their order; those that have not begun take ``commit``.

    ``known``: options of the package at ``commit``, as far as they are known.
    """

    def __init__(self, state: Path, runs: Sequence[Run], commit: str, known: Collection[str] = ()) -> None:
        self.state, self.runs, self.commit, self.known = state, runs, commit, known
        self._line = -LINE_SECONDS  # when the last one was printed

    def work(self) -> int:
        """Each run that nobody is at; returns 1 where one failed, else 0."""
        failed = 0
        for number, run in enumerate(self.runs):
            if damage := run.damage():
                failed = 1
                print(f"{run.name}: failed: {damage}", flush=True)
                continue
            if run.finished:
                continue
            if run.skipped:
                print(f"{run.name}: skipped, this processor has no {run.entry.requires}", flush=True)
                continue
            try:
                self._take(run, self.runs[number + 1 :])
            except (ChildError, InputError, OSError) as error:
                failed = 1
                print(f"{run.name}: failed: {one_line(error)}", flush=True)
        return failed

    def _take(self, run: Run, later: Sequence[Run]) -> None:
        held = run.take()
        if held is None:
            print(f"{run.name}: another process is at it", flush=True)
            return
        with held:
            if run.finished:  # by the process that had it
                return
            try:
                self._train(run, held, later)
            except (ChildError, InputError, OSError) as error:
                with contextlib.suppress(InputError, OSError):  # on a full disk
                    run.write(state="failed", error=one_line(error))
                raise

    def _train(self, run: Run, held: IO[str], later: Sequence[Run]) -> None:
        source = clone(self.state, str(run.record["commit"])) if run.begun else self._begin(run)
        told = run.changed()

        def tick() -> None:
            nonlocal told
            if run.changed() != told:
                told = run.changed()
                self._tell(run, later)

        if not run.begun:
            call(self._first(run), source=source, log=run.log, held=held, tick=tick)
        planned = run.record.get("planned_epochs") or self._plan(run)
        run.write(state="training", error=None)
        going_on = ["--set", f"train.max_epochs={planned}", "--set", "train.max_minutes=0"]
        if run.record.get("finish_at_end"):
            going_on += ["--set", f"{FINISH}=true"]
        call(
            ["train", "--resume", "--out", str(run.folder), *going_on], source=source, log=run.log, held=held, tick=tick
        )
        _remove_leftovers(run.model)
        call(["export", str(run.folder), "--out", str(run.model)], source=source, log=run.log, held=held)
        run.write(state="finished")
        print(f"{run.name}: finished, {len(run.rows())} epochs, {run.spent():.1f} min, {run.model}", flush=True)

    def _begin(self, run: Run) -> Path:
        """A new record; what a run without a whole epoch left is removed. Returns the clone to use."""
        run.check()
        source = clone(self.state, self.commit)
        if run.folder.is_dir():
            shutil.rmtree(run.folder)
        _remove_leftovers(run.folder)
        weights = run.weights()
        spent = float(weights["minutes_spent"]) if weights else 0.0
        record = {
            "name": run.name,
            "commit": self.commit,
            "entry": run.entry.recipe(),
            "minutes": run.entry.minutes,
            "minutes_spent": spent,
            "state": "training",
            "finish_at_end": FINISH in self.known,
        }
        write_json(run.record_file, record | ({"init": weights} if weights else {}))
        start = f", from weights that took {spent:.0f} min" if weights else ""
        print(f"{run.name}: begun with commit {self.commit[:10]}{start}", flush=True)
        return source

    def _first(self, run: Run) -> list[str]:
        """Arguments of dpcdvae for the first epoch alone."""
        length = [f"train.max_epochs={FIRST_EPOCHS}", f"train.max_minutes={FIRST_MINUTES}"]
        if run.record["finish_at_end"]:
            length.append(f"{FINISH}=false")
        start = ["--init", str(WEIGHTS / run.name)] if run.record.get("init") else []
        options = [part for option in (*settings(run.entry), *length) for part in ("--set", option)]
        entry = run.entry
        return ["train", entry.dataset, "--preset", entry.preset, "--out", str(run.folder), *start, *options]

    def _plan(self, run: Run) -> int:
        """How many epochs of the length of the first one come nearest to the budget; noted once: the schedule stays."""
        seconds = max(float(run.rows()[0]["cpu_seconds"]), LEAST_SECONDS)
        planned = max(LEAST_EPOCHS, round((run.minutes() - run.carried()) * 60 / seconds))
        run.write(planned_epochs=planned)
        print(f"{run.name}: {planned} epochs of {seconds:.1f} CPU seconds planned", flush=True)
        return planned

    def _tell(self, run: Run, later: Sequence[Run]) -> None:
        """Notes a new epoch, and prints a line of it if the last line was a minute ago."""
        run.write(minutes_spent=round(run.spent(), 3))
        if time.monotonic() - self._line < LINE_SECONDS:
            return
        self._line = time.monotonic()
        left = run.left()
        queue = left + sum(other.left() for other in later if not (other.taken or other.skipped or other.damage()))
        print(
            f"{run.name}: epoch {len(run.rows())} of {run.record.get('planned_epochs', '?')}, {run.spent():.1f} of "
            f"{run.minutes():g} min, {left:.0f} min left, {queue:.0f} in the queue",
            flush=True,
        )


def _remove_leftovers(path: Path) -> None:
    """What a killed process left under temporary names of ``path``."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
