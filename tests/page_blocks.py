"""The code on a page of the documentation, and a way to run it in this process."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from dpcdvae.cli import main

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LESS = (
    (re.compile(r"(?<= -n )\d+"), "2"),
    (re.compile(r"(?<=generate\(model, )64"), "2"),
    (re.compile(r"(?<= --batch-size )\d+"), "1"),
    (re.compile(r"(?<= --steps )\d+"), "2"),
    (re.compile(r"(?<=train\.max_epochs=)\d+"), "1"),
)
"""What makes a tutorial long: how many crystals, steps and epochs it asks for."""


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of every fenced block, "" where no language is named."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(text: str) -> list[list[str]]:
    """The arguments of every ``dpcdvae`` command in lines of shell."""
    lines = (shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines())
    return [words[1:] for words in lines if words and words[0] == "dpcdvae"]


def less_work(text: str) -> str:
    """The same code for as few crystals, steps and epochs as show that it works."""
    for pattern, few in LESS:
        text = pattern.sub(few, text)
    return text


def run(language: str, text: str, names: dict[str, object], where: str) -> None:
    """Runs a block of Python in ``names``, or the commands of a block of bash, of which each must succeed."""
    if language == "python":
        exec(compile(less_work(text), where, "exec"), names)
    elif language == "bash":
        found = commands(less_work(text))
        assert len(found) == len(text.replace("\\\n", " ").strip().splitlines()), f"not only commands of ours: {text}"
        for arguments in found:
            assert main(arguments) == 0, (where, arguments)
