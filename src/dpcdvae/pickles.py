"""Files that Python would unpickle, which can run any code: recognised by their first bytes, and refused."""

from __future__ import annotations

from pathlib import Path

from dpcdvae.errors import InputError

PICKLE_SUFFIXES = {".ckpt", ".pt", ".pth", ".pkl", ".bin"}


def is_pickle(path: Path) -> bool:
    """Whether a file, which must be there, begins like a pickle (protocol 2 or later) or like torch.save's zip."""
    try:
        with path.open("rb") as stream:
            head = stream.read(9)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    # A safetensors file may begin with 0x80 too: its header length, 8 bytes, then a brace.
    return head[:4] == b"PK\x03\x04" or (head[:1] == b"\x80" and head[8:9] != b"{")


def pickle_refused(path: Path) -> InputError:
    return InputError(f"{path} is a pickle: refused, dpcdvae loads only safetensors, as a pickle can run any code")
