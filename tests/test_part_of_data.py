"""A part of a data set: fewer training crystals, all others as they were, under a name that says so."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

import part_of_data
from dpcdvae.datasets import dataset_file, load_dataset
from dpcdvae.errors import InputError
from dpcdvae.structures.table import save_tables


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    prototypes = load_dataset("prototypes")
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path))
    dataset_file("some").parent.mkdir()
    save_tables(dataset_file("some"), prototypes.tables, {**prototypes.metadata, "name": "some"})
    return "some"


@pytest.mark.parametrize("every", [1, 3, 10])
def test_only_training_crystals_are_left_out(whole: str, every: int) -> None:
    before, after = load_dataset(whole), load_dataset(part_of_data.part(whole, every))
    assert after.name == f"{whole}-1in{every}"
    assert list(after["train"].ids) == list(before["train"].ids)[::every]
    for split in ("val", "test"):
        assert list(after[split].ids) == list(before[split].ids)
        np.testing.assert_array_equal(after[split].frac_coords, before[split].frac_coords)
    assert after.metadata["notes"]["train"] == f"1 of {every} crystals"


def test_a_data_set_that_is_there_stays(whole: str) -> None:
    part_of_data.part(whole, 2)
    with pytest.raises(InputError):
        part_of_data.part(whole, 2)
    assert part_of_data.part(whole, 2, overwrite=True) == f"{whole}-1in2"


def test_what_cannot_be_divided_is_refused(whole: str) -> None:
    for data, every in (("nothing", 2), (whole, 10**400)):
        with pytest.raises(InputError):
            part_of_data.part(data, every)


def test_what_was_known_of_the_training_split_stays_known(whole: str) -> None:
    part = part_of_data.part(part_of_data.part(whole, 2), 3)
    assert load_dataset(part).metadata["notes"]["train"] == "1 of 2 crystals, 1 of 3 crystals"
