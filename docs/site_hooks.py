"""What MkDocs does here besides: links out of ``docs/``, formulas, and names in docstrings.

The pages are read in two places. In a view of the repository a link such as ``../examples/vasp_jobs.sh`` leads to the
file; on the site that file becomes a page of its own under ``source/``. Formulas (``$...$``) become pictures when the
site is built, so that it needs no script and no network.
"""

from __future__ import annotations

import html
import os
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))
from site_formulas import formula

ROOT = Path(__file__).resolve().parents[1]
AT_THE_ROOT = ("CHANGELOG.md", "CONTRIBUTING.md")  # pages of the site that lie beside docs/
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(#[^)\s]*)?(?=\))")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>([,.;:)]*)', re.DOTALL)
PAGE = re.compile(r"<code>docs/([\w.-]+)</code>")  # as docstrings name one
ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>~?([\w.]+)</code>")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages beside ``docs/`` and every file of the repository that a page links to."""
    for name in AT_THE_ROOT:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    pages = list(files.documentation_pages())
    for page in pages:  # which grows: a file that is added may have links itself
        for target, _ in LINK.findall(page.content_string):
            path = _in_repository(page.src_uri, target)
            place = _on_site(path)
            if (ROOT / path).is_file() and files.get_file_from_path(place) is None:
                files.append(added := _file(config, path, place))
                pages += [added] if path.endswith(".md") else []
    return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Turns links out of ``docs/`` into links on the site; a link to a folder becomes text."""
    here = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        target, anchor = match.group(1), match.group(2) or ""
        place = _on_site(_in_repository(here, target))
        return os.path.relpath(place, posixpath.dirname(here) or ".") + anchor

    def is_folder(target: str) -> bool:
        return (ROOT / _in_repository(here, target)).is_dir()

    folders = {target for target, _ in LINK.findall(markdown) if is_folder(target)}
    for folder in folders:
        markdown = re.sub(rf"\[([^\]]*)\]\({re.escape(folder)}\)", r"\1", markdown)
    return LINK.sub(moved, markdown)


def on_page_content(content: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Formulas become pictures; pages and roles of Sphinx (``:func:`dpcdvae.read```) in docstrings become links."""

    def linked(match: re.Match[str]) -> str:
        file = files.get_file_from_path(match.group(1))
        return match.group() if file is None else f'<a href="{file.url_relative_to(page.file)}">{match.group()}</a>'

    return ROLE.sub(_reference, PAGE.sub(linked, FORMULA.sub(_formula, content)))


class Examples(griffe.Extension):
    """Docstrings here say "Example:"; what shows code as code is "Examples:"."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("Example:\n", "Examples:\n")


def _in_repository(page: str, target: str) -> str:
    """The path in the repository that a link on a page leads to."""
    path = page.removeprefix("source/") if page.startswith("source/") or page in AT_THE_ROOT else f"docs/{page}"
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), target))


def _on_site(path: str) -> str:
    """Where the site has a file of the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path in AT_THE_ROOT or path.startswith(".."):
        return path
    return f"source/{path}" if path.endswith((".md", ".png")) else f"source/{path}.md"


def _file(config: MkDocsConfig, path: str, place: str) -> File:
    """A page that shows a text file; a picture or another page as it is."""
    if path.endswith((".md", ".png")):
        return File.generated(config, place, abs_src_path=str(ROOT / path))
    language = {".sh": "bash", ".py": "python"}.get(Path(path).suffix, Path(path).suffix[1:] or "text")
    text = (ROOT / path).read_text(encoding="utf-8")
    head = f"---\nsearch: {{exclude: true}}\n---\n# {path}\n\n"
    return File.generated(config, place, content=f'{head}````{{.{language} linenums="1"}}\n{text}````\n')


def _formula(match: re.Match[str]) -> str:
    kind, tex, punctuation = match.groups()
    picture = formula(html.unescape(tex), display=kind == "div")
    return picture + punctuation if kind == "div" else f'<span class="formula-in-text">{picture}{punctuation}</span>'


def _reference(match: re.Match[str]) -> str:
    name = match.group(1)
    return f'<autoref identifier="{name}" optional><code>{name.rpartition(".")[2]}</code></autoref>'
