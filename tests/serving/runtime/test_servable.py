"""Does a SavedModel give back what it took?"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import ops

from serving.protocol.errors import GraphError
from serving.runtime.saved_model import LoadOptions, load
from serving.runtime.servable import INIT_SIGNATURE
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


@pytest.fixture(scope="module")
def branching(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A dense network and signatures ``residual``, ``product``, ``loop``, ``count`` and ``find``.

    Each is one of x: float32 [-1, 4], and has one output.
    """
    module, row = tf.Module(), [tf.TensorSpec([None, 4], tf.float32, name="x")]
    module.weights = tf.Variable(tf.reshape(tf.range(8.0), [4, 2]))
    module.square = tf.Variable(tf.sin(tf.reshape(tf.range(16.0), [4, 4])))
    module.biases = tf.Variable(tf.sin(tf.range(4.0)))
    module.runs = tf.Variable(0.0)
    keys = tf.lookup.KeyValueTensorInitializer(tf.constant([0, 1]), tf.constant(["none", "one"]))
    module.names = tf.lookup.StaticHashTable(keys, "many")

    def serving_default(x: tf.Tensor) -> dict[str, tf.Tensor]:
        hidden = tf.nn.relu(tf.nn.bias_add((x - 2.0) @ module.square, module.biases))
        return {"y": tf.nn.softmax(tf.nn.bias_add(hidden @ module.square, module.biases))}

    def residual(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x + tf.nn.bias_add(x @ module.square, module.biases)}

    def product(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.nn.softmax(tf.nn.relu(x @ module.weights - 1.0))}

    def loop(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.while_loop(lambda y: tf.reduce_max(y) < 9.0, lambda y: (y + 1.0,), (x,))[0]}

    def count(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x + module.runs.assign_add(1.0)}

    def find(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": module.names.lookup(tf.cast(x, tf.int32))}

    path = tmp_path_factory.mktemp("branching")
    signatures = (serving_default, residual, product, loop, count, find)
    functions = {each.__name__: tf.function(each, input_signature=row) for each in signatures}
    tf.saved_model.save(module, str(path), signatures=functions)
    return path


def with_signatures(path: Path, target: Path, *names: str) -> Path:
    """A copy of a SavedModel that has these signatures of its own alone."""
    shutil.copytree(path, target)
    file = target / "saved_model.pb"
    content = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    signatures = content.meta_graphs[0].signature_def
    for name in set(signatures) - {*names, INIT_SIGNATURE}:
        del signatures[name]
    file.write_bytes(content.SerializeToString())
    return target


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("name", ["serving_default", "residual", "product", "find"])
@pytest.mark.parametrize("is_beside_a_dense_network", [False, True])
def test_a_graph_that_runs_in_order_answers_the_same(
    name: str, is_beside_a_dense_network: bool, branching: Path, tmp_path: Path
) -> None:
    """Whatever becomes of NaN; its errors name the node that refused, too."""
    path = with_signatures(branching, tmp_path / "1", name, *["serving_default"] * is_beside_a_dense_network)
    rows = np.array([[0.1, 1, 2.3, 1], [1, 0, np.inf, 7], [0, 0, 0, np.nan], [3e38, 3e38, -3e38, 0]], np.float32)
    before, found, told = graphs(), [], []
    for in_order in (False, True):
        servable = load("branching", 1, path, LoadOptions(in_order=in_order))
        call, _ = servable.bind(servable.signatures[name], {"x": rows})
        assert servable.is_unfused_in_order is (in_order and "serving_default" in servable.signatures)
        assert call.is_in_order is (in_order and (name == "serving_default" or not is_beside_a_dense_network))
        found.append(np.concatenate([call([part])[0] for part in (rows[:1], rows[:2], rows)]))
        if name == "product":
            with pytest.raises(GraphError) as refused:
                call([rows[:, :3]])
            told.append(refused.value.message)
            assert "/matmul}}" in refused.value.message
        servable.close()
        del call, servable
        assert graphs() == before
    if name == "serving_default":  # processors differ in whether the last digit is the same
        np.testing.assert_allclose(found[1], found[0], rtol=1e-6)
    else:
        np.testing.assert_array_equal(found[1], found[0])
    assert told[:1] == told[1:]


@pytest.mark.parametrize("name", ["loop", "count"])
def test_a_graph_with_control_flow_or_changing_state_runs_as_ever(name: str, branching: Path, tmp_path: Path) -> None:
    path = with_signatures(branching, tmp_path / "1", name, "product")
    servable = load("branching", 1, path, LoadOptions(in_order=True))
    call, arrays = servable.bind(servable.signatures[name], {"x": np.ones((1, 4), np.float32)})
    assert not call.is_in_order
    first, second = call(arrays)[0].max(), call(arrays)[0].max()
    assert (first, second) == ((9.0, 9.0) if name == "loop" else (2.0, 3.0))
    servable.close()


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
