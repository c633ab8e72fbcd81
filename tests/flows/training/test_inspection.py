"""What the files of a SavedModel say without being run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.training.inspection import UNSAFE_OPS, inspect
from serving.protocol.errors import IncompleteSavedModel
from serving.repository.saved_model_files import check_complete
from tests.conformance.cases import MODELS


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., Path]:
    """Exports a function of ``input`` float32 [-1, 4] as ``serving_default``; `kept` are objects that it needs."""

    def put(function: Callable[[Any], Any], kept: Any = None) -> Path:
        import tensorflow as tf

        module = tf.Module()
        module.kept = kept
        module.weight = tf.Variable(2.0)
        rows = tf.TensorSpec([None, 4], tf.float32, name="input")
        serve = tf.function(lambda input: {"output": function(input) * module.weight}, input_signature=[rows])
        tf.saved_model.save(module, str(tmp_path / "model"), signatures={"serving_default": serve})
        return tmp_path / "model"

    return put


def test_signatures_are_reported_with_dtypes_and_shapes(tiny_model: Any, tmp_path: Path) -> None:
    """Every signature that a client can ask, by name, and nothing else."""
    path = tiny_model(tmp_path, 1)
    found = inspect(path)
    assert list(found.signatures) == ["counted", "serving_default"]
    default = found.signatures["serving_default"]
    assert default.method == "tensorflow/serving/predict"
    assert default.inputs == {"input": "float32 [-1, 4]"}
    assert default.outputs == {"output": "float32 [-1, 3]"}
    assert found.size == sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def test_every_unsafe_op_is_one_that_tensorflow_has() -> None:
    """A name with a mistake in it would never be found."""
    import tensorflow as tf  # noqa: F401  (registers the ops)
    from tensorflow.python.framework import op_def_registry

    assert [name for name in UNSAFE_OPS if op_def_registry.get(name) is None] == []


def test_saving_and_restoring_variables_is_no_touching_of_files(export: Callable[..., Path]) -> None:
    """Every SavedModel has these ops; a server does not run them, or with a path of its own."""
    from tensorflow.core.protobuf import saved_model_pb2

    path = export(lambda rows: rows)
    message = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    graph = message.meta_graphs[0].graph_def
    ops = {node.op for function in graph.library.function for node in function.node_def}
    assert {"SaveV2", "RestoreV2", "MergeV2Checkpoints"} <= ops | {node.op for node in graph.node}
    assert inspect(path).unsafe_ops == frozenset()


def _reads(rows: Any) -> Any:
    import tensorflow as tf

    return rows + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)


def _reads_in_a_branch(rows: Any) -> Any:
    import tensorflow as tf

    inner = tf.function(_reads)
    return tf.cond(tf.reduce_sum(rows) > 0, lambda: inner(rows), lambda: rows)


def _writes_for_nothing(rows: Any) -> Any:
    import tensorflow as tf

    tf.io.write_file("/tmp/never-run", "text")
    return rows


def _runs_python(rows: Any) -> Any:
    import tensorflow as tf

    return tf.ensure_shape(tf.py_function(lambda each: each, [rows], tf.float32), rows.shape)


def _restores(rows: Any) -> Any:
    import tensorflow as tf

    return rows + tf.raw_ops.RestoreV2(prefix="/x", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32])[0]


def _prints_to_a_file(rows: Any) -> Any:
    import tensorflow as tf

    tf.print(rows, output_stream="file:///tmp/never-written")
    return rows


def _lists_in_a_data_set(rows: Any) -> Any:
    import tensorflow as tf

    data = tf.data.Dataset.range(2).map(lambda i: tf.size(tf.io.matching_files("/etc/*")))
    return rows + tf.cast(data.reduce(0, lambda total, each: total + each), tf.float32)


@pytest.mark.parametrize(
    ("function", "op"),
    [
        (_reads, "ReadFile"),
        (_reads_in_a_branch, "ReadFile"),
        (_writes_for_nothing, "WriteFile"),
        (_runs_python, "EagerPyFunc"),
        (_restores, "RestoreV2"),
        (_prints_to_a_file, "PrintV2"),
        (_lists_in_a_data_set, "MatchingFiles"),
    ],
)
def test_ops_that_a_request_runs_are_found(
    function: Callable[[Any], Any], op: str, export: Callable[..., Path]
) -> None:
    """In the signature, in a function that it calls, in a branch, in a data set, and where only the effect counts."""
    assert inspect(export(function)).unsafe_ops == {op}


def test_a_file_that_is_read_at_the_start_is_found(export: Callable[..., Path], tmp_path: Path) -> None:
    """The init op fills a table from a file of words."""
    import tensorflow as tf

    words = tmp_path / "words.txt"
    words.write_text("a\nb\n")
    source = tf.lookup.TextFileInitializer(
        str(words), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
    )
    table = tf.lookup.StaticHashTable(source, -1)
    path = export(lambda rows: rows + tf.cast(table.lookup(tf.constant("a")), tf.float32), table)
    assert inspect(path).unsafe_ops == {"InitializeTableFromTextFileV2"}


def test_printing_to_the_log_is_fine(export: Callable[..., Path]) -> None:
    """Only a file as the target of ``tf.print`` is unsafe."""

    def prints(rows: Any) -> Any:
        import tensorflow as tf

        tf.print(rows)
        return rows

    assert inspect(export(prints)).unsafe_ops == frozenset()


def test_a_function_that_nothing_calls_does_not_count(tmp_path: Path) -> None:
    """A method that is saved beside the signatures cannot be asked for by a client."""
    import tensorflow as tf

    module = tf.Module()
    rows = tf.TensorSpec([None, 4], tf.float32, name="input")
    module.unused = tf.function(_reads, input_signature=[rows])
    serve = tf.function(lambda input: {"output": input}, input_signature=[rows])
    tf.saved_model.save(module, str(tmp_path / "model"), signatures={"serving_default": serve})
    assert b"ReadFile" in (tmp_path / "model" / "saved_model.pb").read_bytes()
    assert inspect(tmp_path / "model").unsafe_ops == frozenset()


def test_an_op_hidden_in_the_restore_function_is_found(export: Callable[..., Path]) -> None:
    """A server runs the restore op when it loads, so what was put there counts, RestoreV2 itself apart."""
    from tensorflow.core.protobuf import saved_model_pb2

    path = export(lambda rows: rows) / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    graph = message.meta_graphs[0].graph_def
    restore = next(each for each in graph.library.function if "traced_restore" in each.signature.name)
    restore.node_def.add(name="hidden", op="ReadFile")
    path.write_bytes(message.SerializeToString())
    assert inspect(path.parent).unsafe_ops == {"ReadFile"}


@pytest.mark.parametrize("kind", ["sparse", "composite"])
def test_outputs_of_every_kind_are_followed(kind: str, export: Callable[..., Path]) -> None:
    """An unsafe op cannot hide behind an output that is no dense tensor."""
    from tensorflow.core.protobuf import saved_model_pb2

    path = export(_reads) / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    output = message.meta_graphs[0].signature_def["serving_default"].outputs["output"]
    name = output.name
    if kind == "sparse":
        output.coo_sparse.values_tensor_name = name
    else:
        output.composite_tensor.components.add(name=name)
    assert not output.name
    path.write_bytes(message.SerializeToString())
    assert inspect(path.parent).unsafe_ops == {"ReadFile"}


def test_the_graph_that_is_served_is_inspected(export: Callable[..., Path]) -> None:
    """Another graph in the same file, for other devices, hides nothing."""
    from tensorflow.core.protobuf import saved_model_pb2

    path = export(_reads) / "saved_model.pb"
    served = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    both = saved_model_pb2.SavedModel()
    both.meta_graphs.add().meta_info_def.tags.extend(["serve", "gpu"])
    both.meta_graphs.extend(served.meta_graphs)
    path.write_bytes(both.SerializeToString())
    assert inspect(path.parent).unsafe_ops == {"ReadFile"}


@pytest.mark.parametrize("content", [b"nonsense", None, b""])
def test_a_graph_that_cannot_be_read_is_reported(content: bytes | None, tmp_path: Path) -> None:
    """A missing, a broken and an empty file are each one sentence."""
    if content is not None:
        (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(IncompleteSavedModel):
        inspect(tmp_path)


def test_ragged_and_sparse_tensors_are_described() -> None:
    """Each form of tensor has words of its own, so that the gate sees when one becomes another."""
    ragged = inspect(MODELS / "ragged_default" / "1").signatures
    assert ragged["mixed"].outputs == {"n": "int32 [-1]", "words": "RaggedTensorSpec (string [-1], int64 [-1])"}
    assert inspect(MODELS / "sparse" / "1").signatures["mixed"].outputs == {
        "rows": "float32 [-1]",
        "sp": "sparse float32 [-1, 3]",
    }


def test_a_saved_model_may_be_text() -> None:
    """What a server loads can be inspected and published."""
    check_complete(MODELS / "pbtxt" / "4")
    assert inspect(MODELS / "pbtxt" / "4").signatures["serving_default"].outputs == {"output": "float32 [-1, 3]"}
