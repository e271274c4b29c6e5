"""Crystals that nobody should make and somebody will, written into every format without any check."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dpcdvae.structures.crystal import lattice_from_parameters
from dpcdvae.structures.elements import ATOMIC_NUMBERS, SYMBOLS

CUBE = np.eye(3) * 4.0
BODY = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])


@dataclass(frozen=True)
class Odd:
    """What a file may hold: symbols that need not be elements, numbers that need not be finite."""

    id: str
    symbols: list[str]
    frac_coords: np.ndarray
    lattice: np.ndarray


def odd_crystals() -> list[Odd]:
    """The kinds by id; the comments say why each is here."""
    rng = np.random.default_rng(0)
    one = np.zeros((1, 3))
    salt = ["Na", "Cl"]
    far, skew = rng.random((2, 3)) * 1e5, np.array([[1, 0, 0], [57, 1, 0], [-31, 44, 1]])
    cases = {
        "sound": (salt, BODY, CUBE),
        "coincident": (["C"] * 4, np.zeros((4, 3)), CUBE),
        "nearly coincident": (salt, [[0, 0, 0], [1e-9, 0, 0]], CUBE),
        "sites twice": (salt * 2, np.tile(BODY, (2, 1)), CUBE),
        "on its image": (salt, [[0, 0, 0], [1, 0, 0]], CUBE),
        "sliver": (salt, BODY, [[9.0, 0, 0], [8.99, 0.02, 0], [0, 0, 9.0]]),
        "flat": (salt, BODY, [[5.0, 0, 0], [5.0, 1e-7, 0], [0, 0, 5.0]]),
        "needle": (salt, BODY, np.diag([1.1, 1.1, 900.0])),
        "sheet": (salt, BODY, np.diag([200.0, 200.0, 0.6])),
        "skewed": (salt, BODY @ np.linalg.inv(skew), skew @ CUBE),
        "thousandth": (["C"], one, np.eye(3) * 1e-3),
        "tenth": (["C"], one, np.eye(3) * 0.1),
        "half": (["C"], one, np.eye(3) * 0.55),
        "ten thousand": (salt, BODY, np.eye(3) * 1e4),
        "ten thousand, close": (salt, BODY * 1e-4 * 0.5, np.eye(3) * 1e4),
        "nan coordinate": (salt, [[np.nan, 0, 0], [0.5, 0.5, 0.5]], CUBE),
        "nan lattice": (salt, BODY, CUBE * np.nan),
        "infinite coordinate": (salt, [[np.inf, 0, 0], [0.5, 0.5, 0.5]], CUBE),
        "infinite lattice": (salt, BODY, np.diag([4.0, 4.0, np.inf])),
        "zero vector": (salt, BODY, np.diag([4.0, 4.0, 0.0])),
        "no volume": (salt, BODY, np.zeros((3, 3))),
        "no cell": (salt, BODY, None),  # angles that close none, where a format has angles
        "five hundred": (["C"] * 500, rng.random((500, 3)), np.eye(3) * 16.0),
        "five hundred of many": ([SYMBOLS[k % 90 + 1] for k in range(500)], rng.random((500, 3)), np.eye(3) * 20.0),
        "one atom": (["Po"], one, np.eye(3) * 3.3),
        "noble gas": (["Xe"], one, np.eye(3) * 6.0),
        "noble gases": (["He", "Ne", "Ar", "Kr"], rng.random((4, 3)), np.eye(3) * 7.0),
        "left-handed": (salt, BODY, -CUBE),
        "far away": (salt, far, CUBE),
        "too far away": (salt, far * 1e4, CUBE),
        "dummy": (["X", "Cl"], BODY, CUBE),
        "unknown": (["Qq", "Cl"], BODY, CUBE),
        "deuterium": (["D", "Cl"], BODY, CUBE),
        "every element": (SYMBOLS[1:], rng.random((118, 3)), np.eye(3) * 14.0),
        "i" * 300: (salt, BODY, CUBE),
        "the same": (salt, BODY, CUBE * 1.01),
        'quote " comma , semicolon ;': (salt, BODY, CUBE * 1.02),
        "": (salt, BODY, CUBE * 1.03),
    }
    odd = [Odd(id, list(symbols), np.array(frac, float), _lattice(cell)) for id, (symbols, frac, cell) in cases.items()]
    odd += [Odd("the same", salt, BODY, CUBE * 0.99)] * 2
    return odd + [Odd(f"simple {symbol}", [symbol], one, np.eye(3) * 3.0) for symbol in SYMBOLS[1:]]


def _lattice(cell: object) -> np.ndarray:
    if cell is None:
        return lattice_from_parameters(np.full(3, 4.0), np.array([30.0, 30.0, 170.0]))
    return np.array(cell, float)


def _parameters(crystal: Odd) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and angles; what closes no cell keeps angles that close none."""
    if np.isnan(crystal.lattice).all() and crystal.id == "no cell":
        return np.full(3, 4.0), np.array([30.0, 30.0, 170.0])
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = np.linalg.norm(crystal.lattice, axis=1)
        unit = crystal.lattice / lengths[:, None]
        cosines = np.array([unit[1] @ unit[2], unit[0] @ unit[2], unit[0] @ unit[1]])
        return lengths, np.degrees(np.arccos(np.clip(cosines, -1, 1)))


def cif(crystal: Odd) -> str:
    lengths, angles = _parameters(crystal)
    name = "".join(character if character.isalnum() else "_" for character in crystal.id) or "x"
    lines = [f"data_{name}"]
    lines += [f"_cell_length_{axis} {value!r}" for axis, value in zip("abc", lengths.tolist(), strict=True)]
    lines += [
        f"_cell_angle_{angle} {v!r}" for angle, v in zip(("alpha", "beta", "gamma"), angles.tolist(), strict=True)
    ]
    lines += ["loop_", "_symmetry_equiv_pos_as_xyz", "'x, y, z'", "loop_", "_atom_site_type_symbol"]
    lines += ["_atom_site_label", "_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z"]
    for k, (symbol, (x, y, z)) in enumerate(zip(crystal.symbols, crystal.frac_coords.tolist(), strict=True)):
        lines.append(f"{symbol} {symbol}{k} {x!r} {y!r} {z!r}")
    return "\n".join([*lines, ""])


PARTIAL = """data_partial
_cell_length_a 4\n_cell_length_b 4\n_cell_length_c 4\n_cell_angle_alpha 90\n_cell_angle_beta 90\n_cell_angle_gamma 90
loop_\n_symmetry_equiv_pos_as_xyz\n'x, y, z'
loop_\n_atom_site_type_symbol\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z
_atom_site_occupancy\nNa Na0 0 0 0 0.5\nK K0 0 0 0 0.5\nCl Cl0 0.5 0.5 0.5 1\n"""


def write_cif(crystals: list[Odd], path: Path) -> None:
    path.write_text("".join(map(cif, crystals)) + PARTIAL, encoding="utf-8")


def write_extxyz(crystals: list[Odd], path: Path) -> None:
    lines = []
    for crystal in crystals:
        lattice = " ".join(map(repr, crystal.lattice.ravel().tolist()))
        id = crystal.id.replace('"', '\\"')
        lines += [str(len(crystal.symbols)), f'Lattice="{lattice}" Properties=species:S:1:pos:R:3 id="{id}"']
        with np.errstate(invalid="ignore"):
            coords = crystal.frac_coords @ crystal.lattice
        lines += [f"{s} {x!r} {y!r} {z!r}" for s, (x, y, z) in zip(crystal.symbols, coords.tolist(), strict=True)]
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")


def write_csv(crystals: list[Odd], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["material_id", "cif", "energy"])
        for crystal in crystals:
            writer.writerow([crystal.id, cif(crystal), "nan"])
        writer.writerow(["partial", PARTIAL, "1"])
        writer.writerow(["nothing", "", ""])


def write_json(crystals: list[Odd], path: Path) -> None:
    entries = [
        {
            "id": crystal.id,
            "atomic_numbers": [ATOMIC_NUMBERS.get(symbol, 0) for symbol in crystal.symbols],
            "frac_coords": crystal.frac_coords.tolist(),
            "lattice": crystal.lattice.tolist(),
        }
        for crystal in crystals
    ]
    path.write_text(json.dumps({"format": "dpcdvae-crystals", "version": 1, "crystals": entries}), encoding="utf-8")


def write_npz(crystals: list[Odd], path: Path) -> None:
    parameters = [_parameters(crystal) for crystal in crystals]
    np.savez(
        path,
        frac_coords=np.concatenate([crystal.frac_coords for crystal in crystals]),
        atom_types=np.array([ATOMIC_NUMBERS.get(symbol, 0) for crystal in crystals for symbol in crystal.symbols]),
        num_atoms=np.array([len(crystal.symbols) for crystal in crystals]),
        lengths=np.array([lengths for lengths, _ in parameters]),
        angles=np.array([angles for _, angles in parameters]),
    )


def write_folder(crystals: list[Odd], path: Path) -> None:
    path.mkdir()
    for k, crystal in enumerate(crystals):
        (path / f"{k}.cif").write_text(cif(crystal), encoding="utf-8")
    (path / "empty.cif").write_text("")
    (path / "partial.cif").write_text(PARTIAL)
    (path / "noise.cif").write_bytes(bytes(range(256)))
    (path / "noise.json").write_bytes(b"[1, {}, null, {'a'")
    (path / "noise.npz").write_bytes(b"PK\3\4 and no more")
    (path / "notes.txt").write_text("no crystal")


def write_zip(crystals: list[Odd], path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for k, crystal in enumerate(crystals):
            archive.writestr(f"{k}.cif", cif(crystal))
        archive.writestr("empty.cif", "")
        archive.writestr("../../outside.cif", cif(crystals[0]))


WRITERS: dict[str, Callable[[list[Odd], Path], None]] = {
    "odd.cif": write_cif,
    "odd.extxyz": write_extxyz,
    "odd.csv": write_csv,
    "odd.json": write_json,
    "odd.npz": write_npz,
    "odd": write_folder,
    "odd.zip": write_zip,
}
