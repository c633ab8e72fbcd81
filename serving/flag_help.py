"""
Explains each flag of the model server.

The help of a flag is the docstring of its field in `ServerSettings`.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator

from serving.settings import ServerSettings

_OWN_WORDS = {
    "port": "The port of gRPC; 0 turns it off.",
    "rest_api_port": "The port of REST; 0 turns it off.",
    "ephemeral_ports": "Let the kernel choose both ports.",
    "ports_file": "Where to write ports and process id as JSON once the server answers; - for standard output.",
    "version": "Print the version and exit.",
}


def flag_meanings() -> dict[str, str]:
    """What every flag that has an effect does, by its name."""
    return {**dict(_documented()), **_OWN_WORDS}


def _documented() -> Iterator[tuple[str, str]]:
    """Every field of `ServerSettings` with the words below it."""
    (settings,) = ast.parse(inspect.getsource(ServerSettings)).body
    assert isinstance(settings, ast.ClassDef)
    for field, below in zip(settings.body, settings.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                yield name, " ".join(words.split()).replace("``", "`")
