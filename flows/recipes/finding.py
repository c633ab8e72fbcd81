"""
Finds recipes: those that come with hotswap, a file, or a module by its dotted path.

A file is imported as Python runs a script: its directory comes first on the path, so that it finds its neighbours, and
the working directory stays what it is. In a process that lives on, as a notebook, the file is imported anew when it or
a neighbour that it has imported was changed.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

from flows.recipes import Recipe
from flows.user_code import RecipeFailed, is_the_users, of_recipe
from serving.protocol.errors import HotswapError
from serving.repository.names import validate_model_name

BUILT_IN = (*("iris", "digits", "digits_images", "breast_cancer", "diabetes", "linnerud", "rentals", "tickets"),)

_FILE = re.compile(r"(?P<file>.+\.py)(?::(?P<attribute>\w+))?")
_changed_at: dict[str, int] = {}  # by file of a module beside a recipe: when it had been changed last, nanoseconds


class UnknownRecipe(HotswapError):
    """No recipe has this name."""


def find_recipe(name: str) -> Recipe:
    """
    The recipe called `name`: one of hotswap's own, ``churn.py`` or ``package.module``; ``:attribute`` may follow.

    The attribute is ``RECIPE`` where none is given.

    Raises:
        RecipeFailed: Its module fails when it is imported.
        UnknownRecipe: There is none; the message says what can be named instead.
    """
    if found := _FILE.fullmatch(name):
        module, attribute = _of_file(Path(found["file"]).expanduser(), name), found["attribute"]
    else:
        path, _, attribute = name.partition(":")
        module = _of_dotted_path(path, attribute, name)
    recipe = getattr(module, attribute or "RECIPE", None)
    if not isinstance(recipe, Recipe):
        where = found["file"] if found else module.__name__
        raise UnknownRecipe(f"{where} has no flows.recipes.Recipe called {attribute or 'RECIPE'}")
    validate_model_name(recipe.name)
    return recipe


def _of_file(path: Path, name: str) -> ModuleType:
    file = path.resolve()
    if not file.is_file():
        raise UnknownRecipe(f"There is no file {path}: name {_choices()}")
    _put_first(file.parent)
    _forget_changed(file.parent)
    known = sys.modules.get(file.stem)
    module_name = file.stem if known is None or _file_of(known) == str(file) else f"{file.stem}_recipe"
    if (known := sys.modules.get(module_name)) is None or _file_of(known) != str(file):
        with of_recipe(f"The recipe {name!r} cannot be imported"):
            _import(module_name, file)
    for each in _neighbours(file.parent).values():
        _changed_at.setdefault(each, _time_of(each))
    return sys.modules[module_name]


def _import(module_name: str, file: Path) -> None:
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise


def _put_first(directory: Path) -> None:
    sys.path[:] = [str(directory), *(each for each in sys.path if each != str(directory))]


def _forget_changed(directory: Path) -> None:
    """Forget the user's modules in `directory`, all of which may use each other, when one of them has changed."""
    neighbours = _neighbours(directory)
    if all(_changed_at.get(file, time) == time for file in neighbours.values() for time in [_time_of(file)]):
        return
    for name, file in neighbours.items():
        del sys.modules[name]
        _changed_at.pop(file, None)
    importlib.invalidate_caches()


def _neighbours(directory: Path) -> dict[str, str]:
    """The files of the user's modules that were imported from `directory`, by the modules' names."""
    files = {name: _file_of(module) for name, module in list(sys.modules.items()) if name != "__main__"}
    inside = f"{directory}/"
    return {name: file for name, file in files.items() if file.startswith(inside) and is_the_users(file)}


def _file_of(module: ModuleType) -> str:
    # Not by an attribute: modules that load lazily would load.
    file = vars(module).get("__file__") if isinstance(module, ModuleType) else None
    return file if isinstance(file, str) else ""


def _time_of(file: str) -> int:
    try:
        return Path(file).stat().st_mtime_ns
    except OSError:
        return 0


def _of_dotted_path(path: str, attribute: str, name: str) -> ModuleType:
    module_name = f"flows.recipes.{path}" if path in BUILT_IN else path
    if path not in BUILT_IN and "." not in path and not attribute:
        meant = f"; {path}.py is here" if path and Path(f"{path}.py").is_file() else ""
        raise UnknownRecipe(f"There is no recipe {name!r}: name {_choices()}{meant}")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise UnknownRecipe(f"{path!r} is no dotted path of a module: name {_choices()}")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # as `python -m` has it, and the script `hotswap` has not
    try:
        with of_recipe(f"The recipe {name!r} cannot be imported"):
            return importlib.import_module(module_name)
    except RecipeFailed as exc:
        if not _is_missing(exc.__cause__, module_name):
            raise
        reason = f"cannot be imported ({exc.__cause__})"
        raise UnknownRecipe(f"The recipe {name!r} {reason}: name {_choices()}") from exc.__cause__


def _is_missing(exc: BaseException | None, module_name: str) -> bool:
    """Whether there is no such module, rather than one that fails."""
    if not isinstance(exc, ModuleNotFoundError) or exc.name is None:
        return False
    return module_name == exc.name or module_name.startswith(f"{exc.name}.")


def _choices() -> str:
    return f"{', '.join(BUILT_IN)}, or a module of your own, as churn.py or package.module"
