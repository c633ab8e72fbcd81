"""Writes a recipe to begin with: a module, its test and a page, from the templates beside this file."""

from __future__ import annotations

import importlib.util
import keyword
from pathlib import Path
from string import Template

from serving.protocol.errors import HotswapError
from serving.repository.names import validate_model_name

KINDS = ("table", "image", "text", "regression", "several-inputs", "blank")

_TEMPLATES = Path(__file__).with_name("templates")


class CannotBegin(HotswapError):
    """No recipe of this name can be written here."""


def begin(name: str, kind: str, directory: Path) -> list[Path]:
    """
    Write a recipe of this kind, its test and a page; the paths of the three.

    Raises:
        CannotBegin: The name cannot be a module's, there is no such kind, or one of the files is there already.
    """
    if kind not in KINDS:
        raise CannotBegin(f"There is no kind {kind!r} of recipe: name {', '.join(KINDS)}")
    if not (name.isascii() and name.isidentifier()) or keyword.iskeyword(name):
        raise CannotBegin(f"{name!r} cannot be a Python module: use letters, digits and underscores, a letter first")
    validate_model_name(name)
    written = {f"{name}.py": f"{kind}.py", f"test_{name}.py": "test.py", f"{name}.md": "README.md"}
    if there := [file for file in written if (directory / file).exists()]:
        raise CannotBegin(f"{' and '.join(there)} is here already: choose another name, or move it away")
    if importlib.util.find_spec(name) is not None:
        raise CannotBegin(f"{name!r} is a Python module that is installed here: choose another name")
    for file, template in written.items():
        text = (_TEMPLATES / f"{template}.template").read_text("utf-8")
        (directory / file).write_text(Template(text).substitute(name=name), "utf-8")
    return [directory / file for file in written]
