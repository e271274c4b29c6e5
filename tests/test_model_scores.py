"""Scores in model cards: only of the model's own crystals, as the report states them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dpcdvae.cli import main
from dpcdvae.model_scores import lines
from dpcdvae.model_store import find_model

REFERENCE = "reference.extxyz"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, three crystals of it and a report about them."""
    folder = tmp_path_factory.mktemp("scores")
    model, crystals, reference = folder / "model", folder / "made.extxyz", folder / REFERENCE
    assert main(["export", "perov-5-compact", "--out", str(model)]) == 0
    shared = ["--steps", "2", "--workers", "0", "--out"]
    assert main(["generate", str(model), "-n", "3", *shared, str(crystals)]) == 0
    assert main(["generate", "perov-5-compact", "-n", "3", "--seed", "1", *shared, str(reference)]) == 0
    how = ["--reference", str(reference), "--baselines", "none", "--protocol", "cdvae", "--workers", "0"]
    assert main(["evaluate", str(crystals), *how, "--json", str(folder / "report.json")]) == 0
    return folder


def test_the_card_has_the_numbers_of_the_report(work: Path) -> None:
    model, report = work / "model", json.loads((work / "report.json").read_text())
    before = find_model(model).card()
    for _ in range(2):  # a second time replaces the first
        assert main(["models", "score", str(model), str(work / "report.json")]) == 0
    card = find_model(model).card()
    (entry,) = card.pop("scores")
    assert card == before
    assert entry["command"] == "generate"
    assert entry["settings"] == {"seed": 0, "steps": 2, "solver": "x0-jump", "candidates": 1, "prior": "normal"}
    wanted = {f"{row['name']} {row['gate']}".strip(): row["value"] for row in report["metrics"]}
    assert {name: row["value"] for name, row in entry["numbers"].items()} == wanted


def test_crystals_of_another_model_are_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "score", "carbon-24", str(work / "report.json")]) == 2
    assert "other weights" in capsys.readouterr().err
    assert not any(entry["crystals"] == 3 for entry in find_model("carbon-24").card().get("scores", []))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("report.json", None, "cannot read"),
        ("report.json", "[1]", "no JSON object"),
        ("report.json", '{"metrics": [{"name": 3}]}', "no report of evaluate"),
        ("made.extxyz", "changed", "not what"),
    ],
)
def test_what_is_no_report_of_it_leaves_the_card(
    work: Path, name: str, text: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, before = work / name, (work / "model" / "card.json").read_bytes()
    content = file.read_bytes()
    try:
        file.unlink()
        if text is not None:
            file.write_text(text)
        assert main(["models", "score", str(work / "model"), str(work / "report.json")]) == 2
    finally:
        file.write_bytes(content)
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert (work / "model" / "card.json").read_bytes() == before


@pytest.mark.parametrize("scores", [3, [3], [{}], [{"command": "generate", "numbers": 4}], [{"command": []}]])
def test_a_damaged_score_is_left_out_of_the_list(work: Path, scores: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines({"scores": scores}) == []
