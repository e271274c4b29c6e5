"""Files that other programs wrote with ``torch.save``, read without running any code from them.

Not by ``torch.load(weights_only=True)`` with stand-ins among its safe globals: it refuses dictionaries and lists of
classes of their own (omegaconf's and Lightning's, in CDVAE's checkpoints). The unpickler is Python's, not the one in C,
which allocates memory for as many memo entries as a file claims.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError, reason_of
from dpcdvae.io.sources import check_claims

if TYPE_CHECKING:
    from torch import Tensor


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


class _Unpickler(pickle._Unpickler):
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
    """A pickle module, as far as torch.load needs one."""

    Unpickler = _Unpickler


def _rebuild_tensor() -> Callable[..., Tensor]:
    import torch

    # A function of its own for each file: a pickle can write attributes on what it is given.
    def rebuild(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
        return torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage, offset, size, stride)

    return rebuild


def _rebuild_parameter() -> Callable[..., Tensor]:
    def rebuild(data: Tensor, *_: Any) -> Tensor:
        return data

    return rebuild


def load_torch(stream: IO[bytes]) -> Any:
    """The content of a ``torch.save`` file: tensors (on the CPU), plain values and :class:`Inert` objects.

    Sparse, quantised and nested tensors, and those without values, are inert too. A tensor may claim more numbers than
    the file holds, by strides of 0: ask :func:`holds_its_numbers`.

    Raises:
        InputError: it is cut off, damaged, no such file (PyTorch 1.6 or later, a zip inside), or a TorchScript program.
    """
    import torch

    try:
        if not zipfile.is_zipfile(stream):
            raise InputError("cut off, or not written by torch.save (1.6 or later)")
        with zipfile.ZipFile(stream) as archive:
            check_claims(archive, stream.seek(0, 2))
            # torch would hand such a file, a program, to its own interpreter.
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise InputError("a TorchScript program: refused; the tensors or a state_dict are needed")
        stream.seek(0)
        return torch.load(stream, map_location="cpu", pickle_module=_InertPickle, weights_only=False)
    except InputError:
        raise
    except Exception as error:  # whatever zipfile, pickle and torch meet in arbitrary bytes
        raise InputError(f"damaged, or no file of torch.save ({reason_of(error)})") from None


def holds_its_numbers(tensor: Tensor) -> bool:
    """Whether a tensor has no more numbers than are stored."""
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def load_arrays(stream: IO[bytes], names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Tensors of a dictionary by name, as arrays; floating point as float64 (numpy has no bfloat16).

    Raises:
        InputError: as :func:`load_torch`; no dictionary, a tensor that is missing, not a dense one of real numbers, or
            that claims more numbers than the file stores.
    """
    import torch

    content = load_torch(stream)
    if not isinstance(content, dict):
        raise InputError(f"a dictionary of tensors is needed, found a {type(content).__name__}")
    arrays = {}
    for name in names:
        tensor = content.get(name)
        if not isinstance(tensor, torch.Tensor):
            found = ", ".join(map(str, content))[:200]
            raise InputError(f"no tensor {name} of stored numbers, dense and not quantised (found {found})")
        if not holds_its_numbers(tensor):
            raise InputError(f"{name} claims {tensor.numel()} numbers, more than it stores: save a contiguous tensor")
        if tensor.is_complex():
            raise InputError(f"{name} is complex")
        arrays[name] = np.asarray((tensor.double() if tensor.is_floating_point() else tensor).numpy())
    return arrays
