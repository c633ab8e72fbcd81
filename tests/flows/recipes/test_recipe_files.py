"""A recipe of one's own, named by its file or by its dotted path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.recipes.finding import UnknownRecipe, find_recipe
from flows.user_code import RecipeFailed

OWN = """
from dataclasses import replace
from flows.recipes import Recipe
from {neighbour} import NAME

RECIPE = Recipe(name=NAME, load=lambda: None, build=lambda examples: None, class_names=("no", "yes"))
OTHER = replace(RECIPE, name="other")
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe and its neighbour in a directory that Python does not know, beside the working directory."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # which is told from the source by the second only
    directory, working = tmp_path / "recipes", tmp_path / "working"
    directory.mkdir()
    working.mkdir()
    monkeypatch.chdir(working)
    neighbour = f"neighbour_{tmp_path.name.replace('-', '_')}"
    (directory / f"{neighbour}.py").write_text("NAME = 'churn'\n")
    path = directory / f"recipe_{tmp_path.name}.py"
    path.write_text(OWN.format(neighbour=neighbour))
    return path


def test_a_file_is_a_recipe_wherever_it_is(recipe: Path) -> None:
    """By its relative or absolute path, with its neighbours, and the working directory stays what it is."""
    found = find_recipe(f"../recipes/{recipe.name}")
    assert found.name == "churn"
    assert find_recipe(str(recipe)) is found
    assert find_recipe(f"{recipe}:OTHER").name == "other"
    assert Path.cwd().name == "working"


def test_a_changed_recipe_is_imported_anew(recipe: Path) -> None:
    """When the file or a neighbour has changed, and only then."""
    before = find_recipe(str(recipe))
    (neighbour,) = recipe.parent.glob("neighbour_*.py")
    neighbour.write_text("NAME = 'leavers'\n")
    os.utime(neighbour, (1, 1))
    changed = find_recipe(str(recipe))
    assert (before.name, changed.name) == ("churn", "leavers")
    recipe.write_text(recipe.read_text().replace('"other"', '"another"'))
    os.utime(recipe, (2, 2))
    assert find_recipe(f"{recipe}:OTHER").name == "another"


def test_two_files_of_one_name_are_two_recipes(recipe: Path, tmp_path: Path) -> None:
    """And one that is called like a package takes nothing from it."""
    other = tmp_path / "elsewhere" / recipe.name
    other.parent.mkdir()
    other.write_text(recipe.read_text().replace('"other"', '"elsewhere"'))
    assert find_recipe(f"{recipe}:OTHER").name == "other"
    assert find_recipe(f"{other}:OTHER").name == "elsewhere"
    package = recipe.with_name("json.py")
    package.write_text(recipe.read_text())
    assert find_recipe(str(package)).name == "churn"
    assert sys.modules["json"].__file__ != str(package)


def test_what_is_wrong_with_a_file_is_told_in_a_sentence(recipe: Path) -> None:
    """It is not there, it has no recipe, or it has a bug, with its line."""
    with pytest.raises(UnknownRecipe, match=r"no file nothing\.py"):
        find_recipe("nothing.py")
    with pytest.raises(UnknownRecipe, match=f"{recipe.name} has no flows.recipes.Recipe called NOTHING"):
        find_recipe(f"{recipe}:NOTHING")
    recipe.write_text("\n1 / 0\n")
    with pytest.raises(RecipeFailed, match=f"ZeroDivisionError.*{recipe.name}:2"):
        find_recipe(str(recipe))


def test_a_dotted_path_is_looked_for_in_the_working_directory(recipe: Path) -> None:
    """The command finds what `python -m` would find, and a bare name tells of the file that it may have meant."""
    (recipe.parent / "churn.py").write_text(recipe.read_text())
    command = "from flows.recipes.finding import find_recipe; print(find_recipe({!r}).name)"
    for name, told in (("churn:OTHER", "other"), ("churn", "churn.py is here")):
        done = subprocess.run(
            [sys.executable, "-P", "-c", command.format(name)],
            cwd=recipe.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        assert told in done.stdout + done.stderr
