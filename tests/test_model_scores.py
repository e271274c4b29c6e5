"""Scores in model cards: only of the model's own crystals, as the report states them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dpcdvae.cli import main
from dpcdvae.model_scores import lines
from dpcdvae.model_store import find_model

REFERENCE = "reference.extxyz"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    """A copy of these files, so that a test may change them."""
    copy = tmp_path / "work"
    shutil.copytree(made, copy)
    manifest = copy / "report.json.manifest.json"
    manifest.write_text(manifest.read_text().replace(str(made), str(copy)))
    return copy


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
    card = find_model("carbon-24").folder / "card.json"
    before = card.read_bytes()
    assert main(["models", "score", "carbon-24", str(work / "report.json")]) == 2
    assert "other weights" in capsys.readouterr().err
    assert card.read_bytes() == before


def test_crystals_under_a_condition_are_another_score(work: Path) -> None:
    path = work / "made.extxyz.manifest.json"
    manifest = json.loads(path.read_text())
    model, report = str(work / "model"), str(work / "report.json")
    assert main(["models", "score", model, report]) == 0
    manifest["arguments"]["formula"] = ["SrTiO3"]
    path.write_text(json.dumps(manifest))
    assert main(["models", "score", model, report]) == 0
    plain, conditioned = find_model(model).card()["scores"]
    assert "formula" not in plain["settings"]
    assert conditioned["settings"]["formula"] == ["SrTiO3"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("report.json", None, "cannot read"),
        ("report.json", "[1]", "no JSON object"),
        ("report.json", '{"metrics": [{"name": 3}]}', "no report of evaluate"),
        ("report.json", '{"metrics": [], "reference": {"source": "x"}, "settings": null}', "no report of evaluate"),
        ("made.extxyz.manifest.json", '{"arguments": {}}', "no report of evaluate"),
        ("made.extxyz.manifest.json", '{"command": "generate", "arguments": []}', "no report of evaluate"),
        ("made.extxyz", "changed", "not what"),
    ],
)
def test_what_is_no_report_of_it_leaves_the_card(
    work: Path, name: str, text: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, before = work / name, (work / "model" / "card.json").read_bytes()
    file.unlink()
    if text is not None:
        file.write_text(text)
    assert main(["models", "score", str(work / "model"), str(work / "report.json")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert (work / "model" / "card.json").read_bytes() == before


DAMAGED = [3, [3], [{}], [{"command": "generate", "numbers": 4}], [{"command": []}]]
DAMAGED += [[{"command": "generate", "crystals": 1, "reference": "", "settings": {}, "numbers": {"": {}}}]]


@pytest.mark.parametrize("scores", DAMAGED)
def test_a_damaged_score_is_left_out_of_the_list(scores: object) -> None:
    assert lines({"scores": scores}) == []
