"""The documentation as a site, built as ``make site`` builds it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PAGES, PROJECT

pytestmark = pytest.mark.xdist_group("site")  # one worker builds it for all of these

CONFIG = (PROJECT / "mkdocs.yml").read_text("utf-8")
NAV = set(re.findall(r"(\S+\.md)$", CONFIG.partition("\nnav:\n")[2], re.MULTILINE))
LOADED = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=\"?([^\"\s>]+)")
STYLED = re.compile(r"(?:url\(|@import )[\"']?(https?:[^\"')]*)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole site; a proxy that nobody listens at stands for the network, and a warning is an error."""
    directory = tmp_path_factory.mktemp("site")
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(directory)],
        cwd=PROJECT,
        env={**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


def test_every_page_is_in_the_site(site: Path) -> None:
    """The site is built without a warning, and has each page of the documentation."""
    titles = {re.sub(r"[`*]", "", page.read_text("utf-8").splitlines()[0].removeprefix("# ")) for page in PAGES}
    shown = {re.sub(r"<.*?>", "", title) for page in site.rglob("*.html") for title in headings(page)}
    assert titles <= shown


def headings(page: Path) -> list[str]:
    found = re.findall(r"<h1[^>]*>(.*?)(?:<a class=\"?headerlink.*?)?</h1>", page.read_text("utf-8"), re.DOTALL)
    return [title.replace("&amp;", "&").replace("&quot;", '"').replace("&#39;", "'").strip() for title in found]


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    """Scripts, styles, fonts and pictures all come from the site itself."""
    loaded = {address for page in site.rglob("*.html") for address in LOADED.findall(page.read_text("utf-8"))}
    styled = {address for style in site.rglob("*.css") for address in STYLED.findall(style.read_text("utf-8"))}
    assert {"assets/stylesheets"} <= {address.rpartition("/")[0] for address in loaded}
    assert [address for address in loaded | styled if "//" in address] == []


def test_every_page_is_in_the_navigation() -> None:
    """A reader finds each page from the menu, decisions by their index."""
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert {page for page in pages if not page.startswith("decisions/0")} == NAV - {
        "index.md",
        "changelog.md",
        "contributing.md",
    }


def test_what_the_pages_link_to_outside_docs_is_in_the_site(site: Path) -> None:
    """A link to a file of the project leads to its text."""
    assert (site / "files" / "compose.yaml.txt").read_text("utf-8") == (PROJECT / "compose.yaml").read_text("utf-8")
    assert 'href="files/tests/conformance/index.html"' in (site / "index.html").read_text("utf-8")
