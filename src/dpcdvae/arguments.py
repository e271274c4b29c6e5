"""Arguments of public functions checked by their annotations: one line for a wrong type, whatever the function."""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

from dpcdvae.errors import InputError, one_line

P = ParamSpec("P")
R = TypeVar("R")

_NONE = object()  # no value of the kind


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")  # numpy's


def _bool(value: Any) -> Any:
    return bool(value) if _is_bool(value) else _NONE


def _int(value: Any) -> Any:
    return int(value) if isinstance(value, Integral) and not _is_bool(value) and abs(int(value)) < 2**64 else _NONE


def _float(value: Any) -> Any:
    if not isinstance(value, Real) or _is_bool(value):
        return _NONE
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return _NONE
    return _NONE if math.isnan(number) else number


def _texts(value: Any) -> Any:
    every = isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(v, str) for v in value)
    return value if every else _NONE


def _two_floats(value: Any) -> Any:
    found = tuple(map(_float, value)) if isinstance(value, Sequence) and not isinstance(value, str) else ()
    return found if len(found) == 2 and _NONE not in found else _NONE


def _is(*kinds: type) -> Callable[[Any], Any]:
    return lambda value: value if isinstance(value, kinds) else _NONE


def _model(*kinds: str) -> Callable[[Any], Any]:
    def model(value: Any) -> Any:
        kind = getattr(getattr(value, "config", None), "kind", None)
        return value if kind is not None and (not kinds or kind in kinds) else _NONE

    return model


_KINDS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "bool": ("True or False", _bool),
    "int": ("a whole number", _int),
    "float": ("a number", _float),
    "str": ("text", _is(str)),
    "Path": ("a path", _is(os.PathLike)),
    "Callable[[float], None]": ("a function", lambda value: value if callable(value) else _NONE),
    "None": ("None", _is(type(None))),
    "Sequence[str]": ("a list of texts", _texts),
    "tuple[float, float]": ("a pair of numbers", _two_floats),
    "list[Failure]": ("a list", _is(list)),
    "Sequence[Failure]": ("a list", _is(list, tuple)),
    "dict[str, int]": ("a dictionary", _is(dict)),
    "Engine": ("an engine of dpcdvae.parallel", lambda value: value if hasattr(value, "stream") else _NONE),
    "EnergyModel": ("an EnergyModel", lambda value: value if hasattr(value, "predict") else _NONE),
    "Mapping[str, Any]": ("a mapping of names to values", _is(Mapping)),
    "Phases": ("reference phases", lambda value: value if type(value).__name__ == "Phases" else _NONE),
    "Stability": ("a Stability", lambda value: value if type(value).__name__ == "Stability" else _NONE),
    "StoredModel": ("a stored model", lambda value: value if type(value).__name__ == "StoredModel" else _NONE),
    "torch.device": ("a device", lambda value: value if type(value).__name__ == "device" else _NONE),
    "Trainable": ("a model of dpcdvae.load_model", _model()),
    "CDVAE": ("a crystal VAE of dpcdvae.load_model", _model("generative")),
    "PropertyRegressor": ("a property model", _model("regressor")),
}
"""What an annotation says in words, and the value as that kind, ``_NONE`` where it is none of it."""


def checked_value(name: str, value: Any, annotation: str) -> Any:
    """The value as its annotation has it, numbers of numpy as Python's. What the table does not know passes.

    Args:
        annotation: kinds with `` | `` between them, as they stand in a signature.

    Raises:
        InputError: a value of another kind, such as True for a number or text for a number.
    """
    kinds = annotation.split(" | ")
    if not all(kind in _KINDS for kind in kinds):
        return value
    nowhere = "Path" in kinds and isinstance(value, str) and not value  # Path("") is the present folder
    for kind in () if nowhere else kinds:
        if (found := _KINDS[kind][1](value)) is not _NONE:
            return found
    needed = " or ".join(_KINDS[kind][0] for kind in kinds if kind != "None")
    try:
        shown = one_line(repr(value))
    except ValueError:  # Python writes no integer of thousands of digits
        shown = ""
    what = shown if 0 < len(shown) <= 60 else f"a {type(value).__name__} of {len(shown) or 'thousands of'} characters"
    raise InputError(f"{name}: {needed} is needed, not {what}")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which looks at its arguments before it does anything."""
    signature = inspect.signature(function)
    kinds = {n: p.annotation for n, p in signature.parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)  # a TypeError in Python's words, as for any function
        for name, value in bound.arguments.items():
            if name in kinds:
                bound.arguments[name] = checked_value(name, value, kinds[name])
        return function(*bound.args, **bound.kwargs)

    return call
