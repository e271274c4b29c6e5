"""Files that other programs wrote with ``torch.save``, read without running any code from them."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpcdvae.errors import InputError

# What a damaged or hostile file can raise on its way through the unpickler.
_DAMAGE = (
    pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, ArithmeticError, AssertionError, AttributeError,
    EOFError, LookupError, MemoryError, TypeError, ValueError,
)  # fmt: skip


class Inert:
    """Stands for an object of any class that is not a tensor or a plain Python value.

    It takes what a pickle gives such an object and does nothing with it: ``state`` is the state that the
    object was to have (None if it had none).
    """

    state: Any = None

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Whatever it was to be called with is ignored."""

    def __call__(self, *_: Any, **__: Any) -> Inert:
        return Inert()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, *_: Any) -> None:
        """Items of a dictionary of a class of its own."""

    def append(self, *_: Any) -> None:
        """Items of a list or set of a class of its own."""

    extend = add = append


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        """Tensors and ordered dictionaries are what they are; everything else, functions included, is inert.

        torch itself turns the names of its storages into records of their type before it asks here.
        """
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return _rebuild_tensor() if name == "_rebuild_tensor_v2" else _rebuild_parameter()
        return Inert


class _InertPickle:
    """What torch.load asks of a pickle module."""

    Unpickler = _Unpickler


def _rebuild_tensor() -> Callable[..., Tensor]:
    # A function of its own for each file: a pickle can write attributes on what it is given.
    def rebuild(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
        return torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage, offset, size, stride)

    return rebuild


def _rebuild_parameter() -> Callable[..., Tensor]:
    def rebuild(data: Tensor, *_: Any) -> Tensor:
        return data

    return rebuild


def read_pickle(path: str | Path) -> Any:
    """The content of a ``torch.save`` file: tensors (on the CPU), plain values and :class:`Inert` objects.

    Raises:
        InputError: it cannot be read, is cut off, or is no such file (PyTorch 1.6 or later, a zip inside).
    """
    path = Path(path)
    try:
        if not zipfile.is_zipfile(path):
            raise InputError(f"{path} is cut off or was not written by torch.save (1.6 or later): download it again")
        with zipfile.ZipFile(path) as archive:
            # torch would hand such a file, a program, to its own interpreter.
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise InputError(f"{path} is a TorchScript program: refused; a checkpoint with a state_dict is needed")
        return torch.load(path, map_location="cpu", pickle_module=_InertPickle, weights_only=False)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(f"{path} is damaged ({_first_line(error)}): download it again") from None


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
