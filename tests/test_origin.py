"""What a copy of a published data set says of itself: as published, in other bytes, a part, or something else."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpcdvae.cli import main
from dpcdvae.datasets import DATASETS, SPLITS, Dataset, DatasetSpec, dataset_file, get_dataset, load_dataset
from dpcdvae.datasets.fetch import git_blob
from dpcdvae.datasets.origin import compare, ids_hash, noted, with_origin, words
from dpcdvae.errors import InputError
from dpcdvae.evaluation import evaluate
from dpcdvae.evaluation.reference import resolve_reference
from dpcdvae.io import cif_text
from dpcdvae.prototypes import build_prototypes
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.table import load_tables, save_tables

Rows = dict[str, list[tuple[str, str]]]
Saved = Callable[[Rows], Path]


@pytest.fixture
def rows() -> Rows:
    crystals: list[Crystal] = build_prototypes()[::10][:24]
    return {
        split: [(c.id, cif_text(c)) for c in crystals[start : start + 8]]
        for split, start in zip(SPLITS, (0, 8, 16), strict=True)
    }


def content(rows: list[tuple[str, str]]) -> bytes:
    lines = (f'{id},"{cif}"\n' for id, cif in rows)
    return ("material_id,cif\n" + "".join(lines)).encode()


@pytest.fixture
def save(tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> Saved:
    """Writes a folder of splits; ``rows`` as they are at first are what was published as perov_5."""
    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path / "home"))
    spec = dataclasses.replace(
        DATASETS["perov_5"],
        blobs={split: git_blob(content(part)) for split, part in rows.items()},
        rows={split: len(part) for split, part in rows.items()},
        ids={split: ids_hash(id for id, _ in part) for split, part in rows.items()},
    )
    monkeypatch.setitem(DATASETS._entries, "perov_5", spec)

    def write(given: Rows) -> Path:
        folder = tmp_path / "source"
        folder.mkdir(exist_ok=True)
        for split, part in given.items():
            (folder / f"{split}.csv").write_bytes(content(part))
        return folder

    return write


def said(dataset: Dataset) -> dict[str, str]:
    return {split: words(facts) for split, facts in dataset.metadata["source"].items()}


def in_other_bytes(part: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(id, cif + "\n") for id, cif in part]


def test_published_bytes_are_as_published(save: Saved, rows: Rows) -> None:
    dataset = get_dataset("perov_5", folder=save(rows))
    assert said(dataset) == dict.fromkeys(SPLITS, "as published")
    assert (dataset.metadata["title"], dataset.metadata["notes"]) == (DATASETS["perov_5"].title, {})


def test_the_same_ids_in_other_bytes(save: Saved, rows: Rows) -> None:
    dataset = get_dataset("perov_5", folder=save({**rows, "train": in_other_bytes(rows["train"])}))
    assert said(dataset) == {
        "train": "the published crystals in other bytes (ids and order agree)",
        "val": "as published",
        "test": "as published",
    }
    assert (dataset.metadata["title"], dataset.metadata["notes"]) == (DATASETS["perov_5"].title, {})


def test_a_row_missing_is_a_part_and_says_so_wherever_the_split_is_shown(
    save: Saved, rows: Rows, capsys: pytest.CaptureFixture[str]
) -> None:
    part = {**rows, "train": rows["train"][:3] + rows["train"][4:], "val": in_other_bytes(rows["val"])}
    dataset = get_dataset("perov_5", folder=save(part))
    note = "7 rows, 87.5 % of the published 8"
    assert said(dataset)["train"] == note
    assert dataset.metadata["notes"] == {"train": note}
    assert f"perov_5 train: {note} (found by number" in capsys.readouterr().err
    assert main(["data", "info", "perov_5"]) == main(["data", "list"]) == 0
    out = capsys.readouterr().out
    assert out.count(f"; train: {note}") == 2  # the title
    assert re.search(rf"source: train .*{note} \(found by number", out)

    assert resolve_reference("perov_5:train").source == f"perov_5:train ({note})"
    assert resolve_reference("perov_5").source == "perov_5:test"
    report = evaluate([dataset["test"][0]], "perov_5:test", workers=0)
    assert report["novelty"].note.startswith(f"training set perov_5:train ({note})")
    assert report.settings["training"] == f"perov_5:train ({note})"
    short = evaluate([dataset["test"][0]], "perov_5:test", workers=0, protocol="cdvae", baselines=["training"])
    assert f"- training set perov_5:train ({note})\n" in short.markdown()
    assert noted({"name": "perov_5", "notes": dataset.metadata["notes"]}) == f"perov_5 (train: {note})"


def test_a_row_that_cannot_be_used_is_a_row_of_the_file(save: Saved, rows: Rows) -> None:
    damaged = [(id, "nothing" if k in (0, 3) else cif) for k, (id, cif) in enumerate(rows["train"])]
    dataset = get_dataset("perov_5", folder=save({**rows, "train": damaged}))
    assert [failure["id"] for failure in dataset.metadata["failures"]] == [rows["train"][k][0] for k in (0, 3)]
    assert said(dataset)["train"].startswith("the published crystals in other bytes")
    assert len(dataset["train"]) == 6


def moved(part: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [part[1], part[0], *part[2:]]


@pytest.mark.parametrize(
    ("change", "others"),
    [
        (lambda rows: {"train": moved(rows["train"])}, ["train"]),
        (lambda rows: {"train": [("new", rows["train"][0][1]), *rows["train"][1:]]}, ["train"]),
        (lambda rows: {"train": [*rows["train"], ("new", rows["train"][0][1])]}, ["train"]),
        (lambda rows: {"train": [*rows["train"][:3], rows["train"][0]]}, ["train"]),  # an id twice
        (lambda rows: {"train": [*rows["train"][:3], rows["val"][0]]}, ["train"]),  # an id of another split
        (lambda rows: {"train": rows["train"][:3], "val": rows["val"][:3]}, ["train", "val"]),
        (lambda rows: {"train": rows["val"], "val": rows["train"]}, ["train", "val"]),
    ],
)
def test_anything_else_is_not_the_published_file(
    save: Saved, rows: Rows, change: Callable[[Rows], Rows], others: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = get_dataset("perov_5", folder=save({**rows, **change(rows)}), store_as="mine")
    assert dataset.metadata["notes"] == dict.fromkeys(others, "not the published file")
    assert dataset.metadata["title"] == f"in the place of perov_5, {', '.join(others)} not the published files"
    assert f"perov_5 {others[-1]}: not the published file\n" in capsys.readouterr().err


def test_a_damaged_file_is_refused(save: Saved, rows: Rows) -> None:
    folder = save(rows)
    (folder / "train.csv").rename(folder / "published.csv")
    (folder / "train.csv.gz").write_bytes(gzip.compress(content(rows["train"]))[:-20])
    with pytest.raises(InputError, match=r"train\.csv\.gz cannot be read"):
        get_dataset("perov_5", folder=folder)
    assert not dataset_file("perov_5").exists()


def test_a_file_of_an_earlier_version_says_the_same_and_is_not_prepared_again(save: Saved, rows: Rows) -> None:
    folder = save({**rows, "train": rows["train"][:6]})
    now = get_dataset("perov_5", folder=folder)
    tables, metadata = load_tables(dataset_file("perov_5"))
    earlier: dict[str, Any] = {k: v for k, v in metadata.items() if k not in ("notes", "published_name")}
    earlier["title"] = "in the place of perov_5, train not the published files"
    earlier["source"] = {
        split: {"file": facts["file"], "git_blob": facts["git_blob"], "published": split != "train"}
        for split, facts in metadata["source"].items()
    }
    save_tables(dataset_file("perov_5"), tables, earlier)
    before = dataset_file("perov_5").read_bytes()
    for found in (load_dataset("perov_5"), get_dataset("perov_5", folder=folder)):
        assert (found.metadata["title"], found.metadata["notes"]) == (now.metadata["title"], now.metadata["notes"])
        assert said(found) == said(now)
    assert dataset_file("perov_5").read_bytes() == before


@pytest.mark.parametrize("metadata", [{}, {"name": "perov_5"}, {"name": "own", "source": {"all": {"sha256": "1"}}}])
def test_what_is_no_published_data_set_is_left_alone(metadata: dict[str, Any]) -> None:
    assert with_origin(metadata, {}) == metadata


def published() -> list[DatasetSpec]:
    return [spec for spec in DATASETS.values() if spec.blobs]


def test_titles_count_the_published_rows() -> None:
    for spec in published():
        assert set(spec.rows) == set(spec.blobs) == set(SPLITS)
        assert spec.title.startswith(f"{sum(spec.rows.values()):,} ".replace(",", " "))


REAL = {
    "perov_5": {"train": "ids", "val": "bytes", "test": "bytes"},
    "carbon_24": {"train": "ids", "val": "bytes", "test": "bytes"},
    "mp_20": {"train": "part", "val": "ids", "test": "ids"},
}


@pytest.mark.parametrize("name", REAL)
def test_real_copies_are_recognised_by_their_ids(data_dir: Path, name: str) -> None:
    """Ids read by the csv module."""
    csv.field_size_limit(10**7)
    blobs, ids = {}, {}
    for split in SPLITS:
        data = gzip.decompress((data_dir / name / f"{split}.csv.gz").read_bytes())
        blobs[split] = git_blob(data)
        ids[split] = [row["material_id"] for row in csv.DictReader(data.decode().splitlines(keepends=True))]
    found = compare(DATASETS[name], blobs, ids)
    assert {split: facts["match"] for split, facts in found.items()} == REAL[name]
    if name == "mp_20":
        assert words(found["train"]) == "26061 rows, 96.0 % of the published 27136"
        # All 27 136 ids are not known, so as many rows as there should be are still told by number only.
        ids["train"] += [f"more-{k}" for k in range(1075)]
        assert words(compare(DATASETS[name], blobs, ids)["train"]) == "27136 rows, 100.0 % of the published 27136"
    else:
        for val, match in ((list(np.roll(ids["val"], 1)), "other"), (ids["val"][1:], "part")):
            found = compare(DATASETS[name], dict.fromkeys(SPLITS, ""), {**ids, "val": val})
            assert {split: facts["match"] for split, facts in found.items()} == dict.fromkeys(SPLITS, "ids") | {
                "val": match
            }
