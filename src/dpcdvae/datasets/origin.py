"""Comparison of a data set's splits with the published ones: by bytes, by ids, or by number alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dpcdvae.datasets.catalogue import DATASETS, DatasetSpec
from dpcdvae.structures.table import CrystalTable

BYTES, IDS, PART, OTHER = "bytes", "ids", "part", "other"

HOW_A_PART_IS_FOUND = "found by number and by ids that no other split has; which of the published ones is not checked"


def ids_hash(ids: Iterable[str]) -> str:
    """SHA-256 of the ids in order, each followed by a line feed."""
    return hashlib.sha256("".join(f"{id}\n" for id in ids).encode()).hexdigest()


def compare(spec: DatasetSpec, blobs: Mapping[str, str], ids: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """Each split compared with the published one, as JSON values.

    Args:
        blobs: git blob SHA-1 of the CSV of each split. ids: of all rows of each split, in order.

    Returns:
        ``rows`` of the file, ``published_rows``, and ``match``: "bytes"; "ids" (these and their order agree; the
        structures are not compared); "part" (fewer rows, each with an id of its own that no other split has, and every
        other split is "bytes" or "ids"; that the rows are published ones is not checked); "other".
    """
    match = dict.fromkeys(blobs, OTHER)
    for split in blobs:
        if blobs[split] == spec.blobs.get(split):
            match[split] = BYTES
        elif split in spec.ids and ids_hash(ids[split]) == spec.ids[split]:
            match[split] = IDS
    unknown = [split for split in blobs if match[split] == OTHER]
    if len(unknown) == 1 and _may_be_a_part(spec, unknown[0], ids):
        match[unknown[0]] = PART
    return {
        split: {"rows": len(ids[split]), "published_rows": spec.rows.get(split), "match": match[split]}
        for split in blobs
    }


def _may_be_a_part(spec: DatasetSpec, split: str, ids: Mapping[str, Sequence[str]]) -> bool:
    own, count = set(ids[split]), len(ids[split])
    # The second row of an id "a" is read as "a-2"; no published id is another one with a number behind it.
    once = count == len(own) and own.isdisjoint(id.rpartition("-")[0] for id in own)
    # All rows in other bytes would be recognised by their ids, where these are known.
    most = spec.rows.get(split, 0) - (split in spec.ids)
    return once and 0 < count <= most and all(own.isdisjoint(ids[other]) for other in ids if other != split)


def words(facts: Mapping[str, Any]) -> str:
    """The result of :func:`compare` for a split, in words; "" where nothing was compared."""
    if facts.get("match") == PART:
        # Rounded down: 100 % is for all of them.
        share = 1000 * facts["rows"] // facts["published_rows"] / 10
        return f"{facts['rows']} rows, {share} % of the published {facts['published_rows']}"
    return {
        BYTES: "as published",
        IDS: "the published crystals in other bytes (ids and order agree)",
        OTHER: "not the published file",
    }.get(facts.get("match", ""), "")


def long_words(facts: Mapping[str, Any]) -> str:
    """The words for a split, with how a part is recognised."""
    return words(facts) + (f" ({HOW_A_PART_IS_FOUND})" if facts.get("match") == PART else "")


def with_origin(metadata: Mapping[str, Any], tables: Mapping[str, CrystalTable]) -> dict[str, Any]:
    """The metadata of a published data set with what :func:`compare` finds: in ``source``, ``title`` and ``notes``.

    ``notes`` has words for each split with other crystals than the published one: they belong beside its figures. Data
    sets of earlier versions, whose files have none of this, get it when they are loaded.
    """
    source, name = metadata.get("source", {}), metadata.get("published_name", metadata.get("name"))
    compared = all("git_blob" in facts and split in tables for split, facts in source.items())
    if name not in DATASETS or not source or not compared:
        return dict(metadata)
    spec = DATASETS[name]
    ids = {split: _ids_of_rows(split, tables[split], metadata.get("failures", [])) for split in source}
    found = compare(spec, {split: facts["git_blob"] for split, facts in source.items()}, ids)
    others = [split for split in found if found[split]["match"] == OTHER]
    notes = {split: words(facts) for split, facts in found.items() if facts["match"] in (PART, OTHER)}
    title = spec.title
    if others:
        title = f"in the place of {name}, {', '.join(others)} not the published files"
    elif notes:
        title += "".join(f"; {split}: {note}" for split, note in notes.items())
    return {
        **metadata,
        "title": title,
        "source": {split: {**facts, **found[split]} for split, facts in source.items()},
        "notes": notes,
    }


def _ids_of_rows(split: str, table: CrystalTable, failures: Sequence[Mapping[str, Any]]) -> list[str]:
    """Ids of the file's rows: those of the table, and those that were left out put back where they stood."""
    ids = [str(id) for id in table.ids]
    rows = [(re.search(r" row (\d+)$", f["where"]), str(f["id"])) for f in failures if f["part"] == split]
    for row, id in sorted((int(match[1]), id) for match, id in rows if match):
        ids.insert(row - 1, id)
    return ids


def noted(dataset: Mapping[str, Any]) -> str:
    """Name of a data set with its notes, from the facts (``name``, ``notes``) that a card or a benchmark keeps."""
    notes = "; ".join(f"{split}: {note}" for split, note in dataset.get("notes", {}).items())
    return f"{dataset['name']} ({notes})" if notes else str(dataset["name"])
