"""Options with a type, bounds, a unit and a meaning, and errors in one line where a value does not fit."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic.fields import FieldInfo

from dpcdvae.errors import InputError, unknown_name

AUTHORS_CODE = "as the authors' code"  # group of the switches that reproduce what the public code does otherwise
NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
MANY = {int: "whole numbers", float: "numbers", str: "strings"}
MAX_SHOWN = 60  # characters of a wrong value in an error


class Section(BaseModel):
    """Immutable options; refuses options it does not know, and values of another type ("10" is no integer)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


S = TypeVar("S", bound=Section)


def option(
    default: Any,
    meaning: str,
    unit: str = "",
    *,
    group: str = "",
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """A field of a :class:`Section`.

    Args:
        unit: of the value, "" for one without a unit.
        group: name of a group of options that it belongs to beside its section.
        ge, gt, le, lt: bounds of the value.
    """
    extra: dict[str, JsonValue] = {"unit": unit, "group": group}
    return Field(default, description=meaning, json_schema_extra=extra, ge=ge, gt=gt, le=le, lt=lt)


def unit_of(field: FieldInfo) -> str:
    return str(_extra(field).get("unit", ""))


def group_of(field: FieldInfo) -> str:
    return str(_extra(field).get("group", ""))


def _extra(field: FieldInfo) -> Mapping[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, Mapping) else {}


def allowed(field: FieldInfo) -> str:
    """The values that an option can have, in words: "a whole number from 1 to 32"."""
    return _allowed(field.annotation, field.metadata)


def _allowed(kind: Any, constraints: list[Any]) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        extra = [c for a in arguments[1:] for c in (a.metadata if isinstance(a, FieldInfo) else [a])]
        return _allowed(arguments[0], [*extra, *constraints])
    if origin in (Union, UnionType):
        return " or ".join(_allowed(argument, []) for argument in arguments)
    if origin is Literal:
        return " or ".join(f"'{choice}'" for choice in arguments)
    if origin is list:
        return f"a list of {MANY[arguments[0]]}"
    return (NAMES.get(kind, "a table") + _bounds(constraints)).strip()


def _bounds(constraints: list[Any]) -> str:
    found = {name: getattr(c, name) for c in constraints for name in ("ge", "gt", "le", "lt") if hasattr(c, name)}
    low = f" from {found['ge']}" if "ge" in found else f" above {found['gt']}" if "gt" in found else ""
    joint, below = (" to", " to below") if "ge" in found else (" and up to", " and below")
    high = f"{joint} {found['le']}" if "le" in found else f"{below} {found['lt']}" if "lt" in found else ""
    return low + high


def read_options(cls: type[S], values: Mapping[str, Any], component: str) -> S:
    """The options of a component from plain values, such as the ``options`` table of a preset.

    Raises:
        InputError: an option that the component does not have (the nearest is offered), or a value that does not fit.
    """
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise _problem(cls, error, component) from None


def _problem(cls: type[Section], error: ValidationError, component: str) -> InputError:
    first = error.errors()[0]
    if not first["loc"]:  # what a validator says of several options
        return InputError(f"{component}: {first['ctx']['error']}")
    name = str(first["loc"][0])
    if name not in cls.model_fields:
        return unknown_name(f"option of {component}", name, cls.model_fields)
    return InputError(f"option {name} of {component} {wrong_value(cls.model_fields[name], first)}")


def wrong_value(field: FieldInfo, error: Any) -> str:
    """The problem with a value, in words: "must be a whole number from 1 to 32, not 0"."""
    value = error["input"]
    shown = repr(value) if len(repr(value)) <= MAX_SHOWN else f"{repr(value)[:MAX_SHOWN]}..."
    choices = [str(choice) for choice in get_args(_plain(field.annotation))] if isinstance(value, str) else []
    near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.4)
    return f"must be {allowed(field)}, not {shown}" + (f": did you mean '{near[0]}'?" if near else "")


def _plain(annotation: Any) -> Any:
    """The annotation without ``Annotated``; only a ``Literal`` has arguments that are choices."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation if get_origin(annotation) is Literal else None
