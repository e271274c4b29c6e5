"""Crystals that a model cannot hold, or has not learnt, among those that it is given to reconstruct."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dpcdvae.checkpoints.loading import load_model
from dpcdvae.cli import main
from dpcdvae.datasets import load_split
from dpcdvae.errors import InputError
from dpcdvae.io import write
from dpcdvae.sampling.reconstruction import reconstruct
from dpcdvae.structures.crystal import Crystal
from tensors import random_crystal, table_of

NaCl = Crystal(np.array([11, 17]), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), 3.4 * np.eye(3), "nacl")


def test_a_crystal_beyond_the_forced_size_is_counted_and_the_others_come_back() -> None:
    model = load_model("perov-5-compact")
    few = list(load_split("prototypes:val"))[:3]
    large = random_crystal(9, 24, side=12)
    found = reconstruct(model, table_of([large, *few], bonded=True), steps=2, force_num_atoms=True)
    alone = reconstruct(model, table_of(few, bonded=True), steps=2, force_num_atoms=True)
    assert [c.id for c in found] == [c.id for c in alone]
    assert [(f.id, f.reason) for f in found.failures[:1]] == [
        ("random-9", "it has 24 atoms; this model holds at most 20")
    ]
    with pytest.raises(InputError, match="none of 2 crystals can be reconstructed: random-9 has 24 atoms"):
        reconstruct(model, table_of([random_crystal(1, 22, side=12), large], bonded=True), steps=2, force_types=True)


def test_elements_and_sizes_that_were_not_in_training_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No latent stands for them: the crystal comes back as another one."""
    monkeypatch.chdir(tmp_path)
    write([NaCl, *list(load_split("prototypes:val"))[:1]], Path("some.extxyz"))
    line = ["reconstruct", "perov-5-compact", "some.extxyz", "--steps", "2", "--workers", "0", "--batch-size", "1"]
    main([*line, "--out", "again.extxyz"])
    notes = [said for said in capsys.readouterr().err.splitlines() if said.startswith("note: ")]
    assert len(notes) == 1
    assert "perov-5-compact was trained without Cl and without cells of 1, 2 atoms" in notes[0]
    reconstruct(load_model("perov-5-compact"), [NaCl], steps=2)
    assert capsys.readouterr().err.count("trained without Cl") == 1
