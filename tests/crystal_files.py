"""What the tests of files share: random crystals, equality up to a rotation, one-line errors."""

from __future__ import annotations

import csv
import gzip
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dpcdvae.errors import InputError
from dpcdvae.io.cif import crystal_from_cif
from dpcdvae.structures.crystal import Crystal


def real_crystals(file: Path, count: int, *, spread: bool = False) -> list[Crystal]:
    """The first ``count`` of a data set's CSV, or as many spread evenly over it; the others are not read."""
    with gzip.open(file, "rt", newline="", encoding="utf-8") as stream:
        rows = list(itertools.islice(csv.DictReader(stream), None if spread else count))
    chosen = np.linspace(0, len(rows) - 1, count, dtype=int) if spread else np.arange(count)
    return [crystal_from_cif(rows[k]["cif"], rows[k]["material_id"]) for k in chosen]


def real_crystal(file: Path, id: str) -> Crystal:
    """The crystal with this id of a data set's CSV; the others are not read."""
    with gzip.open(file, "rt", newline="", encoding="utf-8") as stream:
        return next(crystal_from_cif(row["cif"], id) for row in csv.DictReader(stream) if row["material_id"] == id)


@st.composite
def crystals(draw: st.DrawFn) -> Crystal:
    """Any triclinic cell, also left-handed, that is not nearly flat; any id; finite properties."""
    n = draw(st.integers(1, 6))
    lattice = draw(arrays(np.float64, (3, 3), elements=st.floats(-9, 9, width=32)))
    lengths = np.linalg.norm(lattice, axis=1)
    if abs(np.linalg.det(lattice)) < max(0.05 * lengths.prod(), 1.0):
        lattice = lattice + draw(st.sampled_from([-1, 1])) * 20 * np.eye(3)
    return Crystal(
        draw(arrays(np.int64, n, elements=st.integers(1, 118))),
        draw(arrays(np.float64, (n, 3), elements=st.floats(-2, 2, width=32))),
        lattice,
        draw(st.text(min_size=1, max_size=20).filter(str.isprintable).map(lambda s: " ".join(s.split()) or "a")),
        draw(
            st.dictionaries(
                st.from_regex(r"[a-z][a-z_.]{2,8}", fullmatch=True).filter(lambda k: k != "name"),
                st.floats(-1e9, 1e9),
                max_size=3,
            )
        ),
    )


def assert_same_crystal(a: Crystal, b: Crystal, tolerance: float, *, oriented: bool = False) -> None:
    """Equal up to a proper rotation of space: no mirror image, the same atoms in the same order."""
    assert a.atomic_numbers.tolist() == b.atomic_numbers.tolist()
    if oriented:
        assert np.allclose(a.lattice, b.lattice, rtol=0, atol=tolerance)
        assert np.allclose(a.frac_coords, b.frac_coords, rtol=0, atol=tolerance)
        return
    # Left-handed cells come back as (-a, -b, -c) with -x: compare in space, after the best rotation.
    sign = np.sign(np.linalg.det(a.lattice) * np.linalg.det(b.lattice))
    u, _, vt = np.linalg.svd(a.lattice.T @ (sign * b.lattice))
    rotation = u @ vt
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    scale = max(1.0, a.lengths.max())
    assert np.allclose(a.lattice @ rotation, sign * b.lattice, rtol=0, atol=tolerance * scale)
    assert np.allclose(a.cart_coords @ rotation, b.cart_coords, rtol=0, atol=tolerance * scale)


def peer_file(path: Path, some: list[Crystal], evaluations: int = 1, **more: object) -> Path:
    torch = pytest.importorskip("torch")

    def stack(values: list[np.ndarray]) -> object:
        return torch.tensor(np.concatenate(values)).unsqueeze(0).repeat_interleave(evaluations, 0)

    content = {
        "frac_coords": stack([c.frac_coords for c in some]),
        "num_atoms": stack([np.array([c.num_atoms]) for c in some]),
        "atom_types": stack([c.atomic_numbers for c in some]),
        "lengths": stack([c.lengths[None] for c in some]),
        "angles": stack([c.angles[None] for c in some]),
        **more,
    }
    torch.save(content, path)
    return path


def message(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)
