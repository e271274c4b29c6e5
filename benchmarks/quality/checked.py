"""Files that these scripts read, checked key by key: what is unknown, missing or of the wrong kind is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from dpcdvae.errors import InputError, misfit
from dpcdvae.files import json_object, read_toml

Kind = TypeVar("Kind")

PaperData = Literal["perov_5", "carbon_24", "mp_20"]
"""The data sets of the paper."""


class Checked(BaseModel):
    """Values of these names and kinds alone."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def checked_toml(path: Path, kind: type[Kind]) -> Kind:
    return checked(read_toml(path, "file"), kind, f"{path}: ")


def checked_json(path: Path, kind: type[Kind], instead: str) -> Kind:
    return checked(json_object(path, instead), kind, f"{path}: {instead}: ")


def checked(values: Any, kind: type[Kind], where: str) -> Kind:
    """``values`` as this kind; raises InputError, which begins with ``where``, for the first that does not fit."""
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise InputError(f"{where}{misfit(error)}") from None
