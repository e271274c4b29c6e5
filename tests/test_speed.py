"""The speed scripts count what they say, in their smallest form. No time is asserted."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import gpu  # noqa: E402
from dpcdvae.config import Config, load_config  # noqa: E402
from dpcdvae.errors import InputError  # noqa: E402
from dpcdvae.model.cdvae import CDVAE  # noqa: E402
from dpcdvae.structures.table import CrystalTable, save_tables  # noqa: E402
from speed import record  # noqa: E402
from speed.command import run, usable_device  # noqa: E402
from speed.counting import count  # noqa: E402
from speed.timing import products, take_turns  # noqa: E402
from speed.workload import passes  # noqa: E402

CHEMISTRY = {"pymatgen", "ase", "spglib", "smact", "matminer"}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def table() -> CrystalTable:
    """Four cubic crystals of five atoms in a row, each bonded to the next."""
    n, size = 4, 5
    following = np.stack([np.arange(size), np.roll(np.arange(size), -1)], 1)
    images = np.zeros((size, 3), np.int64)
    images[-1, 0] = 1
    return CrystalTable(
        ids=np.array([str(k) for k in range(n)]),
        num_atoms=np.full(n, size),
        atomic_numbers=np.tile([38, 22, 8, 8, 8], n),
        frac_coords=np.random.default_rng(0).random((n * size, 3)),
        lattices=np.stack([(4 + 0.1 * k) * np.eye(3) for k in range(n)]),
        num_bonds=np.full(n, size),
        bonds=np.tile(following, (n, 1)),
        bond_images=np.tile(images, (n, 1)),
    )


def test_count_of_one_layer() -> None:
    rows, wide, narrow = 11, 5, 7
    layer, x = nn.Linear(wide, narrow), torch.randn(rows, wide, requires_grad=True)
    with torch.no_grad():
        forward = count(lambda: layer(x))
    product = 2 * rows * wide * narrow
    assert forward.flops == product
    numbers = (
        rows * wide + wide * narrow + narrow + rows * narrow
    )  # input, weight, bias, output; the transpose is a view
    assert forward.operators == [(product, 4 * numbers)]
    # Bound by arithmetic, then by memory.
    assert forward.roofline(1.0, 1e9) == product
    assert forward.roofline(1e9, 1.0) == 4 * numbers
    both = count(lambda: layer(x).sum().backward())
    assert both.flops == 3 * product  # gradients of the input and of the weight


def test_counts_of_a_network_agree_with_torch() -> None:
    block = nn.Sequential(nn.Linear(6, 8), nn.SiLU(), nn.Conv1d(3, 4, 3), nn.Linear(6, 2))
    found = count(lambda: block(torch.randn(2, 3, 6)).sum().backward())
    assert found.flops == sum(flops for flops, _ in found.operators) > 0


def test_functions_take_turns() -> None:
    seen: list[str] = []
    times = take_turns({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, CPU, rounds=3, warm_up=1)
    assert seen == ["a", "b"] * 4
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}


def test_products_do_the_work_that_they_are_credited_with() -> None:
    found = products(CPU, "float32", 256)
    for name in ("square", "tall"):
        assert count(found[name].run).flops == found[name].amount
    copied = count(found["copy"].run)
    assert copied.bytes == pytest.approx(
        1.5 * found["copy"].amount
    )  # the operator's target is an argument and a result


@pytest.mark.parametrize(("system", "expected"), [("dp-cdvae", 7), ("cdvae", 7 * 3)])
def test_passes_are_counted(system: str, expected: int) -> None:
    """Of DP-CDVAE one a level, of CDVAE several a level; and the network is what it was."""
    options = ["diffusion.timesteps=7", *(["diffusion.options.steps_per_level=3"] if system == "cdvae" else [])]
    config = load_config(f"compact/{system}", options)
    assert isinstance(config, Config)
    model = CDVAE(config)
    assert passes(model, model.diffusion.max_steps) == expected
    assert "forward" not in vars(model.denoiser)


def test_smallest_measurement_without_chemistry(
    table: CrystalTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*CHEMISTRY, *(name for name in sys.modules if name.partition(".")[0] in CHEMISTRY)]:
        monkeypatch.setitem(sys.modules, name, None)
    save_tables(tmp_path / "perov_5.npz", {"train": table, "val": table}, {})
    options = f"--device cpu --threads {torch.get_num_threads()} --quick --precision float32".split()
    files = ["--data", str(tmp_path), "--out", str(tmp_path / "found.json")]
    monkeypatch.setattr(sys, "argv", ["gpu.py", "passes", *options, *files])
    assert gpu.main() == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["schema"] == record.SCHEMA
    (case,) = found["cases"]
    assert (case["preset"], case["batch"], case["atoms"]) == ("compact", 4, 20)
    for part in ("pass", "step"):
        numbers = [case[part][name] for name in ("seconds", "gflop", "gbytes", "of_floor", "of_roofline", "peak_mib")]
        assert all(np.isfinite(numbers)), case[part]
        assert min(numbers) > 0
        assert case[part]["of_roofline"] >= case[part]["of_floor"]
    assert case["step"]["gflop"] > 3 * case["pass"]["gflop"]  # the pass, twice as much back, and the encoder
    assert "compact" in record.line({**case, "data": "perov_5"})


def test_history_can_be_read() -> None:
    runs = record.read_history()
    assert [run["machine"]["date"] for run in runs] == sorted(run["machine"]["date"] for run in runs)
    lines = [record.line(case) for run in runs for case in run["cases"] if "error" not in case]
    assert lines
    assert max(len(line) for line in lines) <= 120


def test_bad_input_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise InputError("no such case")

    with pytest.raises(SystemExit) as ended:
        run(main)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: no such case\n"
    with pytest.raises(argparse.ArgumentTypeError, match="nonsense cannot be used here"):
        usable_device("nonsense")
