"""Does a SavedModel give back what it took?"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tensorflow.core.protobuf import saved_model_pb2
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


def test_what_saves_stays_where_a_signature_asks_for_it(tiny_model: TinyModel, tmp_path: Path) -> None:
    """A server never saves, but it serves every signature that a model has."""
    path = tiny_model(tmp_path, 1)
    file = path / "saved_model.pb"
    content = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    meta_graph = content.meta_graphs[0]
    signature = meta_graph.signature_def["save"]
    signature.inputs["file"].name, signature.inputs["file"].dtype = meta_graph.saver_def.filename_tensor_name, 7
    signature.outputs["saved"].name, signature.outputs["saved"].dtype = meta_graph.saver_def.save_tensor_name, 7
    file.write_bytes(content.SerializeToString())
    servable = load("tiny", 1, path, LoadOptions())
    prefix = np.array(str(tmp_path / "saved").encode(), object)
    call, arrays = servable.bind(servable.signatures["save"], {"file": prefix})
    call(arrays)
    servable.close()
    assert (tmp_path / "saved.index").exists()
