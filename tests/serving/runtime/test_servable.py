"""Does a SavedModel give back what it took?"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tensorflow.python.framework import ops

from serving.protocol.errors import GraphError
from serving.runtime.saved_model import LoadOptions, load
from tests.conftest import TinyModel


@pytest.fixture
def no_collection() -> Iterator[None]:
    """A test without the cyclic garbage collector."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def graphs() -> int:
    """How many graphs are in memory."""
    return sum(isinstance(each, ops.Graph) for each in gc.get_objects())


@pytest.mark.usefixtures("no_collection")
def test_the_graph_of_a_closed_version_is_freed_at_once(tiny_model: TinyModel, tmp_path: Path) -> None:
    """It does not wait for a garbage collection, which may be hundreds of swaps away."""
    path = tiny_model(tmp_path, 1)
    before = graphs()
    servable = load("tiny", 1, path, LoadOptions())
    call, arrays = servable.bind(servable.signatures["serving_default"], {"input": np.ones((1, 4), np.float32)})
    call(arrays)
    assert graphs() == before + 1
    servable.close()
    del call, servable
    assert graphs() == before


@pytest.mark.usefixtures("no_collection")
def test_the_graph_of_a_failed_load_is_freed_at_once(tiny_model: TinyModel, tmp_path: Path) -> None:
    """A load that is tried again and again does not gather graphs."""
    path = tiny_model(tmp_path, 1)
    shutil.rmtree(path / "variables")
    before = graphs()
    with pytest.raises(GraphError):
        load("tiny", 1, path, LoadOptions())
    assert graphs() == before
