"""SavedModels of one operation, also of operations that nobody has."""

from __future__ import annotations

from pathlib import Path

from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2


def save(target: Path, operation: str) -> None:
    """A SavedModel that puts strings through one operation; nothing has to be registered to write it."""
    saved_model = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    meta_graph = saved_model.meta_graphs.add()
    meta_graph.meta_info_def.tags.append("serve")
    text = meta_graph.graph_def.node.add(name="text", op="Placeholder")
    text.attr["dtype"].type = types_pb2.DT_STRING
    found = meta_graph.graph_def.node.add(name="found", op=operation, input=["text"])
    if operation == "Identity":
        found.attr["T"].type = types_pb2.DT_STRING
    meta_graph.graph_def.versions.producer = 1882
    signature = meta_graph.signature_def["serving_default"]
    for infos, alias in ((signature.inputs, "text"), (signature.outputs, "found")):
        infos[alias].name, infos[alias].dtype = f"{alias}:0", types_pb2.DT_STRING
        infos[alias].tensor_shape.dim.add(size=-1)
    target.mkdir(parents=True)
    (target / "saved_model.pb").write_bytes(saved_model.SerializeToString())
