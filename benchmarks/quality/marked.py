"""Parts of a page that scripts write, each between two marks."""

from __future__ import annotations

import re


def with_part(page: str, part: str, text: str) -> str:
    """The page with ``text`` in every place between ``<!-- part -->`` and the next ``<!-- end -->``."""
    return re.sub(
        rf"(<!-- {re.escape(part)} -->)\n.*?(<!-- end -->)",
        lambda found: f"{found[1]}\n{text}\n{found[2]}",
        page,
        flags=re.DOTALL,
    )
