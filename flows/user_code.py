"""
Translates errors in the code of a recipe.

A recipe is the user's own code, so a bug in it is no bug of hotswap: the message names the line that raised, and the
whole traceback is kept for whoever corrects it.
"""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.protocol.errors import HotswapError

_OURS = Path(__file__).resolve().parent.parent
_ROOMS = tuple(str(_OURS / room) for room in ("flows", "serving", "clients"))
_RECIPES = str(_OURS / "flows" / "recipes")
_INSTALLED = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_MAX_WORDS = 300


class RecipeFailed(HotswapError):
    """The code of a recipe failed."""


class OutOfMemory(HotswapError):
    """There is not enough memory for this."""


@contextmanager
def of_recipe(what: str) -> Iterator[None]:
    """
    Say where the code of a recipe failed.

    Args:
        what: What it was doing: "the recipe 'iris' cannot build its model".

    Raises:
        RecipeFailed: The block failed.
        OutOfMemory: It failed for lack of memory.
    """
    try:
        yield
    except HotswapError:
        raise
    except SystemExit as exc:
        raise RecipeFailed(f"{what}: its code ended the program (sys.exit); take that out of it") from exc
    except Exception as exc:
        if isinstance(exc, MemoryError) or type(exc).__name__ == "ResourceExhaustedError":
            step = "lower the recipe's batch_size or the size of its data and model, or train where more is free"
            raise OutOfMemory(f"{what}: memory ran out; {step}") from exc
        raise RecipeFailed(f"{what}: {described(exc)}{_place(exc)}") from exc


def described(exc: BaseException) -> str:
    """The type and the first line of an error, with the second line where the first only announces it."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    words = " ".join(lines[: 2 if lines and lines[0].startswith("Exception encountered") else 1])[:_MAX_WORDS]
    return f"{type(exc).__name__}: {words}" if words else type(exc).__name__


def _place(exc: Exception) -> str:
    """Where to look: the innermost line of the user's own code, or its results where none of its lines took part."""
    if isinstance(exc, SyntaxError) and exc.filename:
        return f", at {exc.filename}:{exc.lineno}; correct it there"
    frames = [frame for frame in traceback.extract_tb(exc.__traceback__) if is_the_users(frame.filename)]
    if not frames:
        return "; see what its build() and load() return"
    return f", at {frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}; correct it there"


def is_the_users(file: str) -> bool:
    """Whether code is not Python's, an installed package's or ours; that of a shipped recipe counts as the user's."""
    if file.startswith(_RECIPES):
        return Path(file).name != "__init__.py"
    return not file.startswith(("<", *_ROOMS, *_INSTALLED)) and "site-packages" not in file
