"""CDVAE's published property models, converted: the predictions of the public definitions, and no code run."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from dpcdvae.checkpoints.checkpoint import load_weights, read_checkpoint
from dpcdvae.checkpoints.convert import convert_property_model, read_property_model
from dpcdvae.checkpoints.loading import load_model, load_regressor
from dpcdvae.cli import main
from dpcdvae.config import RegressorConfig
from dpcdvae.errors import InputError
from dpcdvae.io.torch_files import Inert, load_torch
from dpcdvae.model.regressor import PropertyRegressor
from dpcdvae.sampling.property_prediction import predict
from dpcdvae.structures.crystal import Crystal
from public_cdvae import HPARAMS, MEAN, PUBLISHED, SMALL, STD, public_prediction, public_state, publish
from tensors import batch_of, cubic, default_dtype, random_crystal, table_of

CRYSTALS = [random_crystal(11), random_crystal(12, num_atoms=1), cubic("diamond", 3.567), random_crystal(13, 8, 5.0)]


@pytest.fixture
def published(tmp_path: pathlib.Path) -> pathlib.Path:
    return publish(tmp_path / "perovskite", public_state(SMALL))


def predictions(folder: pathlib.Path, crystals: Sequence[Crystal], dtype: torch.dtype = torch.float64) -> Tensor:
    """Of the converted model in a folder."""
    checkpoint = read_checkpoint(folder)
    with default_dtype(dtype):
        model = PropertyRegressor(RegressorConfig.from_dict(checkpoint.config))
    load_weights(model, checkpoint)
    with torch.no_grad():
        return model(batch_of(crystals, dtype, bonded=True))


@pytest.mark.parametrize("crystal", CRYSTALS, ids=lambda crystal: crystal.id)
def test_predicts_what_the_public_definitions_say(published: pathlib.Path, crystal: Crystal) -> None:
    expected = public_prediction(public_state(SMALL), crystal)
    folder = convert_property_model(published, published / "model")
    assert abs(expected - MEAN) > 1e-3, "nothing to compare"
    assert float(predictions(folder, [crystal])) == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_published_sizes_in_single_precision(tmp_path: pathlib.Path) -> None:
    state = public_state(PUBLISHED, torch.float32)
    folder = convert_property_model(publish(tmp_path / "mp20", state), tmp_path / "model")
    crystal = cubic("diamond", 3.567)
    expected = public_prediction(state, crystal)
    assert float(predictions(folder, [crystal], torch.float32)) == pytest.approx(expected, rel=1e-4)
    defaults = {"hidden": 128, "blocks": 4, "cutoff": 7.0, "envelope_exponent": 5, "same_atom_triplets": False}
    assert defaults.items() <= read_checkpoint(folder).config["encoder"]["options"]["dimenet++"].items()


def test_cutoff_and_envelope_are_those_of_hparams(published: pathlib.Path) -> None:
    text = HPARAMS.replace("cutoff: 7.0", "cutoff: 8.5").replace("envelope_exponent: 5", "envelope_exponent: 3")
    (published / "hparams.yaml").write_text(text)
    folder = convert_property_model(published, published / "model")
    expected = public_prediction(public_state(SMALL), CRYSTALS[0], cutoff=8.5, exponent=3)
    assert float(predictions(folder, [CRYSTALS[0]])) == pytest.approx(expected, rel=1e-10)


# what is recorded


def test_a_converted_checkpoint_records_where_it_is_from(published: pathlib.Path) -> None:
    import hashlib

    ckpt = published / "epoch=2664-step=61294.ckpt"
    model = read_property_model(published)
    assert model.property == "heat_ref"
    assert (model.mean, model.std) == (MEAN, STD)
    assert model.facts["source"] == ckpt.name
    assert model.facts["source_sha256"] == hashlib.sha256(ckpt.read_bytes()).hexdigest()
    assert model.facts["epoch"] == 2664
    assert read_property_model(ckpt).facts == model.facts
    assert read_property_model(published, "another").property == "another"


def test_property_by_name_where_there_is_no_hparams(published: pathlib.Path) -> None:
    (published / "hparams.yaml").unlink()
    with pytest.raises(InputError, match="add --property, such as heat_ref"):
        read_property_model(published)
    model = read_property_model(published, "heat_ref")
    assert (model.property, model.options["cutoff"], model.options["envelope_exponent"]) == ("heat_ref", 7.0, 5)


def test_elements_without_a_gradient_are_unknown(tmp_path: pathlib.Path) -> None:
    """Their rows of the embedding are as they were drawn; Adam's second moments show which."""
    seen = [8, 22, 56]
    model = read_property_model(publish(tmp_path / "some", public_state(SMALL), seen=seen))
    assert model.known_elements.nonzero()[:, 0].tolist() == seen
    everything = read_property_model(publish(tmp_path / "all", public_state(SMALL)))
    assert everything.known_elements.nonzero()[:, 0].tolist() == list(range(1, 95))


def test_the_converted_model_is_a_property_model_like_any_other(published: pathlib.Path) -> None:
    folder = convert_property_model(published, published / "model")
    model = load_regressor(folder, "cpu")
    assert model.target == "heat_ref"
    expected = [public_prediction(public_state(SMALL), crystal) for crystal in CRYSTALS]
    assert predict(model, table_of(CRYSTALS, bonded=True)) == pytest.approx(expected, rel=1e-4)
    assert model.unknown_elements([8, 94, 95]) == ["Am"]
    with pytest.raises(InputError, match="predicts a property"):
        load_model(folder)


def test_the_command_converts_a_published_model(
    published: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    assert main(["convert", str(published), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert read_checkpoint(out).config["model"]["property"] == "heat_ref"
    assert main(["convert", str(published), "--out", str(out)]) == 2
    assert "exists" in capsys.readouterr().err


# no code is run


class Exploit:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def test_a_malicious_pickle_does_nothing(tmp_path: pathlib.Path, published: pathlib.Path) -> None:
    marker = tmp_path / "harm"
    attacks = {
        "system": Exploit(os.system, f"touch '{marker}'"),
        "eval": Exploit(eval, f"open({str(marker)!r}, 'w')"),
        "exec": Exploit(exec, f"open({str(marker)!r}, 'w')"),
        "torch": Exploit(torch.save, [], str(marker)),
        "path": Exploit(pathlib.Path.touch, marker),
        "getattr": Exploit(getattr, marker, "touch"),
    }
    for name, attack in attacks.items():
        torch.save({"state_dict": attack, "more": [attack]}, tmp_path / f"{name}.ckpt")
        with (tmp_path / f"{name}.ckpt").open("rb") as stream:
            assert isinstance(load_torch(stream)["state_dict"], Inert)
        torch.save(attack, published / "prop_scaler.pt")
        with pytest.raises(InputError, match="no scaler of one property"):
            read_property_model(published)
    assert not marker.exists()
    torch.load(tmp_path / "system.ckpt", weights_only=False)
    assert marker.exists(), "the attack must be a real one"


def test_tensors_and_plain_values_are_read(tmp_path: pathlib.Path) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    content = {"a": shared, "b": shared.t(), "c": torch.nn.Parameter(shared), "n": [1, 2.5, None, "text", (True,)]}
    torch.save(content, tmp_path / "file.pt")
    with (tmp_path / "file.pt").open("rb") as stream:
        read = load_torch(stream)
    assert read["n"] == content["n"]
    for name in "abc":
        torch.testing.assert_close(read[name], content[name].detach())


# bad input


def broken(change: Callable[[pathlib.Path], object], message: str) -> Any:
    return pytest.param(change, message, id=message)


def rewrite(change: Callable[[dict[str, Tensor]], object]) -> Callable[[pathlib.Path], object]:
    def apply(folder: pathlib.Path) -> None:
        state = public_state(SMALL)
        change(state)
        publish(folder, state)

    return apply


def reshape(name: str, *shape: int) -> Callable[[pathlib.Path], object]:
    return rewrite(lambda state: state.update({f"encoder.{name}": torch.zeros(shape, dtype=torch.float64)}))


def save_scaler(**state: Any) -> Callable[[pathlib.Path], object]:
    return lambda folder: torch.save(state, folder / "prop_scaler.pt")


def edit(old: str, new: str) -> Callable[[pathlib.Path], object]:
    return lambda folder: (folder / "hparams.yaml").write_text(HPARAMS.replace(old, new))


def cut_off(folder: pathlib.Path) -> None:
    file = folder / "epoch=2664-step=61294.ckpt"
    file.write_bytes(file.read_bytes()[:-2000])


GENERATIVE = {"fc_mu.weight": torch.zeros(2, 2), "decoder.fc_atom.weight": torch.zeros(2, 2)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        broken(lambda f: [file.unlink() for file in f.glob("*.ckpt")], r"holds no \.ckpt file"),
        broken(lambda f: (f / "last.ckpt").touch(), r"holds 2 \.ckpt files \(.*last\.ckpt\): give the path of the one"),
        broken(lambda f: (f / "prop_scaler.pt").unlink(), r"prop_scaler\.pt is missing"),
        broken(lambda f: (f / "prop_scaler.pt").write_bytes(b"no zip"), r"prop_scaler\.pt: cut off, or not written by"),
        broken(save_scaler(means=torch.zeros(6), stds=torch.ones(6)), "no scaler of one property"),
        broken(save_scaler(means=torch.tensor(0.0)), "needs means and stds"),
        broken(save_scaler(means=torch.tensor(0.0), stds=torch.tensor(0.0)), r"the spread 0\.0"),
        broken(cut_off, "cut off, or not written by"),
        broken(lambda f: torch.save([1], next(f.glob("*.ckpt"))), "no Lightning checkpoint"),
        broken(lambda f: torch.save({"state_dict": {"a": 1}}, next(f.glob("*.ckpt"))), "no state_dict of tensors"),
        broken(rewrite(lambda s: s.update(GENERATIVE)), r"is a generative CDVAE \(it has decoder, fc_mu\)"),
        broken(rewrite(lambda s: s.update({"head.weight": torch.zeros(1)})), "another kind of model"),
        broken(
            lambda f: torch.save({"state_dict": {"encoder.x": torch.zeros(1).expand(10**12)}}, next(f.glob("*.ckpt"))),
            "claims more numbers than",
        ),
        broken(rewrite(lambda s: s.clear()), r"no layer encoder\.output_blocks\.0\.lin\.weight"),
        broken(rewrite(lambda s: s.pop("encoder.interaction_blocks.1.lin_ji.bias")), r"no layer .*\.1\.lin_ji\.bias"),
        broken(rewrite(lambda s: s.update({"encoder.x": torch.zeros(1)})), r"unknown layer encoder\.x \(1 unknown\)"),
        broken(reshape("emb.lin.weight", 12, 24), r"emb\.lin\.weight has shape \(12, 24\), not \(12, 36\)"),
        broken(reshape("output_blocks.0.lin.weight", 6, 10), "predicts 6 numbers for a crystal"),
        broken(reshape("emb.emb.weight", 120, 12), r"emb\.emb\.weight has shape \(120, 12\), not \(101, 12\)"),
        broken(rewrite(lambda s: s["encoder.rbf.freq"].fill_(math.nan)), "rbf.freq is not finite"),
        broken(edit("readout: mean", "readout: sum"), "readout is not mean"),
        broken(edit("otf_graph: false", "otf_graph: true"), "otf_graph is not False"),
        broken(edit("cutoff: 7.0", "cutoff: far"), "cutoff of the encoder must be a positive float, not 'far'"),
        broken(edit("exponent: 5", "exponent: 5.5"), "must be a positive int, not"),
        broken(edit("cutoff: 7.0", "cutoff: .inf"), "must be a positive float, not inf"),
        broken(edit("cutoff: 7.0", "cutoff: [7.0"), r"cannot read .*hparams\.yaml.*expected"),
        broken(edit("readout: mean", "readout: !!python/object/apply:os.getcwd []"), "could not determine a con"),
        broken(lambda f: (f / "hparams.yaml").write_text("a: " + "[" * 10**4), r"cannot read .*hparams\.yaml"),
        broken(lambda f: (f / "hparams.yaml").write_text("- heat_ref"), r"no hparams.yaml beside"),
        broken(edit("  prop: heat_ref\n", ""), "names the property"),
    ],
)
def test_bad_input_is_one_line(
    published: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[pathlib.Path], object],
    message: str,
) -> None:
    change(published)
    with pytest.raises(InputError, match=message):
        convert_property_model(published, tmp_path / "model")
    assert main(["convert", str(published), "--out", str(tmp_path / "model")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "model").exists()
