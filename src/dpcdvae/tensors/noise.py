"""Random numbers by counting: crystal k draws the same, whatever the batch, the shard or the device.

A number is a hash of (seed, stream, crystal, position), with the finaliser of SplitMix64 (Steele et al.
2014) as the hash; nothing is carried along from one draw to the next.
"""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


class CrystalRandom:
    """Streams of numbers for crystals with given ``numbers`` (C,) int64 (the k of crystal k)."""

    def __init__(self, seed: int, numbers: Tensor) -> None:
        start = torch.tensor(_signed(seed % (1 << 64)), device=numbers.device)
        self._keys = _mix(_mix(start + _GOLDEN) + (numbers + 1) * _GOLDEN)

    def select(self, indices: Tensor) -> CrystalRandom:
        """The streams of some of the crystals."""
        return self._with_keys(self._keys[indices])

    def candidate(self, number: int) -> CrystalRandom:
        """Other streams for another decode of the same crystals; candidate 0 has the streams of the crystal itself."""
        return self if number == 0 else self._with_keys(_mix(self._keys + _signed(number * _GOLDEN % (1 << 64))))

    def _with_keys(self, keys: Tensor) -> CrystalRandom:
        other = object.__new__(CrystalRandom)
        other._keys = keys
        return other

    def uniform(self, stream: str, count: int, step: int = 0) -> Tensor:
        """(C, count) float64 in (0, 1), of the stream with this name and step."""
        label = _signed((zlib.crc32(stream.encode()) << 32 | step & 0xFFFFFFFF) % (1 << 64))
        keys = _mix(self._keys ^ label)
        position = torch.arange(1, count + 1, device=keys.device)
        # 52 bits, as adding one half to more would round: some numbers to 1.
        bits = _shift(_mix(keys[:, None] + position * _GOLDEN), 12)
        return (bits.double() + 0.5) * 2.0**-52

    def normal(self, stream: str, count: int, step: int = 0) -> Tensor:
        """(C, count) float64 standard normal (Box-Muller)."""
        u, v = self.uniform(stream, 2 * count, step).unflatten(1, (count, 2)).unbind(-1)
        return torch.sqrt(-2 * torch.log(u)) * torch.cos(2 * math.pi * v)
