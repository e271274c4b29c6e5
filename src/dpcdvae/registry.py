"""Tables of components by name: one entry is all it takes to add a variant."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Generic, TypeVar

from dpcdvae.errors import InputError, unknown_name

T = TypeVar("T")

MOST = 1_000_000  # of whatever an option counts: widths, layers, passes


class Registry(Mapping[str, T], Generic[T]):
    """A read-only mapping for its users; modules add to it with :meth:`register`.

    Asking for a name that is not there raises :class:`~dpcdvae.errors.InputError` with the
    choices and the nearest name, so no caller has to check.
    """

    def __init__(self, kind: str, entries: Mapping[str, T] | None = None) -> None:
        self.kind = kind
        self._entries: dict[str, T] = dict(entries or {})

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files a class or function under ``name``."""

        def add(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            raise unknown_name(self.kind, name, self._entries) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """Of a component that has none."""


def build_options(cls: type[T], values: Mapping[str, Any], component: str, may_be_zero: Collection[str] = ()) -> T:
    """The options dataclass of a component from plain values (a preset's ``options`` table).

    Raises:
        InputError: an option the component does not have (the nearest is offered), of another type, or
            a number below its range: above zero, or from zero for those in ``may_be_zero``.
    """
    defaults = {item.name: item.default for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name, value in values.items():
        if name not in defaults:
            raise unknown_name(f"option of {component}", name, defaults)
        kind = type(defaults[name])
        fits = isinstance(value, list if kind is tuple else kind) and not (kind is int and isinstance(value, bool))
        if not fits and not (kind is float and type(value) is int):
            raise InputError(f"option {name} of {component} must be of type {kind.__name__}, not {value!r}")
        if kind in (int, float) and not (0 < value < math.inf or (value == 0 and name in may_be_zero)):
            least = "0 or more" if name in may_be_zero else "above 0"
            raise InputError(f"option {name} of {component} must be {least}, not {value!r}")
        if kind is int and value > MOST:
            raise InputError(f"option {name} of {component} must be at most {MOST}, not {value!r}")
    return cls(**{name: _converted(value, defaults[name]) for name, value in values.items()})


def _converted(value: Any, default: Any) -> Any:
    """TOML writes lists for tuples, and integers where a float is meant."""
    if isinstance(value, list):
        return tuple(value)
    return float(value) if isinstance(default, float) else value
