"""What bad files say: one line with the file, the place and the reason; never a traceback."""

from __future__ import annotations

import contextlib
import gzip
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from crystal_files import message, peer_file
from dpcdvae.errors import InputError
from dpcdvae.io import Failure, cif_text, crystal_from_cif, read, write
from dpcdvae.io.sources import MAX_BYTES
from dpcdvae.prototypes import build_prototypes
from dpcdvae.structures.crystal import Crystal


@pytest.fixture
def salt() -> Crystal:
    return next(c for c in build_prototypes() if c.id == "rock_salt-NaCl")


GOOD = cif_text(Crystal([11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], np.eye(3) * 4))

BAD_CIFS = {
    "partial occupancy": (GOOD.replace("0.50000000 1\n", "0.50000000 0.5\n"), "partial occupancies"),
    "deuterium": (GOOD.replace("  Na Na0", "  D D0"), "isotope 'D': write it as H"),
    "tritium": (GOOD.replace("  Na Na0", "  T T0"), "isotope 'T': write it as H"),
    "dummy": (GOOD.replace("  Na Na0", "  X X0"), "'X' is not an element"),
    "vacancy": (GOOD.replace("  Na Na0", "  Vac Na0"), "'Vac' is not an element"),
    "no element": (GOOD.replace("  Na Na0", "  Qq Qq0"), "'Qq' is not an element"),
    "NaN lattice": (GOOD.replace("_cell_length_a 4.00000000", "_cell_length_a nan"), "the lattice is not finite"),
    "infinite coordinate": (GOOD.replace("0.50000000 1\n", "inf 1\n"), "coordinates are not finite"),
    "no volume": (GOOD.replace("_cell_length_a 4.00000000", "_cell_length_a 0.0"), "degenerate"),
    "impossible angles": (
        GOOD.replace("_cell_angle_alpha 90.0", "_cell_angle_alpha 179.0").replace(
            "_cell_angle_beta 90.0", "_cell_angle_beta 20.0"
        ),
        "the lattice is not finite",
    ),
    "no atoms": (GOOD[: GOOD.index("loop_\n _atom_site")], "no atoms with fractional coordinates"),
    "no data block": ("hello world\n", "no CIF data block"),
    "words for numbers": (GOOD.replace("0.50000000 1\n", "half 1\n"), "_atom_site_fract_z 'half' is not a number"),
    "no value": (GOOD.replace("0.50000000 1\n", "0.5\n"), "Wrong number of values in loop"),
    "open quote": (GOOD.replace("'P 1'", "'P 1"), "line 10 of the block: unterminated 'string'"),
    "two lengths": (GOOD + "_cell_length_a 5\n", "two different values of _cell_length_a"),
    "cut off": (GOOD[:-30], ""),
}


@pytest.mark.parametrize("kind", BAD_CIFS)
def test_bad_cifs_are_refused_with_the_reason(kind: str, tmp_path: Path) -> None:
    text, reason = BAD_CIFS[kind]
    assert text != GOOD
    path = tmp_path / "bad.cif"
    path.write_text(text)
    said = message(lambda: read(path))
    assert said.startswith(str(path))
    assert reason in said


@pytest.mark.parametrize("kind", [k for k in BAD_CIFS if k != "no data block"])
def test_row_17_is_named_and_the_others_are_read(kind: str, tmp_path: Path, salt: Crystal) -> None:
    path = tmp_path / "rows.csv"
    write([salt.with_id(f"r{k}") for k in range(1, 21)], path)
    rows = path.read_text().split("r17,")
    before, after = rows[0], rows[1]
    tail = after[after.index('\n",') :]
    path.write_text(before + 'r17,"' + BAD_CIFS[kind][0].rstrip("\n").replace('"', '""') + tail)
    said = message(lambda: read(path))
    assert f"{path} row 17: " in said
    assert BAD_CIFS[kind][1] in said
    failures: list[Failure] = []
    found = read(path, failures)
    assert [c.id for c in found] == [f"r{k}" for k in range(1, 21) if k != 17]
    assert [(f.id, f.where) for f in failures] == [("r17", f"{path} row 17")]
    assert BAD_CIFS[kind][1] in failures[0].reason


def test_csv_without_cif_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,structure\n1,x\n")
    said = message(lambda: read(tmp_path / "a.csv"))
    assert "no column 'cif', and none that holds crystals (columns: 'id', 'structure')" in said
    assert message(lambda: read(tmp_path / "a.csv", [])) == said  # no list of failures helps here


@pytest.mark.parametrize(
    "name", ["a.cif", "a.csv", "a.csv.gz", "a.json", "a.npz", "a.pt", "a.extxyz", "POSCAR", "a.zip"]
)
@pytest.mark.parametrize("content", [b"", b"\n \n", b"\x00\xff\xfegarbage\x93", b"words\n"])
def test_empty_and_garbled_files(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    said = message(lambda: read(tmp_path / name))
    assert said.startswith(str(tmp_path / name))
    if name == "a.csv.gz":
        (tmp_path / name).write_bytes(gzip.compress(content))
        assert message(lambda: read(tmp_path / name)).startswith(str(tmp_path / name))


@pytest.mark.parametrize("name", ["x.cif", "x.extxyz", "x.csv.gz", "x.json", "x.npz", "x.zip", "POSCAR", "x.pt"])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.95])
def test_a_file_cut_in_half(name: str, kept: float, tmp_path: Path, salt: Crystal) -> None:
    """An error in one line, or fewer crystals; never a traceback."""
    some = [salt.with_id("a")] if name == "POSCAR" else [salt.with_id(f"c{k}") for k in range(9)]
    path = peer_file(tmp_path / name, some) if name == "x.pt" else write(some, tmp_path / name)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    if name == "POSCAR" and kept > 0.9:  # the last digits of the last number: nobody can tell
        return
    if name in ("x.cif", "x.extxyz"):  # may have lost whole crystals
        with contextlib.suppress(InputError):
            assert len(read(path)) < len(some)
    else:
        assert message(lambda: read(path)).startswith(str(path))


def test_an_npz_with_damaged_content(tmp_path: Path, salt: Crystal) -> None:
    path = write([salt.with_id(f"c{k}") for k in range(9)], tmp_path / "x.npz")
    content = bytearray(path.read_bytes())
    for position in range(100, 600, 7):
        content[position] ^= 0x5A
    path.write_bytes(content)
    assert message(lambda: read(path)).startswith(str(path))


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.extxyz", "{}\nLattice=\n"), ("x.json", '{{"a": {{"atomic_numbers": [{}]}}}}')],
    ids=["extxyz", "json"],
)
def test_integers_of_thousands_of_digits(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content.format("9" * 5000))
    assert message(lambda: read(tmp_path / name)).startswith(str(tmp_path / name))


def test_pickles_run_nothing(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Payload:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return Path.touch, (tmp_path / "pwned",)  # type: ignore[return-value]

    peer_file(tmp_path / "evil.pt", build_prototypes()[:2], extra=Payload())
    assert len(read(tmp_path / "evil.pt")) == 2
    torch.save(Payload(), tmp_path / "whole.pt")
    assert "a dictionary of tensors is needed" in message(lambda: read(tmp_path / "whole.pt"))
    torch.save(Payload(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert "not written by torch.save (1.6 or later)" in message(lambda: read(tmp_path / "old.pt"))
    arrays = dict.fromkeys(("frac_coords", "num_atoms", "atom_types", "lengths", "angles"), np.array([Payload()]))
    np.savez(tmp_path / "evil.npz", **arrays, allow_pickle=True)
    assert message(lambda: read(tmp_path / "evil.npz")).startswith(str(tmp_path / "evil.npz"))
    assert not (tmp_path / "pwned").exists()


def test_npz_that_does_not_fit(tmp_path: Path, salt: Crystal) -> None:
    stored = dict(np.load(write([salt, salt], tmp_path / "a.npz")))
    for key, value, reason in (
        ("num_atoms", np.array([2, 3]), "add up to 5, but there are 4"),
        ("lengths", np.ones((3, 3)), "shapes"),
        ("atom_types", np.ones(4), "shapes or types"),
        ("property/packing_fraction", np.array(["a", "b"]), "one number per crystal"),
        ("ids", np.array(["a"]), "1 ids for 2 crystals"),
    ):
        np.savez(tmp_path / "b.npz", **{**stored, key: value})
        assert reason in message(lambda: read(tmp_path / "b.npz"))
    np.savez(tmp_path / "c.npz", other=np.ones(2))
    assert "no array frac_coords" in message(lambda: read(tmp_path / "c.npz"))


def test_nan_crystals_are_failures_not_the_end(tmp_path: Path, salt: Crystal) -> None:
    stored = dict(np.load(write([salt] * 5, tmp_path / "a.npz")))
    stored["lengths"][1] = np.nan
    stored["frac_coords"][4] = np.inf
    stored["atom_types"][6] = 0
    np.savez(tmp_path / "b.npz", **stored)
    failures: list[Failure] = []
    assert len(read(tmp_path / "b.npz", failures)) == 2
    assert [f.where.rsplit(" ", 1)[1] for f in failures] == ["2", "3", "4"]
    assert "lattice is not finite" in failures[0].reason
    assert "crystal 2: the lattice" in message(lambda: read(tmp_path / "b.npz"))
    frames = write([salt] * 3, tmp_path / "a.extxyz").read_text().splitlines()
    frames[6] = "Na nan 0 0"
    (tmp_path / "b.extxyz").write_text("\n".join(frames))
    failures = []
    assert len(read(tmp_path / "b.extxyz", failures)) == 2
    assert "frame 2" in failures[0].where


def test_what_cannot_be_opened_in_a_folder_leaves_the_rest(
    tmp_path: Path, salt: Crystal, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, shut = tmp_path / "all", tmp_path / "all" / "m_shut"
    shut.mkdir(parents=True)
    for name in ("a.cif", "z.cif", "good.zip"):
        write([salt.with_id(name[0])], folder / name)
    whole = (folder / "good.zip").read_bytes()
    (folder / "b.zip").write_bytes(whole[:-30])
    (folder / "c.zip").write_bytes(b"")
    (folder / "d.zip").write_bytes(b"PK" + whole[2:].replace(b"PK", b"QK"))
    with zipfile.ZipFile(folder / "e.zip", "w") as archive:
        archive.writestr("in.cif", cif_text(salt.with_id("e")))
        archive.writestr("inner/good.zip", whole)
    (folder / "gone.cif").symlink_to(tmp_path / "nowhere.cif")
    (folder / "notes.txt").symlink_to(tmp_path / "nowhere.txt")  # of no format: nobody meant it as crystals
    listing = os.scandir

    def scandir(path: str) -> object:
        if Path(path) == shut:
            raise PermissionError(13, "Permission denied", path)
        return listing(path)

    monkeypatch.setattr(os, "scandir", scandir)
    failures: list[Failure] = []
    counts: dict[str, int] = {}
    assert [c.id for c in read(folder, failures, counts)] == ["a", "e", "g", "z"]
    reasons = {f.where.removeprefix(f"{folder}/"): f.reason for f in failures}
    assert set(reasons) == {
        "b.zip", "c.zip", "d.zip", "e.zip:inner/good.zip", "gone.cif", "m_shut"
    }  # fmt: skip
    assert all("not a zip archive, or cut off" in reasons[name] for name in ("b.zip", "c.zip", "d.zip"))
    assert "an archive in an archive" in reasons["e.zip:inner/good.zip"]
    assert "Permission denied" in reasons["m_shut"]
    assert sum(counts.values()) == 4 + len(failures)
    assert "not a zip archive" in message(lambda: read(folder / "b.zip", []))


def test_bad_files_in_a_folder_or_zip_are_named(tmp_path: Path, salt: Crystal) -> None:
    folder = write([salt.with_id("a"), salt.with_id("c")], tmp_path / "out")
    (folder / "b.cif").write_text("hello")
    (folder / "d.csv").write_text("x\n1\n")
    (folder / "e.cif").write_text("")
    failures: list[Failure] = []
    assert [c.id for c in read(folder, failures)] == ["a", "c"]
    assert [Path(f.where).name for f in failures] == ["b.cif", "d.csv", "e.cif"]
    assert "empty" in failures[2].reason
    assert message(lambda: read(folder)).startswith(str(folder / "b.cif"))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"inner/{file.name}")
    failures = []
    assert [c.id for c in read(tmp_path / "x.zip", failures)] == ["a", "c"]
    assert failures[0].where == f"{tmp_path / 'x.zip'}:inner/b.cif"


def test_missing_files_are_refused_by_name(tmp_path: Path) -> None:
    assert "no such file" in message(lambda: read(tmp_path / "none.cif"))
    assert "no such file" in message(lambda: read(tmp_path / "none.zip"))
    (tmp_path / "empty").mkdir()
    assert "no crystals" in message(lambda: read(tmp_path / "empty"))
    (tmp_path / "a.cff").write_text("x")
    assert "did you mean '.cif'" in message(lambda: read(tmp_path / "a.cff"))


def test_absurdly_large_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_BYTES == 2**31
    monkeypatch.setattr("dpcdvae.io.sources.MAX_BYTES", 2**20)
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(b" " * 2**22))
    assert "larger than" in message(lambda: read(tmp_path / "bomb.csv.gz"))
    monkeypatch.setattr("dpcdvae.io.cif.MAX_CIF_BYTES", 1000)
    (tmp_path / "a.cif").write_text(GOOD + "#" * 2000)
    assert "MB for one crystal" in message(lambda: read(tmp_path / "a.cif"))


def test_text_fields_and_missing_values(tmp_path: Path) -> None:
    field = "_publ_section_title\n;\nA title\ndata_ is no block here, loop_ neither\n;\nloop_\n _atom_site_type"
    text = GOOD.replace("loop_\n _atom_site_type", field).replace("0.50000000 1\n", "0.50000000 .\n")
    assert text.count("title") == 2
    assert crystal_from_cif(text).symbols == ["Na", "Cl"]
    symmetric = text.replace("'P 1'", "'P -1'").replace("Tables_number 1", "Tables_number 2").replace("?", ".")
    assert crystal_from_cif(symmetric.replace("  1 'x, y, z'", "  1 'x,y,z'\n 2 '-x,-y,-z'")).symbols == ["Na", "Cl"]


@pytest.mark.parametrize(
    "text",
    [
        "3",
        "[]",
        "{}",
        "[1]",
        '{"a": 1}',
        '[{"sites": 1}]',
        "[" * 10**5,
        '{"format": "dpcdvae-crystals", "version": 2}',
        '{"format": "dpcdvae-crystals", "version": 1, "crystals": 3}',
        '{"format": "dpcdvae-crystals", "version": 1, "crystals": [{"atomic_numbers": [1.5]}]}',
    ],
    ids=lambda text: text[:60],
)
def test_json_that_holds_no_crystals(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    assert message(lambda: read(tmp_path / "a.json")).startswith(f"{tmp_path / 'a.json'}")


def test_bad_poscars_are_refused_with_the_reason(tmp_path: Path) -> None:
    good = "c\n1.0\n4 0 0\n0 4 0\n0 0 4\nNa Cl\n1 1\nDirect\n0 0 0\n.5 .5 .5\n"
    for old, new, reason in (
        ("Na Cl\n", "", "VASP 4"),
        ("1.0\n4 0 0", "-20\n0 0 0", "degenerate"),
        ("1 1\n", "1 1 1\n", "as many element symbols"),
        ("Na Cl", "Na X", "'X' is not an element"),
        (".5 .5 .5\n", "", "2 atoms announced"),
        ("1 1\n", "1 1000000000000\n", "1000000000001 atoms announced"),
        ("4 0 0", "four 0 0", "not a number"),
    ):
        (tmp_path / "POSCAR").write_text(good.replace(old, new))
        assert reason in message(lambda: read(tmp_path / "POSCAR"))


def test_extxyz_without_cell(tmp_path: Path) -> None:
    (tmp_path / "m.xyz").write_text("1\nwater\nO 0 0 0\n")
    assert "no Lattice" in message(lambda: read(tmp_path / "m.xyz"))
