"""Parts of a page that scripts write, each between two marks."""

from __future__ import annotations

import re

from dpcdvae.errors import InputError


def with_part(page: str, part: str, text: str) -> str:
    """The page with ``text`` between ``<!-- part -->`` and the next ``<!-- end -->``.

    Raises:
        InputError: the mark is not there exactly once, or another one comes before its end.
    """
    begin, end = f"<!-- {part} -->\n", "<!-- end -->"
    if page.count(begin) != 1:
        raise InputError(
            f"the page must have {begin.strip()} once, on a line of its own, not {page.count(begin)} times"
        )
    before, rest = page.split(begin)
    if not (old := re.match(rf"((?!<!--).)*?(?={re.escape(end)})", rest, flags=re.DOTALL)):
        raise InputError(f"the page lacks {end} after {begin.strip()}")
    return f"{before}{begin}{text}\n{rest[old.end() :]}"
