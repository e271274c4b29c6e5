"""The atoms that a space group makes of one site, whatever the number of digits it is printed with."""

from __future__ import annotations

import itertools
from functools import cache

import gemmi
import numpy as np
import pytest

from dpcdvae.errors import InputError
from dpcdvae.io.cif_symmetry import _setting
from dpcdvae.io.special_positions import Operations, orbit, printed_error

GENERAL = (0.1373, 0.2191, 0.4127)
"""Far from all special positions, as seen with two digits."""


@cache
def special_positions(name: str) -> list[np.ndarray]:
    """Points of a setting that one operation or two of them, each with a shift of the lattice, leave in place."""
    group = _setting(name)
    rng = np.random.default_rng(group.number)
    points: dict[tuple[float, ...], np.ndarray] = {}
    for number in range(60 if len(group) > 1 else 0):
        means = [np.eye(4)]
        for k in rng.integers(1, len(group), 1 + number % 2):
            means.append(np.eye(4))
            means[-1][:3, :3] = group.rotations[k]
            means[-1][:3, 3] = group.translations[k] + rng.integers(-1, 2, 3)
        # The mean over a group of operations fixes a point; that of some, again and again, goes there.
        point = (np.linalg.matrix_power(np.mean(means, axis=0), 256) @ [*GENERAL, 1])[:3]
        if all(np.abs((mean @ [*point, 1])[:3] - point).max() < 1e-9 for mean in means):
            points[tuple(np.round(np.mod(point, 1), 5))] = point
    return list(points.values())[:12]


def exact_images(point: np.ndarray, group: Operations) -> np.ndarray:
    images = group.rotations @ point + group.translations
    apart = images[:, None] - images[None]
    same = np.abs(apart - np.round(apart)).max(-1) < 1e-6
    return images[same.argmax(1) == np.arange(len(images))]


def nearest(images: np.ndarray) -> float:
    """The smallest distance of two images, in fractions of a cell."""
    apart = images[:, None] - images[None]
    distances = np.abs(apart - np.round(apart)).max(-1)
    return float(distances[~np.eye(len(images), dtype=bool)].min(initial=1.0))


def printed(value: float, digits: int, cut: bool) -> str:
    scaled = value * 10**digits + 1e-9
    return f"{(np.floor(scaled) if cut else np.round(scaled)) / 10**digits:.{digits}f}"


@pytest.mark.parametrize("digits", [2, 3, 4, 5])
def test_special_positions_of_all_groups_keep_their_number_of_atoms(digits: int) -> None:
    """Rounded or cut, as programs do; the atoms stand where the exact ones do."""
    tried = 0
    for entry in gemmi.spacegroup_table():
        if not entry.is_reference_setting() and entry.ext != "R":
            continue
        group = _setting(entry.xhm())
        for point in special_positions(entry.xhm()):
            exact = exact_images(point, group)
            if nearest(exact) < 0.05:  # two atoms where two digits cannot tell them apart
                continue
            for cut in (False, True):
                texts = [printed(value, digits, cut) for value in np.mod(point, 1)]
                found = orbit(np.array(texts, float), printed_error(texts), group)
                assert len(found) == len(exact), (entry.xhm(), point, texts)
                apart = found[:, None] - exact[None]
                error = np.abs(apart - np.round(apart)).max(-1).min(1).max()
                assert error < 3 * 10**-digits, (entry.xhm(), point, texts)
                tried += 1
    assert tried > 2000


def test_general_positions_stay_as_printed() -> None:
    group = _setting("P 63/m m c")
    texts = ["0.1373", "0.2191", "0.4127"]
    found = orbit(np.array(texts, float), printed_error(texts), group)
    assert len(found) == 24
    assert found[0].tolist() == [0.1373, 0.2191, 0.4127]


def test_a_site_off_a_mirror_by_more_than_its_digits_is_two_atoms() -> None:
    """A polar or dimerised crystal keeps its distortion."""
    group = _setting("P -1")
    for text in ("0.01", "0.001", "0.0001"):
        assert len(orbit(np.array([float(text), 0, 0]), printed_error([text, "0", "0"]), group)) == 2
    assert len(orbit(np.array([0.0, 0, 0]), printed_error(["0.00", "0", "0"]), group)) == 1


def test_a_special_position_is_taken_exactly() -> None:
    group = _setting("P 63/m m c")
    texts = ["0.333", "0.667", "0.25"]
    found = orbit(np.array(texts, float), printed_error(texts), group)
    assert np.allclose(found, [[1 / 3, 2 / 3, 1 / 4], [2 / 3, 1 / 3, 3 / 4]], rtol=0, atol=1e-12)


def test_positions_that_exclude_one_another_are_refused_or_distinguished() -> None:
    """Digits so coarse that a site may lie on either of two axes: an answer with a consistent orbit, or a refusal."""
    group = _setting("I a -3 d")
    for x, y, z in itertools.product(("0.12", "0.13", "0.06"), repeat=3):
        refused = ""
        try:
            found = orbit(np.array([float(x), float(y), float(z)]), printed_error([x, y, z]), group)
        except InputError as error:
            refused = str(error)
        assert "give more digits" in refused or len(group) % len(found) == 0
        assert refused or nearest(found) > 1e-6
