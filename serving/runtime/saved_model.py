"""
Makes a servable of a SavedModel: reads its graph, restores its variables, initialises its tables.

Source: tensorflow/cc/saved_model/loader.cc
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from serving.protocol.errors import GraphError
from serving.protocol.signature import INIT_SIGNATURE
from serving.protocol.tensors import Array
from serving.runtime.background import Native, at_once
from serving.runtime.op_libraries import load_missing
from serving.runtime.operations import node_name
from serving.runtime.servable import Servable
from serving.runtime.tf_session import Session, unreadable_reason

_VARIABLE_OPS = {"VarHandleOp", "VariableV2", "Variable"}
_NO_SAVED_MODEL = (
    "Specified file path does not appear to contain a SavedModel bundle (should have a file called `saved_model.pb`)\n"
    "Specified file path: {path}"
)
_NO_META_GRAPH = (
    "Could not find meta graph def matching supplied tags: {{ {tags} }}. To inspect available tag-sets in the "
    "SavedModel, please use the SavedModel CLI: `saved_model_cli`"
)


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How SavedModels are loaded: the tags of the meta graph, and TensorFlow's threads (0: it decides)."""

    tags: frozenset[str] = frozenset({"serve"})
    intra_op_threads: int = 0
    inter_op_threads: int = 0


def load(model: str, version: int, path: Path, options: LoadOptions, native: Native = at_once) -> Servable:
    """
    Load a SavedModel: graph, variables, tables and assets.

    Args:
        native: How TensorFlow is called for what it does in C++ for long; the servable keeps it.

    Raises:
        GraphError: It cannot be loaded; code and text are TensorFlow's.
    """
    meta_graph = read_meta_graph(path, options.tags)
    load_missing(meta_graph.graph_def)
    try:
        servable = unrestored(model, version, path, options, meta_graph, native)
        try:
            assets = _asset_feeds(path, meta_graph)
            _restore(servable, path, meta_graph, assets)
            _initialise(servable, meta_graph, assets)
        except BaseException:
            servable.close()
            raise
    except (ValueError, KeyError, TypeError) as exc:
        raise GraphError(grpc.StatusCode.INVALID_ARGUMENT, str(exc)) from exc
    for signature in servable.signatures.values():
        servable.obstacle(signature)  # looked for now, as nobody waits
    return servable


def unrestored(
    model: str, version: int, path: Path, options: LoadOptions, meta_graph: Any, native: Native = at_once
) -> Servable:
    """A servable whose variables and tables have no values yet."""
    session = Session(meta_graph, options.intra_op_threads, options.inter_op_threads, native)
    try:
        return Servable(model, version, path, session, meta_graph)
    except BaseException:
        session.close()
        raise


def read_meta_graph(path: Path, tags: frozenset[str] = frozenset({"serve"})) -> Any:
    """
    The ``MetaGraphDef`` of a SavedModel that has these tags and no others.

    Raises:
        GraphError: There is none, or it cannot be read; code and text are TensorFlow's.
    """
    file, text_file = path / "saved_model.pb", path / "saved_model.pbtxt"
    saved_model = saved_model_pb2.SavedModel()
    try:
        if not file.exists() and text_file.exists():
            text_format.Parse(text_file.read_bytes(), saved_model)
        else:
            saved_model.ParseFromString(file.read_bytes())
    except FileNotFoundError as exc:
        raise GraphError(grpc.StatusCode.NOT_FOUND, _NO_SAVED_MODEL.format(path=path)) from exc
    except NotADirectoryError as exc:
        raise GraphError(grpc.StatusCode.FAILED_PRECONDITION, f"{path}; Not a directory") from exc
    except PermissionError as exc:
        raise GraphError(grpc.StatusCode.PERMISSION_DENIED, f"{exc.filename}; Permission denied") from exc
    except OSError as exc:
        raise GraphError(grpc.StatusCode.UNKNOWN, f"{exc.filename}; {exc.strerror}") from exc
    except DecodeError as exc:
        raise GraphError(*unreadable_reason(path)) from exc
    except (text_format.ParseError, UnicodeDecodeError) as exc:
        raise GraphError(grpc.StatusCode.DATA_LOSS, f"Can't parse {text_file} as text proto") from exc
    for meta_graph in saved_model.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == tags:
            return meta_graph
    raise GraphError(grpc.StatusCode.NOT_FOUND, _NO_META_GRAPH.format(tags=" ".join(sorted(tags))))


def _asset_feeds(path: Path, meta_graph: Any) -> dict[str, Array]:
    feeds = {}
    for any_proto in meta_graph.collection_def["saved_model_assets"].any_list.value:
        asset = type(meta_graph.asset_file_def.add())()
        any_proto.Unpack(asset)
        feeds[asset.tensor_info.name] = _string(path / "assets" / asset.filename)
    return feeds | {
        asset.tensor_info.name: _string(path / "assets" / asset.filename)
        for asset in meta_graph.asset_file_def
        if asset.filename
    }


def _string(path: Path) -> Array:
    return np.array(str(path).encode(), dtype=object)


def _restore(servable: Servable, path: Path, meta_graph: Any, assets: Mapping[str, Array]) -> None:
    variables = path / "variables" / "variables"
    if not variables.with_suffix(".index").exists():
        if _has_variables(meta_graph.graph_def):
            raise GraphError(grpc.StatusCode.NOT_FOUND, f"{variables}.index; No such file or directory")
        return
    saver = meta_graph.saver_def
    if saver.restore_op_name:
        servable.session.run_operation(
            saver.restore_op_name, {**assets, saver.filename_tensor_name: _string(variables)}
        )


def _has_variables(graph_def: Any) -> bool:
    return any(node.op in _VARIABLE_OPS for node in graph_def.node)


def _initialise(servable: Servable, meta_graph: Any, assets: Mapping[str, Array]) -> None:
    if INIT_SIGNATURE in meta_graph.signature_def:
        for output in meta_graph.signature_def[INIT_SIGNATURE].outputs.values():
            if not servable.operations.does_nothing(node_name(output.name)):
                servable.session.run_operation(node_name(output.name), assets)
        return
    for collection in ("saved_model_main_op", "legacy_init_op"):
        for name in meta_graph.collection_def[collection].node_list.value:
            servable.session.run_operation(node_name(name), assets)
            return
