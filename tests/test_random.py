"""Counted random numbers: crystal k draws the same in any company, and what it draws looks random."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dpcdvae.tensors.noise import CrystalRandom

CRYSTALS = torch.arange(2000)


def test_crystal_k_draws_the_same_in_any_batch() -> None:
    everyone = CrystalRandom(3, torch.arange(1000))
    some = torch.tensor([999, 0, 17, 500])
    few = CrystalRandom(3, some)
    for draw in ("uniform", "normal"):
        numbers = getattr(everyone, draw)("prior", 12, 7)
        assert getattr(few, draw)("prior", 12, 7).equal(numbers[some])
        shard = CrystalRandom(3, torch.arange(500, 1000))
        assert getattr(shard, draw)("prior", 12, 7).equal(numbers[500:])


def test_longer_draws_begin_like_shorter_ones() -> None:
    """A crystal's noise must not depend on how many atoms its neighbours in the batch have."""
    random = CrystalRandom(0, torch.arange(50))
    for draw in (random.uniform, random.normal):
        assert draw("step", 60)[:, :9].equal(draw("step", 9))


def test_nothing_is_carried_from_draw_to_draw() -> None:
    random = CrystalRandom(0, torch.arange(5))
    first = random.normal("a", 6)
    random.uniform("b", 100)
    assert random.normal("a", 6).equal(first)


def test_streams_steps_seeds_and_crystals_differ() -> None:
    draws = [
        CrystalRandom(seed, torch.tensor([k])).uniform(stream, 8, step)[0]
        for seed in (0, 1, -1, 2**31, 2**63, 2**64 - 2)
        for k in (0, 1, 10**12)
        for stream in ("prior", "step", "")
        for step in (0, 1, 999)
    ]
    values = torch.stack(draws).flatten()
    assert len(values.unique()) == len(values)


def test_numbers_stay_as_they_are() -> None:
    """Generated crystals are named by seed and number, so the numbers are part of the format."""
    random = CrystalRandom(42, torch.tensor([0, 7]))
    expected = [_reference(42, k, "prior", position, 3) for k in (0, 7) for position in (1, 2)]
    assert random.uniform("prior", 2, 3).flatten().tolist() == expected


def _reference(seed: int, crystal: int, stream: str, position: int, step: int) -> float:
    """The same hash in whole numbers of any size: SplitMix64's finaliser on (seed, crystal), stream, position."""
    import zlib

    top = 1 << 64
    golden = 0x9E3779B97F4A7C15

    def mix(x: int) -> int:
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % top
        x = (x ^ x >> 27) * 0x94D049BB133111EB % top
        return x ^ x >> 31

    key = mix((mix((seed + golden) % top) + (crystal + 1) * golden) % top)
    key = mix(key ^ (zlib.crc32(stream.encode()) << 32 | step))
    return ((mix((key + position * golden) % top) >> 12) + 0.5) * 2.0**-52


def test_hash_is_splitmix64() -> None:
    """The published test vector: seed 1234567, first outputs (Vigna's splitmix64.c)."""
    from dpcdvae.tensors.noise import _GOLDEN, _mix

    states = torch.tensor(1234567) + torch.arange(1, 6) * _GOLDEN
    outputs = [value % (1 << 64) for value in _mix(states).tolist()]
    assert outputs == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_uniform_numbers_are_uniform(seed: int) -> None:
    from scipy.stats import kstest

    numbers = CrystalRandom(seed, CRYSTALS).uniform("any", 50)
    assert numbers.dtype == torch.float64
    assert ((numbers > 0) & (numbers < 1)).all()
    flat = numbers.flatten().numpy()
    assert kstest(flat, "uniform").pvalue > 1e-3
    for power in (1, 2, 3):
        spread = np.sqrt((1 / (2 * power + 1) - 1 / (power + 1) ** 2) / flat.size)
        assert abs((flat**power).mean() - 1 / (power + 1)) < 4 * spread


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_normal_numbers_are_normal(seed: int) -> None:
    from scipy.stats import kstest

    flat = CrystalRandom(seed, CRYSTALS).normal("any", 50).flatten().numpy()
    assert np.isfinite(flat).all()
    assert kstest(flat, "norm").pvalue > 1e-3
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((flat**power).mean() - moment) < 4 * np.sqrt(spread / flat.size)


def test_neighbours_of_every_kind_are_independent() -> None:
    """Next crystal, next position, next step, next seed, another stream: no correlation beyond chance."""
    base = CrystalRandom(5, CRYSTALS)
    here = base.normal("prior", 50)
    others = {
        "crystal": CrystalRandom(5, CRYSTALS + 1).normal("prior", 50),
        "seed": CrystalRandom(6, CRYSTALS).normal("prior", 50),
        "step": base.normal("prior", 50, 1),
        "stream": base.normal("step", 50),
        "position": here.roll(1, 1),
        "seed and crystal": CrystalRandom(4, CRYSTALS + 1).normal("prior", 50),
    }
    for name, there in others.items():
        for a, b in ((here, there), (here.square() - 1, there.square() - 1)):
            correlation = float((a * b).mean() / (a.std() * b.std()))
            assert abs(correlation) < 4 / np.sqrt(here.numel()), name


def test_bits_of_neighbours_differ_by_half() -> None:
    """One more in the seed or the number turns every bit over with probability one half."""
    first = CrystalRandom(0, CRYSTALS).uniform("a", 1)[:, 0]
    for other in (CrystalRandom(1, CRYSTALS), CrystalRandom(0, CRYSTALS + 1)):
        changed = (first * 2**52).long() ^ (other.uniform("a", 1)[:, 0] * 2**52).long()
        share = torch.stack([(changed >> bit & 1).double().mean() for bit in range(52)])
        assert (share - 0.5).abs().max() < 0.06
