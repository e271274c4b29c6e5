"""The report in its three forms says the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dpcdvae.datasets import load_dataset
from dpcdvae.evaluation import METRICS, PROTOCOLS, Report, evaluate
from dpcdvae.io import Failure
from dpcdvae.structures.crystal import Crystal

SCHEMA = Path(__file__).parents[1] / "docs" / "evaluation.schema.json"


@pytest.fixture(scope="module")
def crystals() -> list[Crystal]:
    return list(load_dataset("prototypes")["test"])[:10]


@pytest.fixture(scope="module")
def report(crystals: list[Crystal]) -> Report:
    train = list(load_dataset("prototypes")["train"])[:20]
    failures = [Failure("x", "row | 3", "no cell")]
    return evaluate(crystals, crystals, paired=True, training=train, failures=failures, workers=0)


def test_json_keeps_its_schema(report: Report) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    written = json.loads(json.dumps(report.to_json(), allow_nan=False))
    jsonschema.validate(written, schema)
    for key in schema["required"]:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({k: v for k, v in written.items() if k != key}, schema)


def test_markdown_has_the_numbers_of_the_json(report: Report) -> None:
    lines = [line for line in report.markdown().splitlines() if line.startswith("| ")]
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len(rows) == len(report.numbers)
    for row, (name, number) in zip(rows, report.numbers, strict=True):
        cells = dict(zip(head, row, strict=True))
        assert cells["metric"].startswith(METRICS[name].title)
        assert cells["gate"] == number.gate
        assert int(cells["n"]) == number.n
        shown = cells["value"]
        scale, digits = (0.01, 1e-3) if shown.endswith("%") else (1.0, 1e-4)
        assert number.value is not None
        assert float(shown.rstrip("%")) * scale == pytest.approx(number.value, abs=digits, rel=5e-4)


def test_the_published_protocol_is_a_part_of_the_full_one(crystals: list[Crystal], report: Report) -> None:
    published = evaluate(
        crystals, crystals, paired=True, failures=report.failures, protocol="cdvae", baselines=(), workers=0
    )
    full = {(name, number.gate): number for name, number in report.numbers}
    assert {(name, number.gate): number for name, number in published.numbers}.items() <= full.items()
    gates = PROTOCOLS["cdvae"].gates
    assert gates is not None
    assert [name for name, _ in published.numbers] == [n for n in METRICS if n in gates and n != "energy_wasserstein"]
