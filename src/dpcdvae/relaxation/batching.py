"""Many relaxations side by side in one process, their energies computed together: what a GPU is for.

Each crystal is relaxed as if it were alone, in a thread of its own, with a calculator that only asks. Once every
thread has asked, all that they ask is computed as one batch, by the thread that began it. A relaxation that ends
makes room for the next crystal, so the batches stay full to the end.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dpcdvae.errors import InputError
from dpcdvae.parallel import Lost
from dpcdvae.relaxation.calculators import NEEDED, Evaluate, Results
from dpcdvae.relaxation.minimise import Settings, relax
from dpcdvae.relaxation.relaxed_crystal import Relaxed
from dpcdvae.structures.crystal import Crystal

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

LOOK_EVERY = 0.2  # seconds, for crystals whose time is over
FAREWELL = 1.0  # seconds for a thread to take note that nothing more comes


def check_one_process(batch: int, workers: int | None, scheduler: str | None) -> None:
    """Raises InputError where a batch is to be shared among processes, or is none."""
    if batch < 1:
        raise InputError(f"a batch holds at least 1 crystal, not {batch}")
    if batch > 1 and (workers or scheduler is not None):
        raise InputError("a batch is computed in this process alone: with --batch leave out --workers and --scheduler")


def relax_in_batches(
    items: Sequence[tuple[Crystal, Crystal | None]],
    settings: Settings,
    evaluate: Evaluate,
    *,
    batch: int,
    time_limit: float,
) -> Generator[tuple[int, Relaxed | Lost]]:
    """:func:`relax` of many crystals, ``batch`` of them at a time.

    What comes of a crystal does not depend on those beside it but for the rounding of ``evaluate``. Where that
    fails, the batch is halved until the crystals that it fails on are alone with the error.

    Args:
        items: crystals as generated, and where to start from if elsewhere.
        evaluate: energies, forces and stresses of some crystals, as :func:`~.calculators.batch_evaluator` gives.
        batch: crystals at a time.
        time_limit: seconds for one crystal, less those in which it waits for others. A batch that is being
            computed is not interrupted.

    Returns:
        (index of the item, result) as they come. Closing it ends all that is at work.

    Raises:
        Exception: a bug in a relaxation. What a calculator raises is a result.
    """
    todo = deque(enumerate(items))
    inbox: queue.SimpleQueue[tuple[_Seat, str, Any]] = queue.SimpleQueue()
    seats: list[_Seat] = []
    with warnings.catch_warnings():  # threads set filters and put them back at times of their own
        try:
            while todo or seats:
                while todo and len(seats) < batch:
                    seats.append(_Seat(*todo.popleft(), settings, inbox))
                    seats[-1].start()
                if all(seat.question is not None for seat in seats):
                    _answer(seats, evaluate)
                with contextlib.suppress(queue.Empty):
                    seat, kind, value = inbox.get(timeout=LOOK_EVERY)
                    if seat in seats and kind == "question":
                        seat.question, seat.asked = value, time.monotonic()
                    elif seat in seats:  # else its time was over
                        seats.remove(seat)
                        seat.join()  # it ends with what it has given
                        if kind == "error":
                            raise value
                        yield seat.index, value
                for seat in [seat for seat in seats if seat.seconds() > time_limit]:
                    seats.remove(seat)
                    seat.answer(_Over())
                    yield seat.index, Lost(f"no result after {time_limit:g} s")
        finally:
            _dismiss(seats)


class _Over(BaseException):
    """Ends a thread where it asks. No Exception: what relaxes takes those for failures of the calculator."""


class _Seat(threading.Thread):
    """One crystal at work.

    Attributes:
        question: what it wants to be computed; None while it is busy with the last answer.
        asked: when that was, by :func:`time.monotonic`.
        began: when it began, later by all the time it has waited for others.
        answers: results, or the exception that its calculator is to raise.
    """

    def __init__(
        self,
        index: int,
        item: tuple[Crystal, Crystal | None],
        settings: Settings,
        inbox: queue.SimpleQueue[tuple[_Seat, str, Any]],
    ) -> None:
        super().__init__(daemon=True)  # one that hangs must not keep the process
        self.index = index
        self.item = item
        self.settings = settings
        self.inbox = inbox
        self.answers: queue.SimpleQueue[Results | BaseException] = queue.SimpleQueue()
        self.question: Atoms | None = None
        self.began = self.asked = time.monotonic()

    def seconds(self) -> float:
        """It has taken, not counting those in which it waited for others."""
        return (time.monotonic() if self.question is None else self.asked) - self.began

    def answer(self, value: Results | BaseException) -> None:
        self.question = None
        self.answers.put(value)

    def run(self) -> None:
        crystal, start = self.item
        try:
            result = relax(crystal, self.settings, _asking(self.ask), start=start)
            self.inbox.put((self, "result", result))
        except _Over:
            return
        except BaseException as error:  # whatever it is, it is raised where it is waited for
            self.inbox.put((self, "error", error))

    def ask(self, atoms: Atoms) -> Results:
        self.inbox.put((self, "question", atoms))
        answer = self.answers.get()
        if isinstance(answer, BaseException):
            raise answer
        return answer


def _asking(ask: Callable[[Atoms], Results]) -> Calculator:
    """A calculator that computes nothing itself."""
    from ase.calculators.calculator import Calculator, all_changes

    class Asking(Calculator):
        implemented_properties = list(NEEDED)  # noqa: RUF012 - as ASE declares it

        def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
            super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]  # ASE states no types
            self.results = dict(ask(atoms.copy()))

    return Asking()  # type: ignore[no-untyped-call]  # ASE states no types


def _answer(seats: Sequence[_Seat], evaluate: Evaluate) -> None:
    questions = [seat.question for seat in seats if seat.question is not None]
    for seat in seats:
        seat.began += time.monotonic() - seat.asked
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        answers = _compute(questions, evaluate)
    for seat, answer in zip(seats, answers, strict=True):
        seat.answer(answer)


def _compute(questions: Sequence[Atoms], evaluate: Evaluate) -> list[Results | BaseException]:
    """One answer each; halves what cannot be computed at once, be it for one bad crystal or for want of memory."""
    try:
        return list(evaluate(questions))
    except Exception as error:  # whatever a calculator finds wrong: the relaxation gives it as its reason
        if len(questions) == 1:
            return [error]
    half = len(questions) // 2
    return _compute(questions[:half], evaluate) + _compute(questions[half:], evaluate)


def _dismiss(seats: Sequence[_Seat]) -> None:
    for seat in seats:
        seat.answer(_Over())
    deadline = time.monotonic() + FAREWELL
    for seat in seats:
        if seat.is_alive():
            seat.join(max(0.0, deadline - time.monotonic()))
