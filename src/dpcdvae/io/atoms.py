"""The two formats of atoms in Cartesian or fractional coordinates: extended XYZ and VASP's POSCAR.

Read here and not by ASE, which is as fast (10 000 crystals: 1.9 s either way in extxyz, 0.6 for 0.9 s in POSCAR) but
stops at the first bad frame and says ``KeyError: 'Qq'`` of it, where a bad frame is to be counted with its reason.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dpcdvae.errors import InputError
from dpcdvae.io.cif_writer import right_handed
from dpcdvae.io.failures import Collector
from dpcdvae.io.sources import decode
from dpcdvae.io.species import atomic_number, atomic_number_of
from dpcdvae.structures.crystal import Crystal
from dpcdvae.structures.properties import ID_KEYS, id_names, is_whole, outside_names, parse_floats, parse_number

_QUOTED = r'"(?:\\.|[^"\\])*"'
_PAIR = re.compile(rf"({_QUOTED}|[^\s=]+)\s*=\s*({_QUOTED}|\{{[^}}]*\}}|\[(?:[^\[\]]|\[[^\]]*\])*\]|\S+)")
_WORD = re.compile(r"[A-Za-z_][\w.:/+-]*$", re.ASCII)
_ID_KEYS = (*ID_KEYS, "name")
_FIELDS = ("Lattice", "Properties", "pbc")


def parse_extxyz(data: bytes, where: str, stem: str, collector: Collector) -> None:
    """Every frame of an extended XYZ file (https://github.com/libAtoms/extxyz), finite numbers as properties.

    Raises:
        InputError: a line that should give a number of atoms does not, so the next frame cannot be found.
    """
    lines = decode(data).splitlines()
    position, number = 0, 0
    while position < len(lines):
        if not lines[position].strip():
            position += 1
            continue
        number += 1
        count = lines[position].strip()
        if not is_whole(count) or len(count) > 18:
            raise InputError(f"line {position + 1}: a number of atoms is needed, found '{count[:30]}'")
        frame = lines[position + 1 : position + 2 + int(count)]
        id = f"{stem}-{number - 1}"
        with collector.item(id, f"{where} frame {number}"):
            if len(frame) < int(count) + 1:
                raise InputError(f"cut off: {count} atoms announced, {max(len(frame) - 1, 0)} there")
            crystal, left_out = _frame(frame, id)
            collector.add(crystal)
            if left_out:
                collector.note(f"left out, as no single numbers: {', '.join(left_out)[:200]}")
        position += int(count) + 2


def _frame(lines: Sequence[str], id: str) -> tuple[Crystal, list[str]]:
    """The crystal, and the names of what is in the frame but not in it."""
    pairs = [(_bare(key), _bare(value)) for key, value in _PAIR.findall(lines[0])]
    info = dict(pairs)
    if twice := next((key for key, value in pairs if info[key] != value), None):
        raise InputError(f"'{twice[:30]}' stands twice, with different values")
    ids = id_names(info, _ID_KEYS)
    id = next((info[key] for key in ids if info[key]), id)
    if "Lattice" not in info:
        raise InputError("no Lattice: a crystal needs its cell")
    periodic = _words(info.get("pbc", "T"))
    if not all(word.lower() in ("t", "true", "1") for word in periodic):
        raise InputError(f'pbc="{" ".join(periodic)[:30]}": not periodic in three directions, so no crystal')
    columns, offset = {}, 0
    specification = info.get("Properties", "species:S:1:pos:R:3").split(":")
    if len(specification) % 3 or not all(is_whole(width) for width in specification[2::3]):
        raise InputError(f"Properties={info['Properties'][:60]} is not name:type:columns and so on")
    for name, width in zip(specification[::3], specification[2::3], strict=True):
        columns[name] = offset
        offset += int(width)
    species = next((columns[name] for name in ("species", "Z", "numbers") if name in columns), None)
    if species is None or "pos" not in columns:
        raise InputError("Properties names no species or no pos")
    rows = [line.split() for line in lines[1:]]
    if any(len(row) < offset for row in rows):
        raise InputError(f"a line of atoms has fewer than {offset} columns")
    numbers = np.array([_species(row[species]) for row in rows], np.int64)
    for other in ("Z", "numbers"):
        if other in columns and [_species(row[columns[other]]) for row in rows] != numbers.tolist():
            raise InputError(f"the columns of elements disagree: species and {other}")
    first = columns["pos"]
    lattice = parse_floats(_words(info["Lattice"]), "Lattice")
    if len(lattice) != 9:
        raise InputError(f"Lattice has {len(lattice)} numbers, 9 are needed")
    cart_coords = parse_floats([v for row in rows for v in row[first : first + 3]], "the coordinate").reshape(-1, 3)
    values = {key: _value(text) for key, text in info.items() if key not in (*_FIELDS, *ids)}
    properties = {key: value for key, value in values.items() if value is not None}
    left_out = [name for name in columns if name not in ("species", "Z", "numbers", "pos")]
    left_out += [key for key, value in values.items() if value is None and info[key].lower() not in ("nan", "inf")]
    return from_cartesian(numbers, cart_coords, lattice.reshape(3, 3), id, properties), left_out


def from_cartesian(
    numbers: npt.NDArray[np.int64],
    cart_coords: npt.NDArray[np.float64],
    lattice: npt.NDArray[np.float64],
    id: str,
    properties: dict[str, float] | None = None,
) -> Crystal:
    probe = Crystal(numbers, np.zeros_like(cart_coords), lattice, id)
    if (reason := probe.problem()) is not None:
        raise InputError(reason)
    frac_coords = np.asarray(np.linalg.solve(lattice.T, cart_coords.T).T, np.float64)
    return Crystal(numbers, frac_coords, lattice, id, properties or {})


def _words(text: str) -> list[str]:
    """The words of ``1 0 0``, ``{1 0 0}`` or ``[[1, 0, 0], [0, 1, 0]]``."""
    return re.sub(r"[{}\[\],]", " ", text).split()


def _bare(text: str) -> str:
    if text[0] == '"' and text[-1] == '"' and len(text) > 1:
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


def _species(text: str) -> int:
    return atomic_number(int(text)) if is_whole(text) and len(text) < 10 else atomic_number_of(text)


def _value(text: str) -> float | None:
    return text == "T" if text in ("T", "F") else parse_number(text)


def render_extxyz(crystals: Sequence[Crystal]) -> bytes:
    """Cartesian coordinates with 10 decimals; id and properties in the comment line.

    Where a crystal has forces and stress, they are there as ASE reads them: a column, and nine numbers.
    """
    lines = []
    for crystal in crystals:
        forces, stress = (crystal.results.get(name) for name in ("forces", "stress"))
        rows = np.round(crystal.cart_coords, 10)
        if forces is not None:
            rows = np.hstack([rows, np.round(forces, 10)])
        columns = "species:S:1:pos:R:3" + ":forces:R:3" * (forces is not None)
        pairs = [f'Lattice="{_row(crystal.lattice.ravel())}"', f"Properties={columns}"]
        pairs.append(f"{ID_KEYS[0]}={_word(crystal.id, always=True)}")
        pairs += [f"{_word(name)}={_written(value)}" for name, value in outside_names(crystal.properties).items()]
        if stress is not None:
            pairs.append(f'stress="{_row(stress[_VOIGT])}"')
        lines += [str(crystal.num_atoms), " ".join([*pairs, 'pbc="T T T"'])]
        lines += [
            f"{symbol:<2} " + " ".join(f"{x:.10f}" for x in row)
            for symbol, row in zip(crystal.symbols, (rows + 0.0).tolist(), strict=True)  # + 0.0: no "-0.0000000000"
        ]
    return ("\n".join(lines) + "\n").encode()


_VOIGT = [0, 5, 4, 5, 1, 3, 4, 3, 2]
"""Where the components of a stress tensor, row by row, stand in xx yy zz yz xz xy."""


def _row(values: npt.NDArray[np.float64]) -> str:
    return " ".join(f"{value:.12g}" for value in values)


def _written(value: float) -> str:
    return "FT"[value] if isinstance(value, bool) else repr(value)


def _word(text: str, always: bool = False) -> str:
    if not always and _WORD.match(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def parse_poscar(data: bytes, where: str, stem: str, collector: Collector) -> None:
    """A POSCAR or CONTCAR with element symbols (VASP 5 or later).

    The id is the name of a ``.vasp`` file, or the comment line of one that is just called POSCAR.
    """
    lines = decode(data).splitlines()
    comment = lines[0].strip()
    id = comment if comment and stem.upper().startswith(("POSCAR", "CONTCAR")) else stem
    with collector.item(id, where):
        collector.add(_poscar(lines, id))


def _poscar(lines: Sequence[str], id: str) -> Crystal:
    """https://www.vasp.at/wiki/index.php/POSCAR"""
    if len(lines) < 8:
        raise InputError("cut off: a POSCAR has at least 8 lines")
    lines = [*lines[:1], *(re.split(r"[!#]", line)[0] for line in lines[1:7]), *lines[7:]]  # comments
    words = list(itertools.takewhile(lambda word: parse_number(word) is not None, lines[1].split()[:3]))
    scale = parse_floats(words, "the scaling factor")
    lattice = parse_floats([v for line in lines[2:5] for v in line.split()[:3]], "the lattice vector")
    if len(scale) not in (1, 3) or len(lattice) != 9:
        raise InputError("a scaling factor and three lattice vectors are needed in lines 2 to 5")
    lattice = lattice.reshape(3, 3)
    if len(scale) == 1 and scale[0] < 0:  # minus the volume
        volume = abs(np.linalg.det(lattice))
        scale = np.cbrt(-scale / volume) if volume else np.zeros(1)  # zeros: a degenerate cell, said later
    lattice = lattice * scale
    words, counts = lines[5].split(), lines[6].split()
    if words and is_whole(words[0]):
        raise InputError("no element symbols in line 6 (VASP 4): add them")
    if len(words) != len(counts) or not all(is_whole(c) for c in counts):
        raise InputError("lines 6 and 7 must give as many element symbols as counts")
    # PAW data sets add to the symbol: Ti_pv, Ti/0123abc
    numbers = [_species(re.split(r"[_/]", word)[0]) for word in words]
    if (announced := sum(int(c) for c in counts)) > len(lines):
        raise InputError(f"cut off: {announced} atoms announced")
    atomic_numbers = np.repeat(np.array(numbers, np.int64), [int(c) for c in counts])
    start = 8 if lines[7].strip()[:1] in "Ss" else 7
    mode = lines[start].strip()[:1].lower() if start < len(lines) else ""
    rows = [line.split()[:3] for line in lines[start + 1 : start + 1 + len(atomic_numbers)]]
    if len(rows) < len(atomic_numbers) or any(len(row) < 3 for row in rows):
        raise InputError(f"cut off: {len(atomic_numbers)} atoms announced")
    coords = parse_floats([v for row in rows for v in row], "the coordinate").reshape(-1, 3)
    if mode in ("c", "k"):
        return from_cartesian(atomic_numbers, coords * scale, lattice, id)
    return Crystal(atomic_numbers, coords, lattice, id)


def render_poscar(crystals: Sequence[Crystal]) -> bytes:
    """One crystal, atoms grouped by element in the order of first appearance, as POTCAR wants them."""
    if len(crystals) != 1:
        raise InputError(f"a POSCAR holds one crystal, not {len(crystals)}: write a folder, .zip, .extxyz or .cif")
    crystal = right_handed(crystals[0])  # VASP refuses a negative triple product
    elements = list(dict.fromkeys(crystal.symbols))
    order = sorted(range(crystal.num_atoms), key=lambda i: elements.index(crystal.symbols[i]))
    lines = [crystal.id, "1.0"]
    lines += [" ".join(f"{v:.12f}" for v in row) for row in crystal.lattice + 0.0]
    lines += [" ".join(elements), " ".join(str(crystal.symbols.count(e)) for e in elements), "Direct"]
    lines += [" ".join(f"{v:.12f}" for v in crystal.frac_coords[i] + 0.0) for i in order]
    return ("\n".join(lines) + "\n").encode()
