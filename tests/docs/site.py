"""
The hook of mkdocs.yml: brings what the pages link to outside docs/ into the site.

A page on a repository's web page and the same page in the site have the same links, none of which is broken. README,
CHANGELOG and CONTRIBUTING become pages, other Markdown too, any other file a text; a directory stands for its README,
and one without is not linked. It imports nothing of the project, as MkDocs loads it by its path.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs"
_LINK = re.compile(r"(?<!!)\[([^\[\]]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]+)?\)")
_OWN_NAMES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every file outside docs/ that a page of the site links to."""
    waiting = [PROJECT / name for name in _OWN_NAMES]
    waiting += [target for page in sorted(DOCS.rglob("*.md")) for target in _linked(page)]
    added = set[Path]()
    while waiting:
        path = waiting.pop()
        if path in added or path.is_relative_to(DOCS):
            continue
        added.add(path)
        if path.suffix == ".md":
            waiting += _linked(path)
        files.append(File.generated(config, _address(path), content=path.read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links at where their targets are in the site."""
    source = _source(page.file.src_uri)

    def moved(link: re.Match[str]) -> str:
        target = _target(source, link[2])
        if target is None:
            return link[1]
        address = posixpath.relpath(_address(target), posixpath.dirname(page.file.src_uri) or ".")
        return f"[{link[1]}]({address}{link[3] or ''})"

    # Pictures and links alike: the README is moved into docs/.
    return _LINK.sub(moved, markdown).replace("](docs/images/", "](images/")


def _linked(page: Path) -> Iterator[Path]:
    for link in _LINK.finditer(page.read_text("utf-8")):
        if (target := _target(page, link[2])) is not None:
            yield target


def _target(page: Path, link: str) -> Path | None:
    path = Path(os.path.normpath(page.parent / link))
    if path.is_dir():
        path /= "README.md"
        return path if path.is_file() else None
    return path


def _address(path: Path) -> str:
    """Where a file of the project is in the site."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    name = path.relative_to(PROJECT).as_posix()
    place = f"files/{name.removeprefix('.')}"  # MkDocs leaves out what begins with a dot
    return _OWN_NAMES.get(name, place if path.suffix == ".md" else f"{place}.txt")


def _source(address: str) -> Path:
    """The file that a page of the site is made of."""
    own = {moved: name for name, moved in _OWN_NAMES.items()}
    if address in own:
        return PROJECT / own[address]
    return PROJECT / address.removeprefix("files/") if address.startswith("files/") else DOCS / address
