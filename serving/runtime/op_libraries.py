"""
Loads the operations of a model that TensorFlow itself does not have.

Those of TensorFlow Text and of Decision Forests are part of TensorFlow Serving's binary. Here they are in packages of
their own, an extra of this one. Only the libraries that a model needs are loaded, and only once there is such a model:
all of them together take a quarter of a second and 120 MB. No package is imported, as that would import TensorFlow.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serving.protocol.errors import GraphError
from serving.protocol.unknown_operations import next_step
from serving.runtime.tf_session import load_operations, operation_definition

log = logging.getLogger(__name__)

_LIBRARIES = {
    "tensorflow_text": "python/*/_*.so",
    "ydf_tf": "inference.so",
    "tensorflow_decision_forests": "tensorflow/ops/inference/inference.so",
}
"""Per package, where its libraries of operations are."""


def load_missing(graph_def: Any) -> None:
    """Load the libraries, of those that are installed, that have operations of a graph that TensorFlow lacks."""
    missing = _missing(_operations(graph_def))
    for library in _installed() if missing else ():
        if not any(name.encode() in library.read_bytes() for name in missing):
            continue
        try:
            load_operations(library)
        except GraphError as exc:
            log.warning("operations cannot be loaded library=%s: %s", library, exc.message)
            continue
        log.info("operations loaded library=%s", library)
        missing = _missing(missing)
        if not missing:
            return
    for name in sorted(missing):
        log.warning("%s", next_step(name))


def _operations(graph_def: Any) -> set[str]:
    """All that a graph and its functions run, those functions themselves left out."""
    functions = graph_def.library.function
    nodes = [*graph_def.node, *(node for function in functions for node in function.node_def)]
    return {node.op for node in nodes} - {function.signature.name for function in functions}


def _missing(names: set[str]) -> set[str]:
    return {name for name in names if operation_definition(name) is None}


def _installed() -> Iterator[Path]:
    for package, pattern in _LIBRARIES.items():
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            yield from sorted(Path(place).glob(pattern))
