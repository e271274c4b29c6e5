"""Progress of a training: a line per epoch for people, a CSV for programs, a bar within the epoch."""

from __future__ import annotations

import csv
import io
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from dpcdvae.errors import InputError
from dpcdvae.files import write_text
from dpcdvae.progress import Progress, duration
from dpcdvae.run_log import METRICS_FILE


class TimeLimit(pl.Callback):
    """Ends a run after the last epoch that fits into ``minutes``, for queues that kill; ``resume`` goes on."""

    def __init__(self, minutes: float) -> None:
        self.seconds = 60 * minutes
        self._start = self._epoch = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._epoch = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        now = time.monotonic()
        over = now - self._start + (now - self._epoch) > self.seconds
        # The first process decides: one that stopped alone would leave the others waiting.
        trainer.should_stop = trainer.should_stop or bool(trainer.strategy.broadcast(over))


class EpochLog(pl.Callback):
    """Rows of ``metrics.csv`` and lines on standard error. A resumed run continues the file where it resumes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / METRICS_FILE
        self.rows: list[dict[str, Any]] = []
        self.best = float("inf")
        self._start, self._cpu_start = time.monotonic(), time.process_time()
        self._bar: Progress | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.path.exists():
            try:
                with self.path.open(newline="", encoding="utf-8-sig") as stream:
                    rows = [row for row in csv.DictReader(stream) if int(row["epoch"]) <= trainer.current_epoch]
                self.best = min((float(row["val/criterion"]) for row in rows), default=self.best)
            except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError):
                raise InputError(f"{self.path}: not the epochs of this run: move it away to begin a new log") from None
            self.rows = list(rows)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._start, self._cpu_start = time.monotonic(), time.process_time()
        if trainer.is_global_zero:
            self._bar = Progress(f"epoch {trainer.current_epoch + 1}", total=int(trainer.num_training_batches))

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.advance()

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._close_bar()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self._close_bar()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._close_bar()
        if not trainer.is_global_zero:
            return
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        seconds, cpu = time.monotonic() - self._start, time.process_time() - self._cpu_start
        epoch, last = trainer.current_epoch + 1, trainer.max_epochs or 0
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        mark = " *" if metrics["val/criterion"] < self.best else ""
        self.best = min(self.best, metrics["val/criterion"])
        row = {"epoch": epoch, "seconds": f"{seconds:.1f}", "cpu_seconds": f"{cpu:.1f}", "lr": f"{lr:.6g}", **metrics}
        self.rows.append(row)
        self._write()
        losses = {name.removeprefix("val/"): value for name, value in metrics.items() if name.startswith("val/")}
        terms = "  ".join(f"{name} {value:.4g}" for name, value in losses.items() if name not in ("loss", "criterion"))
        print(
            f"epoch {epoch}/{last}  train {metrics['train/loss']:.4f}  val {metrics['val/loss']:.4f}"
            f"  [{terms}]  criterion {metrics['val/criterion']:.4f}{mark}  lr {lr:.2g}  {duration(seconds)}",
            file=sys.stderr,
            flush=True,
        )

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None

    def _write(self) -> None:
        text = io.StringIO()
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())
