"""The page of crystals: what it shows is read, found out, and written as one HTML file."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from html import escape
from pathlib import Path
from typing import Any, Protocol

from dpcdvae.arguments import checked
from dpcdvae.drawing.page.columns import columns_of, read_table
from dpcdvae.drawing.page.document import BLOCK, document
from dpcdvae.drawing.page.geometry import elements, films, geometry, partners
from dpcdvae.drawing.page.report_section import report_section
from dpcdvae.drawing.page.run_section import run_section
from dpcdvae.errors import InputError, printable
from dpcdvae.files import write_text
from dpcdvae.io import CrystalList, CrystalsLike, as_crystals
from dpcdvae.parallel import TIME_LIMIT, Engine, engine_for
from dpcdvae.parallel.results import Results, default_cache
from dpcdvae.progress import progress
from dpcdvae.report_files import check_about, crystals_behind, is_report, json_in
from dpcdvae.run_log import is_run
from dpcdvae.structures.crystal import Crystal

MOST_CRYSTALS, MOST_ATOMS = 30_000, 500_000
"""Of a page: so many take about two minutes of CPU time (``docs/view.md``)."""

MOST_FAILURES = 50  # named


class Report(Protocol):
    """What :func:`dpcdvae.evaluate` returns."""

    def to_json(self) -> dict[str, Any]: ...
    def crystals(self) -> Mapping[str, Sequence[Any]]: ...


@checked
def view(
    crystals: CrystalsLike,
    path: str | Path,
    *,
    beside: CrystalsLike | None = None,
    report: Report | Mapping[str, Any] | str | Path | None = None,
    table: Mapping[str, Sequence[Any]] | str | Path | None = None,
    film: bool = False,
    title: str | None = None,
    workers: int | None = None,
    engine: Engine | None = None,
) -> None:
    """Writes one HTML page of crystals that needs no network: a table, a viewer, films, the numbers of a report.

    Example:
        >>> dpcdvae.view(result, "page.html", report=report)

    Args:
        crystals: anything that :func:`~dpcdvae.io.as_crystals` takes; or the JSON of a report, whose crystals are
            found by its manifest; or the folder of a training run, whose curves are shown.
        beside: crystals to show beside them, such as relaxed ones: by id, or by order where no id is shared.
        report: of :func:`dpcdvae.evaluate`, or its JSON.
        table: columns with an ``id``, as the CSV of ``evaluate --table``; by default those of a ``report`` object.
        film: all crystals are the frames of one film, in their order.
        title: by default the name of the file.
        workers: processes that find space groups, by default one for each core; 0 for none.
        engine: where else to find them.

    Raises:
        InputError: no crystals, too many, others that do not fit, a report or table of others, or ``path`` cannot be
            written.
    """
    source = file = Path(crystals) if isinstance(crystals, str | Path) else None
    sections = []
    if source is not None and is_run(source):
        sections, crystals = [run_section(source)], CrystalList()
    elif source is not None and (content := _report_in(source)) is not None:
        file = _crystals_of_report(source)
        report, crystals = report or content, CrystalList() if file is None else file
    shown = as_crystals(crystals)
    if report is not None:
        numbers, columns = _taken_apart(report)
        sections.append(report_section(numbers))
        if shown:
            _check_about(shown, file, report, numbers, columns)
        table = columns if table is None else table
    if file is not None and shown and isinstance(table, str | Path):
        check_about(Path(table), file)
    if not shown and not sections:
        reason = f": {printable(shown.failures[0].reason)}" if shown.failures else ""
        raise InputError(f"no crystals to show{reason}")
    others = None if beside is None else as_crystals(beside)
    if others is not None and not others:
        reason = f": {printable(others.failures[0].reason)}" if others.failures else ""
        raise InputError(f"{_name(beside, '--beside')}: no crystals to stand beside these{reason}")
    for crystals_of_one in (shown, others or ()):
        _check_size(crystals_of_one)
    known = read_table(Path(table)) if isinstance(table, str | Path) else table or {}
    data: dict[str, Any] = {"size": 0}
    sets: dict[str, list[Any]] = {}
    if shown:
        with engine_for(workers) if engine is None else nullcontext(engine) as used:
            results = Results(used, TIME_LIMIT, default_cache())
            data, sets = _contents(shown, others, known, results, film)
        data["names"] = [_name(source, "these"), _name(beside, "beside them")]
    title = printable(title or _name(source, "Crystals"))
    summary = _summary(shown, others) if shown else "No crystals are part of this page."
    write_text(path, document(title, summary, data, sets, [*sections, *_failures(shown)]))


def _name(given: Any, otherwise: str) -> str:
    return printable(Path(given).name) if isinstance(given, str | Path) else otherwise


def _contents(
    crystals: Sequence[Crystal],
    others: Sequence[Crystal] | None,
    table: Mapping[str, Sequence[Any]],
    results: Results,
    film: bool,
) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """The data of the page, and the geometries by the name of their set."""
    pairs = None if others is None else partners(crystals, others)
    columns = columns_of(crystals, results, table)
    data = {
        "size": len(crystals),
        "block": BLOCK,
        "elements": elements([*crystals, *(others or ())]),
        "columns": [column._asdict() for column in columns],
        "films": [list(range(len(crystals)))] if film and len(crystals) > 1 else films([c.id for c in crystals]),
        "beside": pairs,
    }
    sets = {"crystals": [geometry(crystal) for crystal in progress(crystals, "bonds and polyhedra")]}
    if others is not None and pairs is not None:
        data["changes"] = [None if k is None else _change(c, others[k]) for c, k in zip(crystals, pairs, strict=True)]
        sets["beside"] = [geometry(other) for other in progress(others, "bonds and polyhedra")]
    return data, sets


def _change(crystal: Crystal, other: Crystal) -> str | None:
    """In words, by how much the volume per atom differs."""
    if crystal.problem() is not None or other.problem() is not None:
        return None
    ratio = (other.volume / other.num_atoms) / (crystal.volume / crystal.num_atoms)
    return f"volume {100 * (ratio - 1):+.1f}%"


def _check_size(crystals: Sequence[Crystal]) -> None:
    atoms = sum(crystal.num_atoms for crystal in crystals)
    if len(crystals) > MOST_CRYSTALS or atoms > MOST_ATOMS:
        raise InputError(
            f"{len(crystals)} crystals with {atoms} atoms are too many for a page "
            f"({MOST_CRYSTALS} and {MOST_ATOMS} at most): give a file of those to look at"
        )


def _summary(crystals: CrystalList, others: CrystalList | None) -> str:
    formulas = len({crystal.formula for crystal in crystals})
    words = [f"{len(crystals)} crystal{'' if len(crystals) == 1 else 's'}"]
    words += [f"{formulas} formula{'' if formulas == 1 else 's'}"]
    words += [] if others is None else [f"{len(others)} beside them"]
    words += [f"{len(crystals.failures)} that could not be read"] if crystals.failures else []
    return ", ".join(words)


def _failures(crystals: CrystalList) -> list[str]:
    """A section with what could not be read, where there is any."""
    if not crystals.failures:
        return []
    named = [f"{failure.where}: {failure.reason}" for failure in crystals.failures[:MOST_FAILURES]]
    more = len(crystals.failures) - len(named)
    items = "".join(f"<li>{escape(text)}</li>" for text in [*named, *([f"and {more} more"] if more else [])])
    return [f'<section class="failures"><h2>Not readable</h2><ul>{items}</ul></section>']


def _report_in(path: Path) -> dict[str, Any] | None:
    """The report that a JSON file holds; None where it holds something else, such as crystals."""
    content = json_in(path)
    return content if is_report(content) else None


def _taken_apart(
    report: Report | Mapping[str, Any] | str | Path,
) -> tuple[Mapping[str, Any], Mapping[str, Sequence[Any]] | None]:
    """The JSON of a report, and the table of its crystals where the object itself is given."""
    if isinstance(report, Mapping):
        return report, None
    if not isinstance(report, str | Path):
        return report.to_json(), report.crystals()
    content = _report_in(Path(report))
    if content is None:
        raise InputError(f"{report}: no report: give the .json that evaluate --json wrote")
    return content, None


def _check_about(
    shown: CrystalList,
    file: Path | None,
    report: object,
    numbers: Mapping[str, Any],
    columns: Mapping[str, Sequence[Any]] | None,
) -> None:
    """Raises InputError where a report is about other crystals than those shown, as far as it says which.

    The manifest beside a file has their hash, a report object their ids; else their number must agree.
    """
    if file is not None and isinstance(report, str | Path):
        check_about(Path(report), file)
    if columns is not None:
        if other := {crystal.id for crystal in shown} - {str(id) for id in columns["id"]}:
            raise InputError(f"the report is about other crystals: none of them is '{printable(min(other))[:40]}'")
    elif numbers["crystals"].get("read") != len(shown):
        read = printable(str(numbers["crystals"].get("read")))[:20]
        raise InputError(f"the report is about {read} crystals, these are {len(shown)}: give the ones it is about")


def _crystals_of_report(path: Path) -> Path | None:
    """The crystals that a report is about; None, with a line on standard error, where they are gone or others."""
    try:
        return crystals_behind(path)
    except InputError as error:
        print(f"note: the page has no crystals: {error}", file=sys.stderr)
        return None
