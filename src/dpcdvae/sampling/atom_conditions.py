"""Conditions on the atoms of a crystal: formulas, sizes, elements, balanced charges. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

from dpcdvae.errors import InputError, one_line
from dpcdvae.structures.elements import NUM_ELEMENTS, SYMBOLS, atomic_number
from dpcdvae.structures.neutrality import imbalance

CONDITIONS = ("num_atoms", "formula", "elements", "chemical_system", "neutral")
"""Options that :meth:`AtomConditions.of` reads. A crystal VAE keeps them in decoding; others' crystals are filtered."""

MAX_FORMULA_ATOMS = 10_000  # more than any model holds, few enough to write out


@dataclass(frozen=True)
class AtomConditions:
    """Conditions on the atoms of every finished crystal; what is empty or False is not asked for.

    Attributes:
        formulas: atomic numbers of all atoms of the cell, one tuple for each formula and size.
        sizes: numbers of atoms, ascending; empty where there are formulas.
        elements: atomic numbers that may occur, ascending.
        every_element: each of ``elements`` must occur.
        neutral: SMACT's test of charges must pass.
    """

    formulas: tuple[tuple[int, ...], ...] = ()
    sizes: tuple[int, ...] = ()
    elements: tuple[int, ...] = ()
    every_element: bool = False
    neutral: bool = False

    @classmethod
    def of(cls, asked: Mapping[str, Any], max_atoms: int) -> AtomConditions:
        """From the options that are in :data:`CONDITIONS`.

        Args:
            asked: ``num_atoms``: a number, numbers, or text like ``5,10``. ``formula``: one or several, each a formula
                or a file of formulas. ``elements``: symbols, or text like ``Sr,Ti,O``. ``chemical_system``: likewise,
                or ``Sr-Ti-O``. ``neutral``: True or False.
            max_atoms: most atoms that the model holds.

        Raises:
            InputError: what cannot be read, contradicts, or no crystal of the model can be.
        """
        sizes = read_sizes(asked.get("num_atoms"), max_atoms)
        formulas = [(text, parse_formula(text)) for text in read_formulas(asked.get("formula"))]
        elements, system = read_elements(asked.get("elements"), ","), read_elements(asked.get("chemical_system"), "-")
        if elements and system:
            raise InputError("--elements and --chemical-system contradict: one allows elements, the other requires all")
        if system and not formulas and (most := max(sizes, default=max_atoms)) < len(system):
            raise InputError(
                f"--chemical-system {'-'.join(_symbols(system))} needs {len(system)} atoms at least: the most is {most}"
            )
        rest = cls((), () if formulas else sizes, system or elements, bool(system), bool(asked.get("neutral")))
        cells = []
        for text, numbers in formulas:
            for cell in _cells(text, numbers, sizes, max_atoms):
                if (problem := rest.problem(cell)) is not None:
                    raise InputError(f"formula {text} contradicts the other conditions: {problem}")
                cells.append(cell)
        return replace(rest, formulas=tuple(cells))

    @property
    def all_numbers(self) -> tuple[int, ...]:
        """Every atomic number that is named, ascending."""
        return tuple(sorted({*self.elements, *(z for formula in self.formulas for z in formula)}))

    @property
    def all_sizes(self) -> tuple[int, ...]:
        """Every number of atoms that is named, ascending."""
        return tuple(sorted({*self.sizes, *map(len, self.formulas)}))

    def problem(self, numbers: Iterable[int]) -> str | None:
        """Why a crystal of these atomic numbers (n,) is not wanted, or None."""
        numbers = sorted(numbers)
        if self.formulas and tuple(numbers) not in {tuple(sorted(formula)) for formula in self.formulas}:
            return "atoms are not those of the formula"
        if self.sizes and len(numbers) not in self.sizes:
            return "another number of atoms"
        if self.elements and not set(numbers) <= set(self.elements):
            return "other elements"
        if self.every_element and set(numbers) != set(self.elements):
            return "not every element of the chemical system"
        if self.neutral and imbalance(numbers) is not None:
            return "not neutral"
        return None


NO_CONDITIONS = AtomConditions()


def _cells(text: str, numbers: list[int], sizes: Sequence[int], max_atoms: int) -> Iterator[tuple[int, ...]]:
    """The atoms of a formula, as many times as each of the sizes asks for."""
    fitting = [size for size in sizes if size % len(numbers) == 0] if sizes else [len(numbers)]
    if not fitting:
        asked = ",".join(map(str, sizes))
        raise InputError(f"--num-atoms {asked} is no multiple of the {len(numbers)} atoms of {text}")
    if max(fitting) > max_atoms:
        raise InputError(
            f"formula {text} has {max(fitting)} atoms: this model holds 1 to {max_atoms} (model.max_atoms)"
        )
    yield from (tuple(numbers * (size // len(numbers))) for size in fitting)


def read_sizes(value: Any, max_atoms: int) -> tuple[int, ...]:
    """``5``, ``[5, 10]`` or ``"5,10"`` -> (5, 10); () for None."""
    if value is None:
        return ()
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, Sequence) else [value]
    whole = [isinstance(part, Integral) and not isinstance(part, bool) for part in parts]
    text = [isinstance(part, str) and re.fullmatch(r"\s*-?\d{1,9}\s*", part, re.ASCII) for part in parts]
    if not all(a or b for a, b in zip(whole, text, strict=True)):
        raise InputError(f"--num-atoms {one_line(str(value))[:30]}: write a number, or several like 5,10")
    sizes = sorted({int(part) for part in parts})
    for size in sizes:
        if not 1 <= size <= max_atoms:
            raise InputError(f"--num-atoms {str(size)[:30]}: this model holds 1 to {max_atoms} (model.max_atoms)")
    if not sizes:
        raise InputError("--num-atoms: a number is needed")
    return tuple(sizes)


def read_elements(value: Any, separator: str) -> tuple[int, ...]:
    """``"Sr,Ti,O"`` or symbols -> (8, 22, 38); () for None."""
    if value is None:
        return ()
    parts = _texts(value, separator, "elements are named by symbols")
    if not all(part.strip() for part in parts):
        raise InputError(f"an element is missing in '{value}': write them like {separator.join(('Sr', 'Ti', 'O'))}")
    numbers = {atomic_number(part.strip()) for part in parts}
    for number in sorted(numbers):
        _check_element(number, f"'{value}'")
    if not numbers:
        raise InputError("no element is named: write them like Sr,Ti,O")
    return tuple(sorted(numbers))


def read_formulas(value: Any) -> list[str]:
    """Formulas one by one, those of files written out; a file has one on each line, and lines that begin with #."""
    texts = [value] if isinstance(value, str) else _texts(() if value is None else value, None, "formulas are text")
    formulas: list[str] = []
    for text in texts:
        # No formula has a point or a slash in it, so a file that is called like a formula does not hide it.
        if ("." in text or "/" in text) and Path(text).is_file():
            formulas += _formulas_in(Path(text))
        else:
            formulas.append(text)
    return formulas


def _texts(value: Any, separator: str | None, rule: str) -> list[str]:
    """The parts of a text, or the texts of a list; raises InputError for anything else."""
    parts = value.split(separator) if isinstance(value, str) else value
    if not isinstance(parts, Sequence | Set) or not all(isinstance(part, str) for part in parts):
        raise InputError(f"{rule}, such as Sr or SrTiO3, not {str(value)[:30]}")
    return list(parts)


def _formulas_in(path: Path) -> list[str]:
    try:
        lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise InputError(f"{path} is no list of formulas: it is no text") from None
    formulas = [line for line in lines if line]
    if not formulas:
        raise InputError(f"{path} has no formulas: write one on each line, like SrTiO3")
    for formula in formulas:
        try:
            parse_formula(formula)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    return formulas


def parse_formula(formula: str) -> list[int]:
    """``SrTiO3`` -> [38, 22, 8, 8, 8]; parentheses allowed. Raises InputError."""
    tokens = re.findall(r"[A-Z][a-z]?|[0-9]{1,9}|[()]", formula)
    if not tokens or "".join(tokens) != formula:
        raise InputError(
            f"cannot read the formula '{formula}': write it like SrTiO3 or Ca(OH)2, or give a file of formulas"
        )
    groups: list[list[int]] = [[]]
    last: list[int] = []
    for token in tokens:
        if sum(map(len, groups)) > MAX_FORMULA_ATOMS:
            raise InputError(f"the formula '{formula[:30]}...' has more than {MAX_FORMULA_ATOMS} atoms")
        if token == "(":
            groups.append([])
            last = []
        elif token == ")" and len(groups) > 1 and groups[-1]:
            last = groups.pop()
            groups[-1] += last
        elif token.isdigit() and last and int(token) > 0:
            if len(last) * int(token) > MAX_FORMULA_ATOMS:
                raise InputError(f"the formula '{formula}' has more than {MAX_FORMULA_ATOMS} atoms")
            groups[-1] += last * (int(token) - 1)
            last = []
        elif token[0].isalpha():
            last = [atomic_number(token)]
            _check_element(last[0], f"'{formula}'")
            groups[-1] += last
        else:
            raise InputError(f"cannot read the formula '{formula}' at '{token}'")
    if len(groups) > 1:
        raise InputError(f"cannot read the formula '{formula}': a parenthesis is not closed")
    return groups[0]


def _check_element(number: int, where: str) -> None:
    if number > NUM_ELEMENTS:
        raise InputError(f"element {SYMBOLS[number]} in {where}: models know the elements 1 to {NUM_ELEMENTS}")


def _symbols(numbers: Iterable[int]) -> list[str]:
    return [SYMBOLS[number] for number in numbers]
