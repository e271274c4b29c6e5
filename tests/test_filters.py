"""Filters: the first crystals that pass are kept, whatever the batches, with their numbers, and the yield is said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import dpcdvae
from dpcdvae.checkpoints.checkpoint import write_checkpoint
from dpcdvae.cli import main
from dpcdvae.errors import InputError
from dpcdvae.io import Failure, read
from dpcdvae.parallel import HERE
from dpcdvae.parallel.results import Results
from dpcdvae.sampling import kinds
from dpcdvae.sampling.atom_conditions import AtomConditions
from dpcdvae.sampling.filters import Filters, Selected, Selection, distinct
from dpcdvae.sampling.finished_batches import GenerationResult, Parts
from dpcdvae.sampling.target import Target
from dpcdvae.structures import duplicates
from dpcdvae.structures.crystal import LATENT_DISTANCE, Crystal
from dpcdvae.structures.duplicates import first_of_each
from tensors import cubic, random_crystal, tiny_model

RESULTS = Results(HERE, 60.0)


def entry(k: int) -> Crystal | Failure:
    """Crystal number k of a made-up run: some fail, sizes differ, and structures come back."""
    if k % 11 == 7:
        return Failure(f"3-{k}", "sampling", "no cell")
    return random_crystal(k % 13, 2 + k % 5).with_id(f"3-{k}")


def part(numbers: Sequence[int]) -> GenerationResult:
    found = [entry(k) for k in numbers]
    return GenerationResult(
        [one for one in found if isinstance(one, Crystal)], [one for one in found if isinstance(one, Failure)], 1
    )


@pytest.mark.parametrize(
    "filters", [Filters(AtomConditions(sizes=(3, 4))), Filters(unique=True)], ids=["sizes", "unique"]
)
@pytest.mark.parametrize("n", [1, 9, 1000])
def test_the_first_that_pass_are_kept_whatever_the_batches(filters: Filters, n: int) -> None:
    built = [one for one in map(entry, range(90)) if isinstance(one, Crystal)]
    good = [k for k, one in enumerate(built) if one.num_atoms in (3, 4)]
    passing = [built[k].id for k in (first_of_each(built, RESULTS)[0] if filters.unique else good)]
    assert 9 < len(passing) < len(built)
    passing = passing[:n]
    tried = int(passing[-1][2:]) + 1 if len(passing) == n else 90
    for size in (1, 7, 90):
        selection = Selection(filters, n, RESULTS)
        batches = [range(start, min(start + size, 90)) for start in range(0, 90, size)]
        while batches and not selection.done:
            selection.add(part(batches.pop(0)) for _ in range(min(2, len(batches))))
        result = selection.result()
        assert [crystal.id for crystal in result.crystals] == passing
        assert (result.tried, result.asked) == (tried, n)
        assert result.tried == len(result.crystals) + sum(result.rejected.values())
        assert result.rejected.get("not built", 0) == sum(isinstance(entry(k), Failure) for k in range(tried))


def test_each_filter_keeps_what_it_says() -> None:
    diamond, bcc, odd = cubic("diamond", 3.567), cubic("bcc", 3.0), random_crystal(1)
    far = Crystal(odd.atomic_numbers, odd.frac_coords, odd.lattice, "far", {LATENT_DISTANCE: 3.0, "predicted_gap": 1.0})
    crystals = [diamond, bcc, odd, far]
    target = Target("gap", 1.2, 0.25, "predicted_gap", guided=True)
    for filters, kept in (
        (Filters(space_group=227), [True, False, False, False]),
        (Filters(training=[cubic("bcc", 3.1), random_crystal(2)]), [True, False, True, True]),
        (Filters(max_latent_distance=3.0), [False, False, False, True]),
        (Filters(max_latent_distance=2.9), [False] * 4),
        (Filters(target=target), [False, False, False, True]),
        (Filters(AtomConditions(elements=(6,)), space_group=229), [False, True, False, False]),
    ):
        assert bool(filters)
        assert [reason is None for reason in filters.reasons(crystals, RESULTS)] == kept
    assert not Filters()
    assert distinct([diamond, bcc, diamond, bcc, diamond], RESULTS) == 2


def toy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model of a kind that can be asked for nothing; crystal k has 1 + k % 4 atoms."""

    def make(model: Any, n: int, *, seed: int, first: int, **_: Any) -> GenerationResult:
        made = [random_crystal(k, 1 + k % 4).with_id(f"{seed}-{k}") for k in range(first, first + n)]
        return GenerationResult(made, [])

    kind = kinds.SampledKind("a toy", "toy", frozenset(), None, lambda model, task, asked: dict(asked))
    monkeypatch.setitem(kinds.SAMPLED_KINDS, "toy", kind)
    monkeypatch.setattr(kinds, "module_of", lambda kind: SimpleNamespace(generate=make))
    options = SimpleNamespace(max_atoms=8, property="")
    return SimpleNamespace(config=SimpleNamespace(kind="toy", model=options), source=None, device="cpu")


def test_a_kind_that_cannot_be_conditioned_is_filtered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = toy(monkeypatch)
    result = dpcdvae.generate(model, 5, seed=9, num_atoms=3, batch_size=2)
    assert isinstance(result, Selected)
    assert [crystal.id for crystal in result.crystals] == ["9-2", "9-6", "9-10", "9-14", "9-18"]
    assert result.words() == "kept 5 of 19 tried (not kept: 14 another number of atoms)"
    few = dpcdvae.generate(model, 5, num_atoms=3, max_tries=7)
    assert isinstance(few, Selected)
    assert (len(few.crystals), few.tried) == (2, 7)
    assert "fewer than the 5 asked for: kept 2 of 7 tried" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"kept 0 of 10 tried \(not kept: 10 other elements\)"):
        dpcdvae.generate(model, 5, elements="H", max_tries=10)
    with pytest.raises(InputError, match="--max-latent-distance has no meaning for the model, a toy"):
        dpcdvae.generate(model, 5, max_latent_distance=1.0)
    with pytest.raises(InputError, match="--max-tries 4 is less than the 5"):
        dpcdvae.generate(model, 5, elements="H", max_tries=4)


def test_duplicates_that_others_hide_are_found_once_those_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the two before a crystal are compared with it, as only the nearest are of very many."""

    def two_before(crystals: Sequence[Crystal], results: Results) -> duplicates.Duplicates:
        near = [[j for j in (k - 2, k - 1) if j >= 0] for k in range(len(crystals))]
        same = [[j for j in places if crystals[j].formula == crystals[k].formula] for k, places in enumerate(near)]
        return duplicates.Duplicates([places[0] if places else None for places in same], 0, {})

    monkeypatch.setattr(duplicates, "find_duplicates", two_before)
    one, other = random_crystal(1, elements=(6,)), random_crystal(2, elements=(8,))
    assert duplicates.first_of_each([one, other, other, other, one], RESULTS) == ([0, 1], {})


# in one command


RUN = ["generate", "model", "-n", "6", "--seed", "5", "--steps", "2", "--batch-size", "4", "--workers", "0"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filters")
    model = tiny_model(torch.float32)
    write_checkpoint(folder / "model", model.state_dict(), model.config.model_dump(mode="json"), {})
    return folder


def test_kept_crystals_are_those_of_the_plain_run_and_a_stopped_run_goes_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    plain, out = tmp_path / "plain.json", tmp_path / "kept.json"
    assert main([*RUN, "-n", "32", "--out", str(plain)]) == 0
    everything = read(plain)
    median = float(np.median([crystal.properties[LATENT_DISTANCE] for crystal in everything]))
    near = [c for c in everything if c.properties[LATENT_DISTANCE] <= median][:6]
    filtered = [*RUN, "--max-latent-distance", str(median), "--out", str(out)]
    add, times = Parts.add, []

    def stop_at_the_second(*arguments: Any) -> None:
        times.append(arguments)
        if len(times) == 2:
            raise KeyboardInterrupt
        add(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "add", stop_at_the_second)
        assert main(filtered) == 130
    assert main(filtered) == 0
    kept = read(out)
    assert [crystal.id for crystal in kept] == [crystal.id for crystal in near]
    for one, other in zip(kept, near, strict=True):
        assert np.array_equal(one.frac_coords, other.frac_coords)
    facts = json.loads(Path(f"{out}.manifest.json").read_text())
    assert facts["tried"] == int(near[-1].id[2:]) + 1
    assert facts["rejected"] == {"latent distance too large": facts["tried"] - 6}
    assert f"kept 6 of {facts['tried']} tried" in capsys.readouterr().out


def test_shards_keep_their_share_of_their_own_numbers(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    numbers: list[int] = []
    for k in (1, 2):
        out = tmp_path / f"{k}.json"
        assert main([*RUN, "--neutral", "--max-tries", "16", "--shard", f"{k}/2", "--out", str(out)]) == 0
        found = [int(crystal.id[2:]) for crystal in read(out)] if out.exists() else []
        assert len(found) <= 3
        assert all(8 * (k - 1) <= number < 8 * k for number in found)
        numbers += found
    assert numbers == sorted(set(numbers))
    assert main([*RUN, "--space-group", "230", "--max-tries", "8", "--out", str(tmp_path / "none.json")]) == 2
    assert "kept 0 of 8 tried (not kept: 8 another space group)" in capsys.readouterr().err
    assert not (tmp_path / "none.json").exists()
