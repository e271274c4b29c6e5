"""Files that other programs wrote with ``torch.save``, read without running any code from them."""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError, one_line
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

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Dictionary:
    """Stands for a dictionary of a class of its own, such as a ``defaultdict``: an ordered one with its items."""

    def __new__(cls, *_: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


def load_torch(stream: IO[bytes]) -> Any:
    """The content of a ``torch.save`` file: tensors (on the CPU), plain values and :class:`Inert` objects.

    Raises:
        InputError: it is cut off, damaged, no such file (PyTorch 1.6 or later, a zip inside), a TorchScript program,
            or calls for what torch refuses to any file that is not trusted.
    """
    import torch

    try:
        if not zipfile.is_zipfile(stream):
            raise InputError("refused: cut off, or not written by torch.save (1.6 or later)")
        with zipfile.ZipFile(stream) as archive:
            check_claims(archive, stream.seek(0, 2))
            # torch would hand such a file, a program, to its own interpreter.
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise InputError("a TorchScript program: refused; the tensors or a state_dict are needed")
        stream.seek(0)
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(stream)  # type: ignore[arg-type]
        stand_ins = [(_Dictionary if name.lower().endswith("dict") else Inert, name) for name in foreign]
        stream.seek(0)
        with torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
            return torch.load(stream, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # whatever zipfile and torch meet in arbitrary bytes
        raise InputError(f"refused: damaged, or no file of tensors ({one_line(error)[:200]})") from None


def as_numpy(tensor: Tensor, name: str) -> npt.NDArray[Any]:
    """A tensor as an array, floating point as float64 (numpy has no bfloat16).

    Raises:
        InputError: a sparse, quantised, nested or complex tensor, one without values, or one that claims more
            numbers than it stores.
    """
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested or tensor.is_complex():
        raise InputError(f"{name} is a sparse, quantised, nested or complex tensor: save a dense one")
    if tensor.device.type != "cpu":
        raise InputError(f"{name} is a tensor without values (device '{tensor.device}')")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InputError(f"{name} claims {tensor.numel()} numbers, more than it stores: save a contiguous tensor")
    tensor = tensor.detach()
    return np.asarray((tensor.double() if tensor.is_floating_point() else tensor).numpy())
