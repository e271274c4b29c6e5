"""Numbers of evaluations in the card of the model whose crystals were evaluated. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpcdvae.errors import InputError, one_line
from dpcdvae.files import manifest_path, refuse_device, sha256, write_json
from dpcdvae.intervals import Number
from dpcdvae.model_store import CARD, StoredModel

SCORES = "scores"
SETTINGS = ("seed", "steps", "solver", "candidates", "prior", "force_num_atoms", "force_types", "sample_latent")
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


def add_score(model: StoredModel, report: str | Path) -> dict[str, Any]:
    """Puts the numbers of a report of ``evaluate --json`` into a model's card; returns the entry.

    The manifests beside the report and the crystals show that this model made them. An earlier entry of the same
    command and reference is replaced.

    Raises:
        InputError: a report or a manifest that is missing or is none; crystals of another model, or changed since.
    """
    report = Path(report)
    content, call = _read(report), _read(manifest_path(report))
    try:
        crystals = Path(call["arguments"]["crystals"])
        evaluated = call["crystals_sha256"]
        numbers = {f"{row['name']} {row['gate']}".strip(): row for row in content["metrics"]}
        for row in numbers.values():
            Number.from_json(row)
        reference = str(content["reference"]["source"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{report} is no report of evaluate --json ({one_line(error)})") from None
    made = _read(manifest_path(crystals))
    if made.get("model_sha256") != model.sha256:
        raise InputError(f"{crystals} was not made by {model.name}: its manifest names other weights")
    if not crystals.exists() or sha256(crystals) != evaluated:
        raise InputError(f"{crystals} is not what {report} is about any more: evaluate it again")
    arguments = made.get("arguments", {})
    entry = {
        "command": made["command"],
        "crystals": made.get("crystals"),
        "of": arguments.get("crystals"),
        "settings": {
            name: arguments[name]
            for name in SETTINGS
            if arguments.get(name) is not None and arguments[name] is not False
        },
        "reference": reference,
        "protocol": content.get("settings", {}).get("protocol"),
        "dpcdvae": content.get("versions", {}).get("dpcdvae"),
        "numbers": {
            name: {key: row[key] for key in ("value", "interval", "n", "unit")} for name, row in numbers.items()
        },
    }
    card = model.card()
    kept = [other for other in card.get(SCORES, []) if _subject(other) != _subject(entry)]
    write_json(model.folder / CARD, {**card, SCORES: [*kept, entry]})
    return entry


def lines(card: Mapping[str, Any]) -> list[str]:
    """The scores of a card, one line for each evaluation. What is of another type is left out."""
    found = card.get(SCORES)
    return [line for entry in found if (line := _line(entry))] if isinstance(found, list) else []


def _line(entry: Any) -> str:
    try:
        said = []
        for metric, name in SHOWN[entry["command"]].items():
            row = next((row for key, row in entry["numbers"].items() if key.split()[0] == metric), None)
            if row is not None and row["value"] is not None:
                value, interval = Number.from_json(row).shown(row["unit"])
                said.append(f"{name} {value}" + (f" ({interval})" if interval else ""))
        settings = ", ".join(f"{name} {value}" for name, value in entry["settings"].items())
        return f"{entry['command']} {entry['crystals']} ({settings}), against {entry['reference']}: {', '.join(said)}"
    except (KeyError, TypeError, ValueError, AttributeError):
        return ""


def _subject(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return None
    return [entry.get(key) for key in ("command", "of", "settings", "reference", "protocol")]


def _read(path: Path) -> dict[str, Any]:
    refuse_device(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({one_line(error)})") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object")
    return value
