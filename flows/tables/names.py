"""
The names of a model's inputs, as close to the columns' names as TensorFlow allows.

It takes letters of ASCII, digits and underscores, a letter first, and no word of the Python language, because a
signature's inputs are the parameters of a function.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Sequence

_RESERVED = {"self", "output", "input"}


def input_names(columns: Sequence[str]) -> dict[str, str]:
    """The input's name of each column; a name that can be used stays as it is."""
    names: dict[str, str] = {}
    names.update({column: column for column in columns if is_usable(column)})
    for position, column in enumerate(columns, start=1):
        if column not in names:
            names[column] = _unused(_usable(column, position), set(names.values()))
    return {column: names[column] for column in columns}


def is_usable(name: str) -> bool:
    """Whether TensorFlow takes it as it is."""
    is_plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) is not None
    return is_plain and not keyword.iskeyword(name) and name not in _RESERVED


def _usable(name: str, position: int) -> str:
    plain = unicodedata.normalize("NFKD", name.replace("ß", "ss")).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")
    if not plain:
        return f"column_{position}"
    if not plain[0].isalpha():
        return f"column_{plain}"
    return plain if is_usable(plain) else f"{plain}_"


def _unused(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free
