"""What the pages say is so: links, commands, examples, and a test for each row of what happens when."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from flows.settings import Settings
from tests.docs.pages import DOCS, PAGES, PROJECT, README, blocks, commands
from tests.docs.reference import COMMANDS, ENDPOINTS, printed_by

MAKEFILE = (PROJECT / "Makefile").read_text("utf-8")
LINKS = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
OUTCOME_TABLE = "| when | what follows | test |\n|---|---|---|\n"
FEATURE_TABLE = "| feature | test |\n|---|---|\n"
THREAT_TABLE = "| threat | what stands against it | test or setting |\n|---|---|---|\n"
MIN_OUTCOMES = 66
MAX_README_LINES = 150
MAX_IMAGE_BYTES = 150_000
SERVING = DOCS / "serving.md"


@pytest.fixture
def server(tiny_model: Any, model_server: Any, tmp_path: Path) -> Any:
    """A server with a model named iris whose version 1 carries the label stable."""
    base_path = tmp_path / "iris"
    tiny_model(base_path, 1)
    config = tmp_path / "models.config"
    config.write_text(
        f"model_config_list {{ config {{ name: 'iris' base_path: '{base_path}' model_platform: 'tensorflow' "
        "version_labels { key: 'stable' value: 1 } } }"
    )
    return model_server(model_config_file=config, allow_version_labels_for_unavailable_models=True)


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def all_tests() -> set[str]:
    """The names of the tests of the whole suite."""
    texts = (path.read_text("utf-8") for path in PROJECT.glob("tests/**/test_*.py"))
    return {name for text in texts for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}


def test_every_feature_of_the_readme_is_a_test() -> None:
    """Each line of its table names tests that exist."""
    (table,) = README.read_text("utf-8").split(FEATURE_TABLE)[1:]
    named = [re.findall(r"`(test_\w+)`", row.split(" | ")[-1]) for row in table.split("\n\n")[0].splitlines()]
    assert all(named)
    assert {name for names in named for name in names} <= all_tests()


def test_every_threat_has_its_test_or_setting() -> None:
    """The last cell of each line of the threat table names tests, or settings, that exist."""
    (table,) = (DOCS / "security.md").read_text("utf-8").split(THREAT_TABLE)[1:]
    named = [re.findall(r"`([^`]+)`", row.split(" | ")[-1]) for row in table.split("\n\n")[0].splitlines()]
    assert all(named)
    known = all_tests() | {f"HOTSWAP_{name.upper()}" for name in Settings.model_fields}
    assert {name for names in named for name in names} <= known


def test_the_readme_is_short() -> None:
    """A newcomer reads it in a few minutes."""
    assert len(README.read_text("utf-8").splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize("image", sorted((DOCS / "images").iterdir()), ids=lambda path: path.name)
def test_images_are_small(image: Path) -> None:
    """No image makes a page slow to open."""
    assert image.stat().st_size <= MAX_IMAGE_BYTES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """Files, directories and headings that are linked exist."""
    for path, anchor in LINKS.findall(page.read_text("utf-8")):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_path_that_is_named_exists(page: Path) -> None:
    """Modules and tests in a page are where it says."""
    named = re.findall(r"`((?:clients|flows|serving|tests)/[\w./-]+)`", page.read_text("utf-8"))
    assert [path for path in named if not (PROJECT / path).exists()] == []


def test_every_room_has_a_sentence() -> None:
    """The table of rooms names every package of the code."""
    named = re.findall(r"`((?:clients|flows|serving)[\w/]*)`", (PROJECT / "CONTRIBUTING.md").read_text("utf-8"))
    rooms = {
        str(path.parent.relative_to(PROJECT))
        for room in ("flows", "serving")
        for path in PROJECT.glob(f"{room}/*/__init__.py")
    }
    assert rooms | {"clients"} <= set(named)


def test_every_target_of_make_has_a_line_of_help() -> None:
    """``make`` alone lists every target with what it does."""
    listed = subprocess.run(["make"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    targets = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert targets is not None
    for target in targets[1].split():
        assert re.search(rf"^  make {target} +\S", listed, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_target_of_make_that_is_named_exists(page: Path) -> None:
    """`make something` in a page is a target of the Makefile."""
    for target in re.findall(r"(?:`|\$ )make ([a-z]+)", page.read_text("utf-8")):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_command_that_is_named_exists(page: Path) -> None:
    """`hotswap something --option` in a page is a command with that option."""
    written = [command.text for command in commands(page)] + re.findall(r"`([^`\n]*)`", page.read_text("utf-8"))
    for text in written:
        for name, arguments in re.findall(r"\bhotswap ([a-z]+)((?: [^#;|&]*)?)", text):
            assert name in [*COMMANDS, "help"], text
            known = printed_by(name, "--help")
            for option in re.findall(r"(?<= )--[a-z][\w-]*", arguments):
                assert re.search(rf"{option}\b", known), text


def test_what_happens_when_is_a_test_in_every_row() -> None:
    """The last cell of each row names a test, and no row got lost."""
    tables = [table for page in PAGES for table in page.read_text("utf-8").split(OUTCOME_TABLE)[1:]]
    rows = [row for table in tables for row in table.split("\n\n")[0].strip().splitlines()]
    named = [re.search(r"\| `(test_\w+)` \|$", row) for row in rows]
    assert all(named)
    assert {name[1] for name in named if name} <= all_tests()
    assert len(rows) >= MIN_OUTCOMES


@pytest.mark.parametrize("program", blocks(SERVING, "python"))
def test_the_python_examples_run(program: str, server: Any) -> None:
    """Each example, pointed at a server on other ports, prints the outputs."""
    program = program.replace(":8501", f":{server.rest_port}").replace(":8500", f":{server.grpc_port}")
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "'output': array([[" in done.stdout


def test_the_curl_examples_work(server: Any) -> None:
    """What the pages send by curl gets predictions back, by default, by number and by label."""
    written = [command.text for command in commands(SERVING) if command.text.startswith("curl ")]
    assert len(written) == 3
    for command in written:
        _, option, body, address = shlex.split(command)
        assert option == "-d"
        answer = requests.post(address.replace(":8501", f":{server.rest_port}"), data=body, timeout=10)
        assert list(json.loads(answer.text)) == ["predictions"]


def test_the_page_of_models_has_the_documented_form(server: Any) -> None:
    """`/hotswap/models` has the keys that the page on serving shows."""
    (shown,) = (json.loads(block) for block in blocks(SERVING, "json"))
    given = requests.get(f"http://127.0.0.1:{server.rest_port}/hotswap/models", timeout=10).json()
    assert given.keys() == shown.keys()
    assert given["repository"].keys() == shown["repository"].keys()
    assert given["models"][0].keys() == shown["models"][0].keys()
    shown_signature = shown["models"][0]["signatures"]["serving_default"]
    assert given["models"][0]["signatures"]["serving_default"].keys() == shown_signature.keys()


@pytest.mark.parametrize("path", ENDPOINTS)
def test_the_documented_endpoints_answer(path: str, server: Any) -> None:
    """Each path that TensorFlow Serving does not use is there."""
    assert requests.get(f"http://127.0.0.1:{server.rest_port}{path}", timeout=10).status_code == 200
