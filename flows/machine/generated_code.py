"""
Removes the files with the code that TensorFlow's AutoGraph has made of functions, its own and those of recipes.

AutoGraph does so itself at the exit of the interpreter, to which a process that was forked or killed does not come. The
code has been loaded, and is not read again.
"""

from __future__ import annotations

import sys
from pathlib import Path

_PREFIX = "__autograph_generated_file"


def remove_generated_code() -> None:
    """Remove those of this process from the temporary directory."""
    for name, module in list(sys.modules.items()):
        if name.startswith(_PREFIX) and module.__file__ is not None:
            Path(module.__file__).unlink(missing_ok=True)
