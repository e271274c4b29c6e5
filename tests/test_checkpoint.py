"""Checkpoints come back as they were written, refuse what they are not, and survive being interrupted."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dpcdvae import model_store, pickles
from dpcdvae.checkpoints import checkpoint as checkpoint_module
from dpcdvae.checkpoints.checkpoint import load_weights, read_checkpoint, read_training, write_checkpoint
from dpcdvae.checkpoints.tensor_json import join, split
from dpcdvae.errors import InputError

CONFIG = {"model": {"latent_dim": 4}, "encoder": {"name": "dimenet++", "options": {"cutoff": 7.0}}}
FACTS = {"dataset": "perov_5", "epoch": 3, "global_step": 40, "criterion": 0.25, "losses": {"kl": math.inf}}


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def same(a: Any, b: Any) -> bool:
    """Equal and of the same types all through; nan equals nan; tensors bit for bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and raw(a) == raw(b)
    if isinstance(a, dict):
        return list(a) == list(b) and [*map(type, a)] == [*map(type, b)] and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return repr(a) == repr(b)
    return a == b


def same_weights(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """As :func:`same`, in any order."""
    return same(dict(sorted(a.items())), dict(sorted(b.items())))


def raw(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint with training state."""
    path = tmp_path / "checkpoint"
    write_checkpoint(path, net().state_dict(), CONFIG, FACTS, {"step": 7, "moment": torch.arange(3.0)})
    return path


def refusal(read: Any, *args: Any) -> str:
    with pytest.raises(InputError) as info:
        read(*args)
    message = str(info.value)
    assert "\n" not in message
    return message


# Round trips


def test_weights_config_and_facts_come_back(tmp_path: Path) -> None:
    weights = net().state_dict()
    write_checkpoint(tmp_path / "c", weights, CONFIG, FACTS)
    back = read_checkpoint(tmp_path / "c")
    assert same_weights(back.weights, weights)
    assert same(back.config, CONFIG)
    assert same(back.facts, FACTS)
    assert back.source.folder == tmp_path / "c"
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["config.json", "model.safetensors"]
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


DTYPES = """float64 float32 float16 bfloat16 complex128 complex64 complex32 int64 int32 int16 int8 uint64 uint32 uint16
uint8 float8_e4m3fn float8_e5m2 float8_e8m0fnu""".split()


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", [getattr(torch, name) for name in DTYPES], ids=DTYPES)
def test_every_dtype_comes_back_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    content = torch.arange(48, dtype=torch.uint8)
    training = {"a": content.view(dtype), "b": content.view(dtype)[:0], "c": content.view(dtype)[0]}
    write_checkpoint(tmp_path / "c", {}, {}, {}, training)
    assert same(read_training(tmp_path / "c"), training)


def test_a_training_state_comes_back(tmp_path: Path) -> None:
    table = torch.arange(12.0).reshape(3, 4)
    tied = torch.ones(2, 2)
    training = {
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}, 1: {}}, "param_groups": [{"betas": (0.9, 1)}]}],
        "losses": {"best": math.inf, "worst": -math.inf, "none yet": math.nan, "zero": -0.0},
        "keys": {1: "int", "1": "str", "": None, "$tensor": "x", "a.b": torch.tensor(1), "a": {"b": torch.tensor(2)}},
        "views": [table.T, table[:, 1], table[::2], tied, {"again": tied}, table[0, 0], torch.empty(0, 3)],
        "flags": torch.tensor([True, False]),
        "nested": ((), [], {}, ((1, [2.5, ("x",)]),), {"é": "≥ Å \ud800"}),
        "numbers": [True, 1, 1.0, 2**80, -(2**63)],
        "set": {1, 2, "three"},
        "rng": torch.get_rng_state(),
    }
    write_checkpoint(tmp_path / "c", {}, {}, {}, training)
    assert same(read_training(tmp_path / "c"), training)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
LEAVES |= st.lists(st.integers(-9, 9), max_size=3).map(torch.tensor)
KEYS = st.text(max_size=3) | st.integers() | st.sampled_from(["$tensor", "$dict", "a.b", "0"])


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        LEAVES,
        lambda x: st.lists(x, max_size=3) | st.lists(x, max_size=3).map(tuple) | st.dictionaries(KEYS, x, max_size=3),
        max_leaves=12,
    )
)
def test_any_nesting_comes_back(value: Any) -> None:
    encoded, tensors = split(value, "training")
    text = json.dumps(encoded, allow_nan=False)
    stored = safetensors.torch.load(safetensors.torch.save(tensors))
    assert same(join(json.loads(text), stored), value)


def test_subclasses_and_paths_are_stored_as_what_they_derive_from(tmp_path: Path) -> None:
    training = {
        "state": OrderedDict(a=nn.Parameter(torch.ones(2))),
        "size": torch.Size([1, 2]),
        "at": Path("a/b"),
    }
    write_checkpoint(tmp_path / "c", {}, {}, {}, training)
    expected = {"state": {"a": torch.ones(2)}, "size": (1, 2), "at": "a/b"}
    assert same(read_training(tmp_path / "c"), expected)


def test_tied_and_strided_weights_come_back(tmp_path: Path) -> None:
    table = torch.arange(6.0).reshape(2, 3)
    weights = {"a": table, "b": table, "c": table.T, "d": table[0]}
    write_checkpoint(tmp_path / "c", weights, {}, {})
    assert same_weights(read_checkpoint(tmp_path / "c").weights, {k: v.contiguous() for k, v in weights.items()})


@pytest.mark.parametrize(
    ("training", "where"),
    [
        ({"a": [1, {"b": object()}]}, r"training\.a\.1\.b: .*object"),
        ({"a": print}, r"training\.a: .*builtin"),
        ({"a": torch.float32}, r"training\.a: .*torch\.dtype"),
        ({"a": {(1, 2): 3}}, r"training\.a: .*key.*tuple"),
        ({"a": torch.eye(2).to_sparse()}, r"training\.a: .*sparse"),
    ],
)
def test_what_cannot_be_stored_is_named(training: dict[str, Any], where: str, folder: Path) -> None:
    before = read_training(folder)
    with pytest.raises(TypeError, match=where):
        write_checkpoint(folder, {}, {}, {}, training)
    assert same(read_training(folder), before)


def test_tensors_have_no_place_in_the_facts(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"facts\.loss: a tensor"):
        write_checkpoint(tmp_path / "c", {}, {}, {"loss": torch.tensor(1.0)})


def test_config_json_is_plain_json_with_the_hash_of_the_weights(folder: Path) -> None:
    description = json.loads((folder / "config.json").read_text())
    assert description["format"] == 1
    assert description["config"] == CONFIG
    assert description["facts"] == {**FACTS, "losses": {"kl": {"$float": "inf"}}}
    assert description["sha256"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


# Writing is all or nothing


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
@pytest.mark.parametrize("at", range(4))
def test_an_interrupted_write_leaves_the_old_checkpoint(
    at: int, error: type[BaseException], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before each of the four files is written, half of it on disk."""
    written: list[Path] = []

    def stop_at(kind: str) -> Any:
        original = getattr(Path, kind)

        def write(path: Path, content: Any, *args: Any, **kwargs: Any) -> Any:
            if len(written) == at:
                original(path, content[: len(content) // 2], *args, **kwargs)
                raise error
            written.append(path)
            return original(path, content, *args, **kwargs)

        return write

    before = read_checkpoint(folder)
    monkeypatch.setattr(Path, "write_bytes", stop_at("write_bytes"))
    monkeypatch.setattr(Path, "write_text", stop_at("write_text"))
    with pytest.raises(error):
        write_checkpoint(folder, net().state_dict(), {}, {}, {"step": 8})
    assert same_weights(read_checkpoint(folder).weights, before.weights)
    assert read_training(folder)["step"] == 7
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_a_failing_rename_puts_the_old_checkpoint_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if Path(target) == folder and not str(path).endswith(".old"):
            raise OSError(28, "No space left on device")
        return original(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    assert "No space left" in refusal(write_checkpoint, folder, {}, {}, {})
    assert read_training(folder)["step"] == 7
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_kill_9_while_writing_again_and_again(tmp_path: Path) -> None:
    """Whenever the process dies, the run has a whole checkpoint to go on from, of the last step or the one before."""
    program = (
        "import sys, torch\n"
        "from dpcdvae.checkpoints.checkpoint import write_checkpoint\n"
        "for step in range(10**6):\n"
        "    state = torch.full((200_000,), float(step))\n"
        "    write_checkpoint(sys.argv[1], {'w': state}, {}, {'global_step': step}, {'step': step, 'moment': state})\n"
        "    print(step, flush=True)\n"
    )
    run = tmp_path / "run"
    for pause in (1, 17):
        command = [sys.executable, "-c", program, str(run / "checkpoints" / "last")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= pause:
                break
        process.kill()
        reached = max(int(line), *(int(rest) for rest in process.stdout.read().split()), 0)
        process.wait()
        last = model_store.last_checkpoint(run)
        training, checkpoint = read_training(last), read_checkpoint(last)
        assert training["step"] in (reached, reached + 1)
        assert (training["moment"] == training["step"]).all()
        assert torch.equal(checkpoint.weights["w"], training["moment"])


# Refusals


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    for read in (read_checkpoint, read_training):
        assert "no such checkpoint folder" in refusal(read, tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    assert f"{name} is missing" in refusal(read_checkpoint, folder)


@pytest.mark.parametrize("name", ["training.json", "training.safetensors"])
def test_a_missing_training_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    message = refusal(read_training, folder)
    assert "weights only" in message if name == "training.json" else f"{name} is missing" in message
    read_checkpoint(folder)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "training.json", "training.safetensors"])
def test_a_file_cut_off_is_refused(name: str, part: float, folder: Path) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(part * len(content))])
    read = read_training if name.startswith("training") else read_checkpoint
    message = refusal(read, folder)
    assert str(folder / name) in message
    assert "cut off" in message
    assert "copy the checkpoint again" in message


@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors"])
def test_a_flipped_bit_is_refused(name: str, folder: Path) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    read = read_training if name.startswith("training") else read_checkpoint
    assert re.search("damaged or of another checkpoint.*hash", refusal(read, folder))


def test_the_weights_of_another_checkpoint_are_refused(folder: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "other", net().state_dict(), CONFIG, FACTS)
    shutil.copy(tmp_path / "other" / "model.safetensors", folder)
    assert "hash is not the one in config.json" in refusal(read_checkpoint, folder)


@pytest.mark.parametrize(
    "text", ["[]", "null", "3", "{}", '{"format": "1"}', '{"format": 1}', "\xff\xfe", "format = 1", '{"format": 1']
)
def test_another_config_json_is_refused(text: str, folder: Path) -> None:
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    for read in (read_checkpoint, read_training):
        assert "config.json" in refusal(read, folder)


def test_a_newer_format_asks_for_an_upgrade(folder: Path) -> None:
    description = json.loads((folder / "config.json").read_text())
    newer = {"format": 2, "dpcdvae": "9.1"}  # of the rest nothing is known
    for content in (newer, {**description, **newer}):
        (folder / "config.json").write_text(json.dumps(content))
        for read in (read_checkpoint, read_training):
            message = refusal(read, folder)
            assert "newer dpcdvae (9.1)" in message
            assert "upgrade" in message


@pytest.mark.parametrize(
    "state",
    [[1], None, {"$tensor": "gone"}, {"$tuple": 3}, {"$new": 1}, {"a": {"$bytes": "x", "dtype": "f", "shape": []}}],
)
def test_a_training_state_of_something_else_is_refused(state: Any, folder: Path) -> None:
    document = json.loads((folder / "training.json").read_text())
    (folder / "training.json").write_text(json.dumps({**document, "state": state}))
    assert "training.json is damaged" in refusal(read_training, folder)


class Bomb:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("exploded",))


@pytest.mark.parametrize("form", ["pickle", "torch zip", "torch legacy"])
def test_a_pickle_is_refused_and_not_run(
    form: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bomb = tmp_path / "bomb"
    if form == "pickle":
        bomb.write_bytes(pickle.dumps(Bomb()))
    else:
        torch.save(Bomb(), bomb, _use_new_zipfile_serialization=form == "torch zip")
    for name, read in (("model.safetensors", read_checkpoint), ("training.safetensors", read_training)):
        shutil.copy(bomb, folder / name)
        assert "is a pickle: refused, dpcdvae loads only safetensors" in refusal(read, folder)
    for name in ("model.ckpt", "model.pt", "model"):
        shutil.copy(bomb, tmp_path / name)
        for read in (model_store.find_model, read_checkpoint):
            assert "is a pickle: refused" in refusal(read, tmp_path / name)
    (tmp_path / "peer").mkdir()
    shutil.copy(bomb, tmp_path / "peer" / "epoch=1.ckpt")
    assert "is a pickle: refused" in refusal(model_store.find_model, tmp_path / "peer")
    assert not (tmp_path / "exploded").exists()


def test_safetensors_are_not_taken_for_a_pickle(tmp_path: Path) -> None:
    """A header of 0x80 or 0x280 bytes begins like a pickle of protocol 0 or 2."""
    found = set()
    for length in range(1, 700):
        path = tmp_path / "x.safetensors"
        path.write_bytes(safetensors.torch.save({"a" * length: torch.ones(1)}))
        found.add(path.read_bytes()[:2])
        assert not pickles.is_pickle(path)
    assert {b"\x80\x00", b"\x80\x02"} <= found


def test_weights_that_do_not_fit_are_named(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    model = net()
    load_weights(model, checkpoint)
    assert same_weights(model.state_dict(), checkpoint.weights)

    other = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2), nn.Linear(2, 2))
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    message = refusal(load_weights, other, checkpoint)
    assert "2 missing (3.bias, 3.weight)" in message
    assert "0.weight (4, 3) instead of (5, 3)" in message
    assert same_weights(other.state_dict(), before)
    message = refusal(load_weights, nn.Sequential(nn.Linear(3, 4)), checkpoint)
    assert "2 unexpected (2.bias, 2.weight)" in message
    assert str(folder / "model.safetensors") in message


def test_weights_load_into_double_precision(folder: Path) -> None:
    model = net().double()
    load_weights(model, read_checkpoint(folder))
    assert all(tensor.dtype == torch.float64 for tensor in model.state_dict().values())


# Imports


def test_loading_brings_no_lightning(folder: Path) -> None:
    program = (
        "import sys; from dpcdvae.checkpoints.checkpoint import read_checkpoint; read_checkpoint(sys.argv[1])\n"
        "assert not {'lightning', 'pymatgen', 'ase'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True)
    assert not hasattr(checkpoint_module, "lightning")
