"""Reads from the files of a SavedModel what it promises to clients, and what a server would run besides computing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serving.protocol.errors import GraphError, IncompleteSavedModel
from serving.protocol.signature import INIT_SIGNATURE
from serving.protocol.tensors import type_name
from serving.runtime.operations import Operations

_INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")
_RESTORE_OPS = frozenset({"Restore", "RestoreSlice", "RestoreV2"})
_MARKERS = (
    *("DebugIdentity", "DebugNanCount", "DebugNumericSummary", "DataServiceDataset", "RegisterDataset", "Rpc"),
    "SimpleMLLoadModelFrom",
)
"""families of ops that write to addresses, or ask other hosts; and those of Decision Forests that read a file"""

UNSAFE_OPS = _RESTORE_OPS | {
    # Python
    *("EagerPyFunc", "PyFunc", "PyFuncStateless"),
    # files, whole
    *("ImmutableConst", "MatchingFiles", "ReadFile", "WriteFile"),
    # checkpoints
    *("DTensorRestoreV2", "DistributedSave", "GenerateVocabRemapping", "LoadAndRemapMatrix", "MergeV2Checkpoints"),
    *("Save", "SaveSlices", "SaveV2"),
    # tables and samplers that read a file of words
    *("FixedUnigramCandidateSampler", "InitializeTableFromTextFile", "InitializeTableFromTextFileV2", "Skipgram"),
    # readers
    *("FixedLengthRecordReader", "FixedLengthRecordReaderV2", "LMDBReader", "RecordInput", "TFRecordReader"),
    *("TFRecordReaderV2", "TextLineReader", "TextLineReaderV2", "WholeFileReader", "WholeFileReaderV2"),
    # data sets
    *("CSVDataset", "CSVDatasetV2", "CacheDataset", "CacheDatasetV2", "DatasetToTFRecord", "ExperimentalCSVDataset"),
    *("ExperimentalDatasetToTFRecord", "ExperimentalLMDBDataset", "ExperimentalMatchingFilesDataset"),
    *("ExperimentalSqlDataset", "FixedLengthRecordDataset", "FixedLengthRecordDatasetV2", "LMDBDataset"),
    *("ListSnapshotChunksDataset", "LoadDataset", "MatchingFilesDataset", "SaveDataset", "SaveDatasetV2"),
    *("SnapshotChunkDataset", "SnapshotDataset", "SnapshotDatasetReader", "SnapshotDatasetV2"),
    *("SnapshotNestedDatasetReader", "SqlDataset", "TFRecordDataset", "TFRecordDatasetV2", "TextLineDataset"),
    # logs
    *("CalibrationStatisticsSaver", "CreateSummaryDbWriter", "CreateSummaryFileWriter", "DumpTensor", "PrintV2"),
}
"""
Ops that touch files, other hosts or Python, with `_MARKERS`. A graph cannot start a process except by these.

``PrintV2`` counts where it prints to a file only.
"""


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature: per tensor its dtype and shape, such as ``float32 [-1, 4]`` or ``sparse int64 [-1, 9]``."""

    method: str
    """``tensorflow/serving/predict``, or another API of the server"""
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A dense input or output of a signature."""

    dtype: np.dtype[Any]
    """object for strings"""
    shape: tuple[int, ...] | None
    """-1 where any size will do; None for any shape"""
    text: str
    """as `Signature` has it"""

    @property
    def is_text(self) -> bool:
        return self.dtype == object


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a SavedModel's files say, without running it."""

    signatures: Mapping[str, Signature]
    class_names: tuple[str, ...]
    """the classes in the order of the probabilities; empty where the model does not carry them"""
    unsafe_ops: frozenset[str]
    """those of `UNSAFE_OPS` that a server would run"""
    size: int
    """bytes, all files together"""


def inspect(saved_model: Path) -> Inspection:
    """
    Read the graph of `saved_model` that is tagged ``serve``, which is the one that is served.

    Raises:
        IncompleteSavedModel: There is none, or it cannot be read.
    """
    graph = _serving_graph(saved_model)
    names_file = saved_model / "assets" / "class_names.txt"
    return Inspection(
        signatures=describe(graph),
        class_names=tuple(names_file.read_text("utf-8").splitlines()) if names_file.is_file() else (),
        unsafe_ops=_unsafe_ops(graph),
        size=sum(file.stat().st_size for file in saved_model.rglob("*") if file.is_file()),
    )


def describe(meta_graph: Any) -> dict[str, Signature]:
    """The signatures of a graph that clients can see."""
    found = sorted(meta_graph.signature_def.items())
    return {name: _signature(each) for name, each in found if name != INIT_SIGNATURE}


def is_dense(described: str) -> bool:
    """Whether this is the dtype and shape of one dense tensor."""
    return re.match(r"\w+ \[", described) is not None


def tensors_of(described: Mapping[str, str]) -> dict[str, Tensor]:
    """The dense tensors of a signature, by name."""
    import tensorflow

    found = {}
    for name, text in described.items():
        if is_dense(text):
            dtype, _, sizes = text.rstrip("]").partition(" [")
            shape = None if sizes == "any" else tuple(int(size) for size in sizes.split(", ") if size)
            found[name] = Tensor(np.dtype(tensorflow.as_dtype(dtype).as_numpy_dtype), shape, text)
    return found


def _serving_graph(saved_model: Path) -> Any:
    from serving.runtime.saved_model import read_meta_graph

    try:
        return read_meta_graph(saved_model)
    except GraphError as exc:
        raise IncompleteSavedModel(f"{saved_model} cannot be read: {exc}") from exc


def _signature(definition: Any) -> Signature:
    return Signature(definition.method_name, _tensors(definition.inputs), _tensors(definition.outputs))


def _tensors(infos: Mapping[str, Any]) -> dict[str, str]:
    return {name: _described(info) for name, info in sorted(infos.items())}


def _described(info: Any) -> str:
    """
    The dtype and shape of a tensor, and whether it is sparse; of a composite one its kind, and those of its parts.

    Clients can ask for none but dense ones.
    """
    form = info.WhichOneof("encoding")
    if form == "composite_tensor":
        kind = info.composite_tensor.type_spec.type_spec_class_name or "composite"
        return f"{kind} ({', '.join(map(_described, info.composite_tensor.components))})"
    unknown = info.tensor_shape.unknown_rank
    sizes = "any" if unknown else ", ".join(str(dimension.size) for dimension in info.tensor_shape.dim)
    return f"{'sparse ' if form == 'coo_sparse' else ''}{_dtype_name(info.dtype)} [{sizes}]"


def _dtype_name(data_type: int) -> str:
    import tensorflow

    try:
        name: str = tensorflow.as_dtype(data_type).name
    except TypeError:  # none, or one of a later TensorFlow
        return type_name(data_type)
    return name


def _unsafe_ops(graph: Any) -> frozenset[str]:
    """
    What runs at a request, at the start, or while variables are restored, and is unsafe.

    Every SavedModel has ops that save and restore its variables. No server runs those that save, and it runs those that
    restore with its own path.
    """
    outputs = [info for each in graph.signature_def.values() for info in each.outputs.values()]
    requests = [name for info in outputs for name in _tensor_names(info)]
    start = [name for key in _INIT_COLLECTIONS for name in graph.collection_def[key].node_list.value]
    operations = Operations(graph.graph_def)
    called = {node.op for node in operations.nodes([*requests, *start]) if _is_unsafe(node)}
    restoring = {node.op for node in operations.nodes([graph.saver_def.restore_op_name]) if _is_unsafe(node)}
    return frozenset(called | (restoring - _RESTORE_OPS))


def _is_unsafe(node: Any) -> bool:
    if node.op == "PrintV2":
        return bool(node.attr["output_stream"].s.startswith(b"file://"))
    return node.op in UNSAFE_OPS or node.op.startswith(_MARKERS)


def _tensor_names(info: Any) -> Iterator[str]:
    """The tensors of a dense, a sparse or a composite output."""
    sparse = info.coo_sparse
    yield from (info.name, sparse.values_tensor_name, sparse.indices_tensor_name, sparse.dense_shape_tensor_name)
    for component in info.composite_tensor.components:
        yield from _tensor_names(component)
