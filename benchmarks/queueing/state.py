"""A run in the state folder: its record, how far it is, who is at it."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from dpcdvae.errors import InputError
from dpcdvae.files import write_json
from dpcdvae.locks import lock
from dpcdvae.model_store import last_checkpoint
from dpcdvae.run_log import METRICS_FILE
from queueing.plan import Entry
from queueing.records import DamagedError, read_record, read_rows
from speed.record import ROOT

WEIGHTS = ROOT / "benchmarks" / "weights"
MODELS = ROOT / "benchmarks" / "models"  # finished ones that the package does not bundle
WEIGHTS_FILE = "queue.json"  # beside the weights of an unfinished run: its entry and what they have cost


class Run:
    """An entry of the queue and what has become of it in ``state``.

    ``runs/NAME`` is the run of dpcdvae, ``runs/NAME.json`` the record of the queue, ``models/NAME`` the finished
    model, ``log/NAME.log`` what its processes said, ``locks/NAME`` is locked by the queue that works on it.
    """

    def __init__(self, state: Path, entry: Entry) -> None:
        self.entry, self.name = entry, entry.name
        self.folder, self.record_file = state / "runs" / self.name, state / "runs" / f"{self.name}.json"
        self.model, self.log = state / "models" / self.name, state / "log" / f"{self.name}.log"
        self.locks = state / "locks" / self.name

    @property
    def record(self) -> dict[str, Any]:
        """commit, entry, minutes (the budget), minutes_spent, planned_epochs, state; init or error if any.

        ``finish_at_end``: the first epoch was trained with ``train.finish=false``. Its clone knows the option.
        """
        return read_record(self.record_file, self._instead(self.record_file))

    def _instead(self, file: Path) -> str:
        return f"put back a copy of {file.name}, or remove {self.folder}, {self.record_file} and {self.model}"

    def write(self, **changes: Any) -> None:
        """Changes the record; None takes a key out."""
        record = self.record | changes
        write_json(self.record_file, {key: value for key, value in record.items() if value is not None})

    @property
    def finished(self) -> bool:
        return self.model.is_dir()

    @property
    def begun(self) -> bool:
        """Whether there is a whole epoch to go on from."""
        try:
            last_checkpoint(self.folder)
        except InputError:
            return False
        return bool(self.rows())

    @property
    def skipped(self) -> bool:
        """Whether this machine's processor lacks what it requires."""
        return bool(self.entry.requires) and not _has(self.entry.requires)

    @property
    def taken(self) -> bool:
        """Whether a process is at it."""
        try:
            with (self.locks / "lock").open(encoding="utf-8") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def rows(self) -> list[dict[str, str]]:
        """Those of ``metrics.csv``, one an epoch."""
        file = self.folder / METRICS_FILE
        return read_rows(file, self._instead(file))

    def changed(self) -> int:
        """When the last epoch was noted, 0 before any."""
        try:
            return (self.folder / METRICS_FILE).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def minutes(self) -> float:
        """Of the budget: how many it is. It was fixed when the epochs were planned."""
        return float(self.record.get("minutes", self.entry.minutes))

    def spent(self) -> float:
        """CPU minutes of all epochs, those before it moved to this machine included."""
        return self.carried() + sum(float(row["cpu_seconds"]) for row in self.rows()) / 60

    def carried(self) -> float:
        """CPU minutes behind the weights that it starts or started from."""
        record = self.record
        facts = record.get("init", {}) if record and (self.finished or self.folder.is_dir()) else self.weights() or {}
        return float(facts.get("minutes_spent", 0.0))

    def left(self) -> float:
        """CPU minutes that it is expected to take yet."""
        rows, planned = self.rows(), self.record.get("planned_epochs")
        if self.finished:
            return 0.0
        if not rows or not planned:
            return max(0.0, self.minutes() - self.spent())
        return max(0, planned - len(rows)) * (self.spent() - self.carried()) / len(rows)

    def weights(self) -> dict[str, Any] | None:
        """What is known of weights in the checkout from which it can start; None where there are none."""
        file = WEIGHTS / self.name / WEIGHTS_FILE
        return read_record(file, f"put back a copy of it, or remove {file.parent}") or None

    def damage(self) -> DamagedError | None:
        """What is wrong with the files of the run that decide what is to be done; None where nothing is."""
        try:
            record = self.record
            if self.finished or self.begun:
                for key in ("commit", "entry", "minutes") if record else ():
                    if key not in record:
                        file = self.record_file
                        raise DamagedError(f"{file} is damaged, it has no {key}: {self._instead(file)}")
            elif (weights := self.weights()) is not None and not {"entry", "minutes_spent"} <= weights.keys():
                folder = WEIGHTS / self.name
                raise DamagedError(
                    f"{folder / WEIGHTS_FILE} is damaged, it lacks entry or minutes_spent: put back a "
                    f"copy of it, or remove {folder}"
                )
            self.rows()
        except DamagedError as error:
            return error
        return None

    def check(self) -> None:
        """Raises InputError where what is there was trained by another recipe than the queue's file has now."""
        if self.finished or self.begun:
            if not self.record:
                raise InputError(
                    f"run '{self.name}' has no {self.record_file}: move {self.folder} and {self.model} away"
                )
            self._same(self.record.get("entry", {}), f"{self.folder}, {self.record_file.name} and {self.model}")
        elif weights := self.weights():
            self._same(weights.get("entry", {}), f"{WEIGHTS / self.name}")

    def _same(self, earlier: Mapping[str, Any], where: str) -> None:
        for key, value in self.entry.recipe().items():
            if earlier.get(key) != value:
                raise InputError(
                    f"run '{self.name}' was begun with {key} {earlier.get(key)!r}, and the queue has {value!r} now: "
                    f"put it back, give the new run another name, or remove {where}"
                )

    def take(self, seconds: float = 2.0) -> IO[str] | None:
        """Its lock, None where another process is at it."""
        return patient_lock(self.locks, seconds)


def patient_lock(folder: Path, seconds: float) -> IO[str] | None:
    """The lock of a folder, after waiting for the end of one who was just killed or only looks; None in vain."""
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    while True:
        try:
            return lock(folder, "wait for it")
        except InputError:
            if time.monotonic() > end:
                return None
            time.sleep(0.1)


def _has(flag: str) -> bool:
    try:
        rows = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return any(flag in row.split() for row in rows if row.startswith(("flags", "Features")))
