"""What is installed, locked and run by CI is what the project needs."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions

import pytest

from flows.recipes.beginning import KINDS
from tests.docs.pages import PROJECT

ROOMS = ("clients", "flows", "serving")
ONLY_BOUND = {"fastapi", "flask-wtf"}
"""not imported: they are there, or bounded, for another package, as pyproject.toml says"""
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))
TEST_TOOLS = ("pytest", "mypy", "ruff", "hypothesis", "import-linter", "grpcio-tools", "atheris")


def imported_modules() -> Iterator[str]:
    """What the source imports, anywhere."""
    for room in ROOMS:
        for path in (PROJECT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Import):
                    yield from (alias.name for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module:
                    yield from [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]


def test_every_dependency_is_imported() -> None:
    """No package is installed for users that nothing imports."""
    distributions = packages_distributions()
    tops = {name.split(".")[0] for name in imported_modules()}
    used = {each.lower().replace("_", "-") for top in tops for each in distributions.get(top, [])}
    declared = {re.split(r"[<>=;\[ ]", each)[0] for each in PYPROJECT["project"]["dependencies"]}
    assert declared - used == ONLY_BOUND


@pytest.mark.parametrize("room", ROOMS)
def test_packages_carry_their_types(room: str) -> None:
    """Type checkers of users read the annotations."""
    assert (PROJECT / room / "py.typed").exists()


def test_packages_carry_the_templates_of_recipes() -> None:
    """``hotswap init`` finds them wherever it is installed."""
    recipes = PROJECT / "flows" / "recipes"
    (pattern,) = PYPROJECT["tool"]["setuptools"]["package-data"]["flows.recipes"]
    packed = {file.name.removesuffix(".template") for file in recipes.glob(pattern)}
    assert packed == {*(f"{kind}.py" for kind in KINDS), "test.py", "README.md"}


def test_the_image_installs_no_test_tools() -> None:
    """The lock of the Docker image is the other one without the tools of development, at the same versions."""
    pins = {
        name: set(re.findall(r"^([a-z][\w.-]*==\S+)", (PROJECT / name).read_text("utf-8"), re.MULTILINE))
        for name in ("requirements.lock", "requirements-runtime.lock")
    }
    runtime = pins["requirements-runtime.lock"]
    assert runtime < pins["requirements.lock"]
    assert not {pin.split("==")[0] for pin in runtime}.intersection(TEST_TOOLS)
    assert "requirements-runtime.lock" in (PROJECT / "Dockerfile").read_text("utf-8")


def test_commits_and_ci_run_the_same_checks() -> None:
    """The hooks before a commit run the commands of ``make check``, which is what CI runs."""
    makefile = (PROJECT / "Makefile").read_text("utf-8")
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe is not None
    checks = [line.strip().replace("$(BIN)", ".venv/bin").replace("$(MAKE)", "make") for line in recipe[1].splitlines()]
    hooks = re.findall(r"entry: (.*)", (PROJECT / ".pre-commit-config.yaml").read_text("utf-8"))
    assert hooks == checks
    assert (PROJECT / ".ci" / "run").read_text("utf-8").rstrip().endswith("make check")
