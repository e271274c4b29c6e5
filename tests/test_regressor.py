"""Property models: they learn what can be learnt, leave out what is unknown, and refuse what cannot be."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dpcdvae.checkpoints.loading import load_model, load_regressor
from dpcdvae.cli.energies import energy_model_of
from dpcdvae.config import RegressorConfig, load_config, override_config
from dpcdvae.datasets import load_dataset
from dpcdvae.errors import InputError
from dpcdvae.evaluation import EnergyModel, Reference
from dpcdvae.io import write
from dpcdvae.model.regressor import PropertyRegressor
from dpcdvae.model_store import find_model, read_card
from dpcdvae.nn.target_scaler import TargetScaler
from dpcdvae.parallel import HERE
from dpcdvae.sampling.property_prediction import mean_absolute_error, predict
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.table import CrystalTable, save_tables
from dpcdvae.tensors.batch import CrystalBatch
from dpcdvae.training.train import check_data, train
from tensors import default_dtype, random_crystal, shake, table_of

SMALL = ["encoder.options.gine={hidden=32}", "model.property=density", "train.batch_size=16", "train.lr=0.003"]


def with_density(table: CrystalTable) -> CrystalTable:
    """The density (g/cm^3) as a property that a network can learn from."""
    return dataclasses.replace(table, properties={"density": np.array([crystal.density for crystal in table])})


@pytest.fixture(scope="module")
def tables() -> dict[str, CrystalTable]:
    tables = load_dataset("prototypes").tables
    sizes = {"train": 96, "val": 24, "test": 24}
    return {split: with_density(tables[split].select(range(size))) for split, size in sizes.items()}


def run(tables: dict[str, CrystalTable], folder: Path, *overrides: str) -> Path:
    config = load_config("energy-gine", [*SMALL, *overrides])
    facts = {"name": "some", "sha256": "0", "columns": {"density": "g/cm^3"}}
    return train(tables, facts, config, folder, preset="energy-gine")


def test_training_lowers_the_error_and_the_card_records_it(tables: dict[str, CrystalTable], tmp_path: Path) -> None:
    folder = run(tables, tmp_path / "run", "train.max_epochs=100")
    model = load_regressor(folder)
    error, known, unknown = mean_absolute_error(model, tables["test"])
    spread = np.abs(tables["test"].properties["density"] - tables["train"].properties["density"].mean()).mean()
    assert error < 0.6 * spread
    card = read_card(folder)
    assert card["errors"]["test"] == {"mae": pytest.approx(error), "crystals": known, "without_value": unknown}
    assert card["property"]["unit"] == "g/cm^3"
    values = tables["train"].properties["density"]
    assert card["property"]["range"] == pytest.approx([values.min(), values.max()], rel=1e-5)
    assert card["property"]["quantiles"]["10"] == pytest.approx(np.percentile(values, 10), rel=1e-5)
    assert model.unknown_elements([*tables["train"].atomic_numbers, 99, 98]) == ["Cf", "Es"]
    with pytest.raises(InputError, match=r"predicts a property .density. and makes no crystals"):
        load_model(folder)
    with pytest.raises(InputError, match="makes crystals and predicts no property"):
        load_regressor("perov-5-compact")


def test_a_missing_value_adds_nothing_to_loss_and_gradient() -> None:
    """Loss and gradient are those of the crystals whose value is known."""
    table = table_of([random_crystal(k) for k in range(6)], bonded=True)
    config = load_config("energy-gine", ["encoder.options.gine={hidden=8}", "model.property=x"])
    assert isinstance(config, RegressorConfig)
    with default_dtype(torch.float64):
        model = PropertyRegressor(config)
    shake(model)
    targets = torch.tensor([1.0, torch.nan, 3.0, -2.0, torch.nan, 0.5], dtype=torch.float64)
    known = targets.isfinite().nonzero().squeeze(1)
    everyone = CrystalBatch.from_table(table, dtype=torch.float64)
    gradients = []
    for batch, some in (
        (everyone, targets),
        (CrystalBatch.from_table(table, known.numpy(), torch.float64), targets[known]),
    ):
        model.zero_grad()
        losses = model.step_losses(batch, some, torch.Generator(), 0)
        losses["mse"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        assert losses["mae"] > 0
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)
    assert model.step_losses(everyone, targets * torch.nan, torch.Generator(), 0)["mse"] == 0


def test_predictions_do_not_depend_on_the_batch(tables: dict[str, CrystalTable], tmp_path: Path) -> None:
    model = load_regressor(run(tables, tmp_path / "run", "train.max_epochs=1"))
    together = predict(model, tables["val"])
    np.testing.assert_allclose(together, predict(model, tables["val"], batch_size=5), rtol=1e-4)
    unbonded = dataclasses.replace(tables["val"], num_bonds=np.zeros_like(tables["val"].num_bonds))
    assert np.isnan(predict(model, unbonded)).all()


def test_the_scaler_is_undone() -> None:
    scaler, values = TargetScaler(), torch.tensor([1.0, 5.0, torch.nan, 9.0], dtype=torch.float64)
    scaler.fit(values, "x")
    scaled = scaler(values)
    assert float(scaled[[0, 1, 3]].mean()) == pytest.approx(0, abs=1e-6)
    assert float(scaled[[0, 1, 3]].std(correction=0)) == pytest.approx(1)
    torch.testing.assert_close(scaler.inverse(scaled), values, equal_nan=True)
    error, known = scaler.errors(torch.zeros(4, dtype=torch.float64), values)
    assert known == 3
    assert error.tolist() == pytest.approx((-scaled.nan_to_num()).tolist())


def test_what_cannot_be_learnt_is_refused(
    tables: dict[str, CrystalTable], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="did you mean 'density'"):
        check_data(tables, load_config("energy", ["model.property=densty"]))

    with pytest.raises(InputError, match="no properties, so no 'density'"):
        check_data(
            {**tables, "val": dataclasses.replace(tables["val"], properties={})}, load_config("energy", SMALL[1:])
        )

    def changed(split: str, column: np.ndarray) -> dict[str, CrystalTable]:
        return {**tables, split: dataclasses.replace(tables[split], properties={"density": column})}

    with pytest.raises(InputError, match=r"'density' is 3 for every crystal of the training set"):
        run(changed("train", np.full(96, 3.0)), tmp_path / "constant")
    with pytest.raises(InputError, match="no value in the 'val' split"):
        run(changed("val", np.full(24, np.nan)), tmp_path / "empty")
    assert not list(tmp_path.iterdir())
    column = tables["train"].properties["density"].copy()
    column[:10] = np.nan
    run(changed("train", column), tmp_path / "run", "train.max_epochs=1")
    assert "density: known for 86 of 96 crystals of 'train'" in capsys.readouterr().err


def test_evaluate_takes_a_model_of_the_same_data_alone(
    tables: dict[str, CrystalTable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dpcdvae.cli import main

    monkeypatch.setenv("DPCDVAE_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "datasets").mkdir(parents=True)
    few = {**tables, "train": tables["train"].select(range(0, 96, 8))}
    for name, energy in (("mine", "density"), ("theirs", "enthalpy")):
        save_tables(tmp_path / "home" / "datasets" / f"{name}.npz", few, {"name": name, "energy": energy})
    write(list(few["train"]), tmp_path / "crystals.extxyz")
    write([random_crystal(0, elements=(94, 95))], tmp_path / "odd.extxyz")
    model = str(run(tables, tmp_path / "run", "train.max_epochs=1"))

    def evaluate(reference: str, crystals: str = "crystals.extxyz") -> int:
        out = ["--json", str(tmp_path / "numbers.json"), "--overwrite", "--workers", "0"]
        return main(["evaluate", str(tmp_path / crystals), "--reference", reference, "--energy-model", model, *out])

    assert evaluate("mine:train") == 0
    numbers = {m["name"]: m for m in json.loads((tmp_path / "numbers.json").read_text())["metrics"]}
    assert numbers["energy_wasserstein"]["value"] == pytest.approx(0, abs=1e-6)
    assert numbers["energy_wasserstein"]["n"] == len(few["train"])
    assert evaluate("mine:train", "odd.extxyz") == 0
    given_up = json.loads((tmp_path / "numbers.json").read_text())["given_up"]
    assert [g["reason"] for g in given_up if g["what"] == "energy"] == ["density of Pu, Am was not trained"]
    capsys.readouterr()
    assert evaluate("theirs:train") == 2
    assert "predicts 'density', but theirs's energy is 'enthalpy'" in capsys.readouterr().err
    assert evaluate(str(tmp_path / "odd.extxyz")) == 2
    assert "was trained without Pu, Am" in capsys.readouterr().err


def test_a_reference_may_have_a_few_crystals_of_unknown_elements(
    tables: dict[str, CrystalTable], tmp_path: Path
) -> None:
    source = find_model(run(tables, tmp_path / "run", "train.max_epochs=1"))
    known, odd = list(tables["train"]), random_crystal(0, elements=(94, 95))
    crystals = [dataclasses.replace(known[k % len(known)], id=str(k)) for k in range(200)]

    def given(reference: list[Crystal]) -> EnergyModel:
        return energy_model_of(source, Reference("these", "", reference), HERE, 60.0)

    values, reasons = given([odd, *crystals]).predict([odd, crystals[0]])
    assert np.isnan(values).tolist() == [True, False]
    assert reasons == {0: "density of Pu, Am was not trained"}
    with pytest.raises(InputError, match="trained without Pu, Am, which are in these"):
        given([odd, *crystals[:98]])


def test_the_command_learns_the_energy_of_a_file(
    tables: dict[str, CrystalTable], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The data set is the path of its file; its largest crystal and its energy need not be given."""
    from dpcdvae.cli import main

    data = tmp_path / "some.npz"
    save_tables(data, tables, {"name": "some", "energy": "density", "columns": {"density": "g/cm^3"}})
    small = ["--set", "train.max_epochs=1", "--set", "encoder.options.gine={hidden=8}", "--set", "model.max_atoms=1"]
    assert main(["train", str(data), "--preset", "energy-gine", *small, "--out", str(tmp_path / "run")]) == 0
    folder, val, test = capsys.readouterr().out.splitlines()
    assert Path(folder) == tmp_path / "run"
    assert val.startswith("val: mean absolute error")
    assert test.endswith("(density: g/cm^3; 24 crystals)")


def test_a_run_that_leaves_its_end_out_is_ended_by_going_on(
    tables: dict[str, CrystalTable], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dpcdvae.cli import main

    data, out = tmp_path / "some.npz", tmp_path / "run"
    save_tables(data, tables, {"name": "some", "energy": "density", "columns": {"density": "g/cm^3"}})
    small = ["--set", "train.max_epochs=1", "--set", "encoder.options.gine={hidden=8}", "--set", "train.finish=false"]
    assert main(["train", str(data), "--preset", "energy-gine", *small, "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(out)]
    assert not [*out.rglob("card.json")]
    assert main(["train", str(data), "--resume", "--set", "train.finish=true", "--out", str(out)]) == 0
    assert "val: mean absolute error" in capsys.readouterr().out
    assert [*out.rglob("card.json")]


def test_a_start_may_have_learnt_another_property(tables: dict[str, CrystalTable], tmp_path: Path) -> None:
    """The network is the start's; the scaler, and the elements with a known value, are those of the new property."""
    first = run(tables, tmp_path / "first", "train.max_epochs=1")
    learnt = {
        split: dataclasses.replace(table, properties={"other": np.arange(len(table)) / 7.0})
        for split, table in tables.items()
    }
    config = load_config("energy-gine", [*SMALL, "model.property=other"])
    learnt["train"].properties["other"][1:] = np.nan
    learnt["train"].properties["other"][40] = 3.0
    config = override_config(config, ["train.max_epochs=1", "train.lr=1e-9", "train.min_lr=0"])
    facts = {"name": "some", "sha256": "0"}
    second = load_regressor(train(learnt, facts, config, tmp_path / "second", preset="energy-gine", init=first))
    for name, value in load_regressor(first).named_parameters():
        torch.testing.assert_close(second.get_parameter(name), value, rtol=0, atol=1e-6)
    assert float(second.scaler.mean) == pytest.approx(1.5)
    some = tables["train"].select([0, 40]).atomic_numbers
    assert set(second.known_elements.nonzero().flatten().tolist()) == set(some.tolist())


def test_a_generative_model_learns_a_property_beside(tables: dict[str, CrystalTable], tmp_path: Path) -> None:
    tiny = "encoder.options.dimenet++={hidden=16, blocks=1, int_emb=8, out_emb=16, output_layers=1}"
    config = load_config("compact", [tiny, "model.property=density", "train.max_epochs=1", "train.batch_size=48"])
    folder = train(tables, {"name": "some", "sha256": "0"}, config, tmp_path / "run", preset="compact")
    head = load_model(folder).property_head
    assert head is not None
    assert float(head.scaler.mean) == pytest.approx(tables["train"].properties["density"].mean(), rel=1e-5)
    assert "val/property" in read_card(folder)["losses"]
