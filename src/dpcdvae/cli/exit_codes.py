"""How every command ends: exit codes, and one line on standard error for what went wrong."""

from __future__ import annotations

import difflib
import errno
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import typer

from dpcdvae.cli.groups import NUMBERS
from dpcdvae.errors import InputError, misfit, one_line

LONGEST_WORD = 300  # in an error; a path is rarely longer, pasted text may be
OK, BUG, BAD_INPUT, STOPPED, BROKEN_PIPE = 0, 1, 2, 130, 141

# Typer's own name for it moved between its versions; this base class of a public one did not.
UsageError: Any = typer.BadParameter.__base__


def run(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Runs a command line and returns its exit code.

    0 done; 2 bad input, or a file that the system does not give, with one line on standard error; 130 stopped by
    Ctrl-C; 141 the reader of standard output went away. Any other exception is a bug, and a traceback (code 1).
    """
    if sys.stdout is None:  # closed by the caller (>&-): results go nowhere, files are written all the same
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that has no Å gets a question mark
            stream.reconfigure(errors="replace")
    try:
        _refuse_odd_values(arguments)
        code = app(list(arguments), prog_name="dpcdvae", standalone_mode=False)
        sys.stdout.flush()
        if code == STOPPED:
            return _stopped()
        return code if isinstance(code, int) else OK
    except InputError as error:
        return _bad_input("dpcdvae", str(error))
    except UsageError as error:
        return _usage_error(error)
    except (KeyboardInterrupt, typer.Abort):
        return _stopped()
    except BrokenPipeError:
        return _broken_pipe()
    except OSError as error:
        if error.errno == errno.ENOSPC:
            where = error.filename or "the output"
            return _bad_input("dpcdvae", f"cannot write {where}: no space is left on the device")
        if error.errno is None or error.filename is None:
            raise
        return _bad_input("dpcdvae", f"cannot use {error.filename}: {error.strerror}")
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # Typer meets it first
            return _broken_pipe()
        raise


def _refuse_odd_values(arguments: Sequence[str]) -> None:
    """Raises InputError for values that a shell or Python, but no user, can mean.

    Those are an empty argument, what a shell makes of an unset variable (as a path it is ``.``), and numbers in
    Python's spelling, such as ``1_0``, or in digits of other scripts, which files may not hold either.
    """
    option, numbers = "", 0
    for given in arguments:
        named = re.fullmatch(r"(--[\w-]+)=(.*)", given, re.DOTALL) or re.fullmatch(r"(-[a-z])(.+)", given, re.DOTALL)
        if named is not None and (named[1] in NUMBERS or not named[2]):
            option, value, numbers = named[1], named[2], NUMBERS.get(named[1], 0)
        elif given in NUMBERS:
            option, numbers = given, NUMBERS[given]
            continue
        else:
            value = given
        if not value:
            raise InputError(f"{option or 'an argument'}: a value is needed, not ''")
        if numbers and ("_" in value or not value.isascii()):
            raise InputError(f"{option}: a number in the digits 0 to 9 is needed, not '{value[:30]}'")
        numbers -= numbers > 0
        option = option if numbers else given if given.startswith("-") else ""


def _bad_input(command: str, message: str) -> int:
    said = re.sub(
        rf"\S{{{LONGEST_WORD},}}(?<![:;,])", lambda word: f"{word[0][:40]}... ({len(word[0])} characters)", message
    )
    print(f"{command}: error: {one_line(said)}", file=sys.stderr)
    return BAD_INPUT


def _stopped() -> int:
    print("dpcdvae: stopped", file=sys.stderr)
    return STOPPED


def _broken_pipe() -> int:
    # Python flushes standard output once more at exit: give it somewhere to go.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


def _option_of(error: Any) -> str:
    names = getattr(getattr(error, "param", None), "opts", [])
    return next((name for name in names if name.startswith("--")), names[0] if names else "a value")


def _usage_error(error: Any) -> int:
    """One line, with the nearest option where there is one and the way to the help page."""
    message = error.format_message().strip()
    if "\n" in message:  # a group without a command: its help page
        print(message, file=sys.stderr)
        return BAD_INPUT
    command = error.ctx.command_path if error.ctx else "dpcdvae"
    unknown = getattr(error, "option_name", None)
    if error.ctx and unknown and "o such option" in message:
        known = [name for parameter in error.ctx.command.params for name in parameter.opts if name.startswith("--")]
        # Without the dashes, which all have in common; what is less alike is no slip of the finger.
        near = difflib.get_close_matches(unknown.strip("-"), [name.strip("-") for name in known], n=1, cutoff=0.6)
        message = f"no such option {unknown}" + (f": did you mean --{near[0]}?" if near else "")
    if type(error.__cause__).__name__ == "ValidationError":  # pydantic, by which newer versions of typer read values
        message = f"{_option_of(error)}: {misfit(error.__cause__)}"
    name = unknown or _option_of(error)
    if NUMBERS.get(name) == 2 and re.search(" is needed| requires 2", message):
        given = message.partition(", not ")
        message = f"{name}: two numbers with a space between them are needed{given[1]}{given[2]}"
    message = (message[:1].lower() + message[1:]).rstrip(".")
    return _bad_input(command, f"{message} (see {command} --help)")
