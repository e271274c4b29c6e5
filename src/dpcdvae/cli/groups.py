"""Options of commands, groups of them declared once as a dataclass, and the call that was parsed."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from dpcdvae.errors import InputError

# Where results go says nothing of how they came about, so the manifest beside each of them leaves it out.
OUTPUTS = {"out", "overwrite", "json", "markdown", "table", "picture", "ranked", "write_jobs"}


NUMBERS: dict[str, int] = {}
"""Options of commands that take numbers, as they are written -> how many numbers each takes."""


def option(default: Any, help: str, *names: str, shown: str | None = None, **more: Any) -> Any:
    """An option of a command; ``...`` as default: it must be given.

    Args:
        names: where they are not the parameter's, or there is to be no ``--no-`` of a flag.
        shown: what the help shows for the default.
        more: as typer takes it.
    """
    return typer.Option(default, *names, help=help, show_default=True if shown is None else shown, **more)


def argument(default: Any, help: str, **more: Any) -> Any:
    """A positional argument of a command; parameters as those of :func:`option`."""
    return typer.Argument(default, help=help, **more)


class Group:
    """Base of the dataclasses whose fields are options. A parameter of a command of such a type stands for them all."""


@dataclass(frozen=True)
class Call:
    """A command as it was called.

    Attributes:
        command: its name.
        arguments: every parameter by its name with its value, without the outputs.
    """

    command: str
    arguments: Mapping[str, Any]

    def resolved(self, **values: Any) -> Call:
        """The call with the values that were taken where none were given, and what else was worked out of it."""
        return dataclasses.replace(self, arguments={**self.arguments, **values})

    def manifest(self, facts: Mapping[str, Any]) -> str:
        """The text of the manifest of an output."""
        from dpcdvae.files import manifest_text

        return manifest_text(self.command, self.arguments, **facts)

    def write_manifest(self, output: Path, facts: Mapping[str, Any]) -> None:
        from dpcdvae.files import write_manifest

        write_manifest(output, self.command, self.arguments, **facts)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """The function as typer takes it: groups taken apart into their options, the :class:`Call` not asked for."""
    hints = get_type_hints(function, include_extras=True)
    parameters: list[inspect.Parameter] = []
    for name, given in inspect.signature(function).parameters.items():
        if _is_group(hints[name]):
            parameters += _options(hints[name])
        elif hints[name] is not Call:
            parameters.append(given.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name]))
    _note_numbers(parameters)

    @functools.wraps(function)
    def run(**values: Any) -> None:
        for key, value in values.items():
            _check_finite(key, value)
        name = function.__name__.strip("_").replace("_", "-")
        # A trailing underscore keeps a parameter's name from being a word of Python.
        said = {key.rstrip("_"): value for key, value in values.items() if key not in OUTPUTS}
        arguments = dict(values)
        for key, hint in hints.items():
            if hint is Call:
                arguments[key] = Call(name, said)
            elif _is_group(hint):
                arguments[key] = hint(**{field.name: arguments.pop(field.name) for field in dataclasses.fields(hint)})
        function(**arguments)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _note_numbers(parameters: Iterable[inspect.Parameter]) -> None:
    for parameter in parameters:
        about = next(iter(getattr(parameter.annotation, "__metadata__", ())), parameter.default)
        kinds = {int, float}.intersection((hint := parameter.annotation, *_parts(hint)))
        if kinds and isinstance(about, typer.models.OptionInfo):
            names = about.param_decls or (f"--{parameter.name.strip('_').replace('_', '-')}",)
            NUMBERS.update(dict.fromkeys(names, 2 if "tuple" in str(hint) else 1))


def _parts(hint: Any) -> Iterator[Any]:
    """What a type is made of: int and None of ``Annotated[int | None, ...]``."""
    for part in get_args(hint):
        yield part
        yield from _parts(part)


def _check_finite(name: str, value: Any) -> None:
    """Raises InputError for a float that is none: no bound of an option is above or below NaN."""
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, float) and not math.isfinite(number):
            raise InputError(f"--{name.replace('_', '-')}: a finite number is needed, not {number}")


def _is_group(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Group)


def _options(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(group)
    ]
