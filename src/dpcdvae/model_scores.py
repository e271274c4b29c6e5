"""Numbers of evaluations in the card of the model whose crystals were evaluated. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpcdvae.errors import InputError, one_line
from dpcdvae.files import NOT_SHAPING, json_object, manifest_path, write_json
from dpcdvae.intervals import Number
from dpcdvae.model_store import CARD, StoredModel
from dpcdvae.report_files import check_unchanged, is_report

SCORES = "scores"
AGAIN = "evaluate again"
NO_SETTINGS = frozenset({*NOT_SHAPING, *"n first crystals device batch_size shard symmetrise column max_tries".split()})
"""Arguments of ``generate`` and ``reconstruct`` that stand elsewhere in a score, or do not change what it says."""

SHOWN = {
    "reconstruct": {"match_rate": "match rate", "match_rms": "mean rms"},
    "generate": {
        "structural_validity": "structural validity",
        "compositional_validity": "compositional validity",
        "coverage_recall": "COV-R",
        "coverage_precision": "COV-P",
        "density_wasserstein": "W density",
        "num_elements_wasserstein": "W elements",
    },
}
"""Metrics that :func:`lines` shows for each command, of the first gate that the report has."""


def add_scores(model: StoredModel, reports: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Puts the numbers of reports of ``evaluate --json`` into a model's card, all or none; returns the entries.

    The manifests beside a report and its crystals show that this model made them. An earlier entry of the same
    command, settings and reference is replaced.

    Raises:
        InputError: a report or a manifest that is missing or is none; crystals of another model, or changed since.
    """
    entries = [_score(model, Path(report)) for report in reports]
    card = model.card()
    found = card.get(SCORES)
    subjects = [_subject(entry) for entry in entries]
    kept = [other for other in (found if isinstance(found, list) else []) if _subject(other) not in subjects]
    write_json(model.folder / CARD, {**card, SCORES: [*kept, *entries]})
    return entries


def _score(model: StoredModel, report: Path) -> dict[str, Any]:
    """The entry of one report; raises InputError as :func:`add_scores`."""
    content, call = json_object(report, AGAIN), json_object(manifest_path(report), AGAIN)
    try:
        crystals = Path(call["arguments"]["crystals"])
        made = json_object(manifest_path(crystals), AGAIN)
        given = made["arguments"]
        numbers = {f"{row['name']} {row['gate']}".strip(): row for row in content["metrics"]}
        if not is_report(content):
            raise ValueError(f"schema {content['schema']}")
        for row in numbers.values():
            Number.from_json(row, row["unit"])
        entry = {
            "command": made["command"],
            "crystals": made.get("crystals"),
            "of": given.get("crystals"),
            "settings": {
                name: value
                for name, value in given.items()
                if name not in NO_SETTINGS and value is not None and value is not False
            },
            "reference": str(content["reference"]["source"]),
            "protocol": content["settings"]["protocol"],
            "dpcdvae": content["versions"]["dpcdvae"],
            "numbers": {
                name: {key: row[key] for key in ("value", "interval", "n", "unit")} for name, row in numbers.items()
            },
        }
        evaluated = call["crystals_sha256"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{report} is no report of evaluate --json about crystals of generate or reconstruct ({one_line(error)})"
        ) from None
    if made.get("model_sha256") != model.sha256:
        raise InputError(f"{crystals} was not made by {model.name}: its manifest names other weights")
    check_unchanged(crystals, report, evaluated)
    return entry


def lines(card: Mapping[str, Any]) -> list[str]:
    """The scores of a card, one line for each evaluation. What is of another type is left out."""
    found = card.get(SCORES)
    return [line for entry in found if (line := _line(entry))] if isinstance(found, list) else []


def _line(entry: Any) -> str:
    """A score in words, "" for what is none."""
    try:
        said = []
        for metric, name in SHOWN[entry["command"]].items():
            row = next((row for key, row in entry["numbers"].items() if key.partition(" ")[0] == metric), None)
            if row is not None and row["value"] is not None:
                value, interval = Number.from_json(row, row["unit"]).shown(row["unit"])
                said.append(f"{name} {value}" + (f" ({interval})" if interval else ""))
        settings = ", ".join(f"{name} {value}" for name, value in entry["settings"].items())
        what = f"{entry['command']} {entry['crystals']} ({settings}), against {entry['reference']}"
        return f"{what}: {', '.join(said)}" if said else ""
    except (KeyError, TypeError, ValueError, AttributeError):
        return ""


def _subject(entry: Any) -> Any:
    """What an entry is about; a later one about the same replaces it."""
    if not isinstance(entry, dict):
        return None
    return [entry.get(key) for key in ("command", "of", "settings", "reference", "protocol")]
