"""What the scripts of this folder expect of a command line: bad input ends with one line and exit code 2."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from dpcdvae.errors import InputError, one_line
from speed.record import ROOT


class Parser(argparse.ArgumentParser):
    """One that says what is wrong in one line, without the usage, which --help shows."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {one_line(message)}", file=sys.stderr)
        sys.exit(2)


def run(main: Callable[[], int | None]) -> NoReturn:
    """``main`` as a whole program."""
    try:
        code = main()
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:  # whoever read it, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)


def real_data() -> Path:
    """The folder of real data sets: that of DPCDVAE_DATA, else ../shared/data."""
    return Path(os.environ.get("DPCDVAE_DATA", ROOT.parent / "shared" / "data"))


def positive(text: str) -> int:
    """A number of crystals, rounds or threads, as a ``type`` of argparse."""
    return _whole(text, 1)


def seed_number(text: str) -> int:
    """The seed of random numbers, as a ``type`` of argparse."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"must be a whole number of {least} or more, not {text}")
    return value


def folder(text: str) -> Path:
    """A folder that is named, as a ``type`` of argparse."""
    if not text:
        raise argparse.ArgumentTypeError("is empty: name a folder")
    return Path(text)


def above_zero(text: str) -> float:
    """A number above 0, as a ``type`` of argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text}")
    return value


def usable_device(text: str) -> str:
    """A device that torch can use here, as a ``type`` of argparse."""
    import torch

    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError) as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be used here: {str(error).splitlines()[0]}") from None
    return text
