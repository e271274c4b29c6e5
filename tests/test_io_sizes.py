"""Sizes that a file claims are checked, and what is no file is never opened."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from crystal_files import message
from dpcdvae.io import read, write
from dpcdvae.prototypes import build_prototypes

MIB = 2**20


def said_within(memory: int, call: Callable[[], object]) -> str:
    """The one line of the refusal, if it takes no more than that many bytes."""
    pytest.importorskip("torch")  # whose import would be counted
    tracemalloc.start()
    try:
        text = message(call)
        assert tracemalloc.get_traced_memory()[1] < memory
    finally:
        tracemalloc.stop()
    return text


def array(shape: str, dtype: str = "<f8") -> bytes:
    """An array file that holds a header and nothing else."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


CLAIMS = {
    "terabytes": array("(1000000000000, 3)"),
    "gigabytes": array("(100000000, 3)"),
    "negative": array("(-1, 3)"),
    "objects": array("(1,)", "|O"),
    "no axis": array("()"),
    "long strings": array("(3,)", "<U900000000"),
    "strings of no length": array("(1000000000000,)", "<U0"),
    "bytes of no length": array("(1000000000000,)", "|S0"),
    "raw": b"raw",
    "version": b"\x93NUMPY\x09\x00",
    "nothing": b"",
}


@pytest.mark.parametrize("content", CLAIMS.values(), ids=CLAIMS.keys())
@pytest.mark.parametrize("name", ["frac_coords", "ids", "unused"])
def test_arrays_that_hold_less_than_they_claim(name: str, content: bytes, tmp_path: Path) -> None:
    path = write(build_prototypes()[:2], tmp_path / "a.npz")
    with zipfile.ZipFile(path) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for entry, data in {**entries, f"{name}.npy": content}.items():
            archive.writestr(entry, data)
    assert said_within(20 * MIB, lambda: read(path)).startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["a.npz", "a.zip", "a.pt"])
def test_archives_that_unpack_to_far_more_than_they_hold(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(3):
            archive.writestr(f"{k}.cif", bytes(40 * MIB))
    said = said_within(20 * MIB, lambda: read(tmp_path / name))
    assert "would unpack to 0.1 GiB" in said


def test_an_archive_that_lies_about_what_it_unpacks_to(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.cif", bytes(100 * MIB))
    content = stream.getvalue().replace(struct.pack("<I", 100 * MIB), struct.pack("<I", 1000))
    (tmp_path / "a.zip").write_bytes(content)
    assert said_within(20 * MIB, lambda: read(tmp_path / "a.zip"))


def test_a_gzip_that_unpacks_to_far_more_than_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(bytes(80 * MIB)))
    assert "more than 100 times its size" in message(lambda: read(tmp_path / "a.csv.gz"))


@pytest.mark.parametrize("name", ["pipe.cif", "pipe.zip", "pipe.npz", "pipe.csv.gz", "POSCAR"])
def test_pipes_and_devices_are_not_opened(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    assert message(lambda: read(tmp_path / name)) == f"{tmp_path / name}: a pipe or a device, not a file"
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    assert "a pipe or a device" in message(lambda: read(tmp_path / name))


def test_a_pipe_in_a_folder_is_passed_over(tmp_path: Path) -> None:
    folder = write(build_prototypes()[:2], tmp_path / "out")
    os.mkfifo(folder / "pipe.cif")
    (folder / "zero.cif").symlink_to("/dev/zero")
    assert len(read(folder)) == 2


@pytest.mark.parametrize("name", ["x" * 300 + ".cif", "a\0b.cif", "x/" * 3000 + "a.cif"])
def test_names_that_no_system_takes(name: str) -> None:
    assert "cannot be read" in message(lambda: read(name)) or "no such file" in message(lambda: read(name))


def test_file_names_in_no_encoding_are_handled(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.cif"))
    write(build_prototypes()[:1], tmp_path / "a.cif")
    os.rename(tmp_path / "a.cif", path)
    (crystal,) = read(path)
    assert crystal.id == build_prototypes()[0].id
    path.write_text("hello")
    assert message(lambda: read(path)).encode("utf-8")


def test_a_million_sites_by_symmetry_are_refused(tmp_path: Path) -> None:
    import gemmi

    listed = [operation.triplet() for operation in gemmi.find_spacegroup_by_name("F m -3 m").operations()]
    rows = np.random.default_rng(0).random((5000, 3)).round(4).tolist()
    lines = ["data_x", *(f"_cell_length_{axis} 50" for axis in "abc")]
    lines += [f"_cell_angle_{angle} 90" for angle in ("alpha", "beta", "gamma")]
    lines += ["loop_", "_symmetry_equiv_pos_as_xyz", *listed, "loop_", "_atom_site_type_symbol"]
    lines += [f"_atom_site_fract_{axis}" for axis in "xyz"] + [f"C {x} {y} {z}" for x, y, z in rows]
    (tmp_path / "a.cif").write_text("\n".join([*lines, ""]))
    assert "up to 960000 atoms" in message(lambda: read(tmp_path / "a.cif"))
