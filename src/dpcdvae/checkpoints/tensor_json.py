"""Nested Python values <-> JSON and a flat table of tensors, without pickle.

JSON holds what it can; the rest becomes an object with one key:
``{"$tuple": [...]}``, ``{"$set": [...]}``, ``{"$dict": [[key, value], ...]}`` (keys that are no strings),
``{"$float": "nan"}``, ``{"$tensor": name}`` and ``{"$bytes": name, "dtype": ..., "shape": ...}`` (a tensor
of a dtype that safetensors may not know).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor

# What every safetensors version stores; other dtypes go as their bytes.
_FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
_INTEGERS = {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8}
_PLAIN_DTYPES = _FLOATS | _INTEGERS | {torch.bool}


def split(value: Any, name: str) -> tuple[Any, dict[str, Tensor]]:
    """``value`` as JSON, and its tensors by their path below ``name``.

    Dicts (str or int keys), lists, tuples, sets, str, int, float (inf and nan too), bool, None and tensors
    come back from :func:`join` equal and of the same type; paths come back as str, and subclasses
    (OrderedDict, named tuples, NumPy's float64) as the type they derive from.

    Raises:
        TypeError: anything else, with its path.
    """
    tensors: dict[str, Tensor] = {}
    return _encode(value, name, tensors), tensors


def join(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of :func:`split`.

    Raises:
        KeyError: a tensor that ``value`` names is missing.
        ValueError: ``value`` is none of what :func:`split` writes.
    """
    if isinstance(value, list):
        return [join(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "")
    if not tag.startswith("$"):
        return {key: join(item, tensors) for key, item in value.items()}
    content = value[tag]
    match tag:
        case "$tuple":
            return tuple(join(item, tensors) for item in content)
        case "$set":
            return {join(item, tensors) for item in content}
        case "$dict":
            return {key: join(item, tensors) for key, item in content}
        case "$float":
            return float(content)
        case "$tensor":
            return tensors[content]
        case "$bytes":
            return _from_bytes(tensors[content], value["dtype"], value["shape"])
    raise ValueError(f"unknown tag '{tag}'")


def compact(tensor: Tensor, path: str = "tensor") -> Tensor:
    """A dense copy on the CPU that shares memory with nothing, as safetensors wants it."""
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise TypeError(f"{path}: a sparse or quantised tensor cannot be stored")
    return tensor.detach().to("cpu", copy=True).contiguous()


def _encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str | int):
        return str(value) if isinstance(value, str) else int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
    if isinstance(value, Tensor):
        return _encode_tensor(value, path, tensors)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, list):
        return _encode_items(value, path, tensors)
    if isinstance(value, tuple):
        return {"$tuple": _encode_items(value, path, tensors)}
    if isinstance(value, set):
        return {"$set": [_encode(item, f"{path}.{{{item!r}}}", tensors) for item in value]}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str | int):
                raise TypeError(f"{path}: a key of type {type(key).__name__} cannot be stored")
        encoded = {key: _encode(item, f"{path}.{key}", tensors) for key, item in value.items()}
        plain = all(isinstance(key, str) and not key.startswith("$") for key in encoded)
        return encoded if plain else {"$dict": [[key, item] for key, item in encoded.items()]}
    raise TypeError(f"{path}: a value of type {type(value).__module__}.{type(value).__qualname__} cannot be stored")


def _encode_items(values: list[Any] | tuple[Any, ...], path: str, tensors: dict[str, Tensor]) -> list[Any]:
    return [_encode(item, f"{path}.{i}", tensors) for i, item in enumerate(values)]


def _encode_tensor(tensor: Tensor, path: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    name = path
    while name in tensors:  # the keys 1 and "1" of one dict, or "a.b" and a, b
        name += "'"
    dense = compact(tensor, path)
    if dense.dtype in _PLAIN_DTYPES:
        tensors[name] = dense
        return {"$tensor": name}
    tensors[name] = dense.reshape(-1).view(torch.uint8)
    return {"$bytes": name, "dtype": str(dense.dtype).removeprefix("torch."), "shape": list(dense.shape)}


def _from_bytes(content: Tensor, dtype: str, shape: list[int]) -> Tensor:
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise ValueError(f"this torch has no dtype '{dtype}'")
    return content.view(kind).reshape(shape)
