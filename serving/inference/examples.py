"""
Answers classify, regress and multi-inference requests, which carry ``tf.Example`` records.

Classify and Regress feed serialised examples and give the outputs a meaning; MultiInference does several of them in one
run of the graph: every input that their signatures have gets all examples.

Source: tensorflow_serving/servables/tensorflow/multi_inference.cc
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serving.inference.data_plane import DataPlane
from serving.inference.example_log import note_classify, note_multi_inference, note_regress
from serving.protocol.signature import Signature
from serving.protocol.tensors import Array
from serving.runtime.example_tasks import (
    Aliases,
    Classifications,
    Regressions,
    answers_of,
    asked_of,
    checked_classify,
    checked_regress,
    classifications,
    find_signature,
    output_filter,
    regressions,
    serialized_examples,
    together,
)
from serving.runtime.servable import ServableHandle


async def classify(
    data_plane: DataPlane,
    handle: ServableHandle,
    signature_name: str,
    source: Any,
    timeout_seconds: float | None = None,
) -> Classifications:
    """
    The labels and scores for a ``tensorflow.serving.Input``, one list per example.

    Raises:
        InvalidRequest: The signature does not classify, or there are no examples.
        GraphError: TensorFlow refused to run the graph.
    """
    servable, check_method = handle.servable, data_plane.settings.enable_signature_method_name_check
    signature = find_signature(servable, signature_name)
    wanted = checked_classify(servable, signature, check_method)
    outputs, rows = await _run(data_plane, handle, signature, wanted, source, timeout_seconds, "Classify")
    found = classifications(outputs, rows)
    note_classify(data_plane.request_log, servable, signature.name, source, found)
    return found


async def regress(
    data_plane: DataPlane,
    handle: ServableHandle,
    signature_name: str,
    source: Any,
    timeout_seconds: float | None = None,
) -> Regressions:
    """
    The values for a ``tensorflow.serving.Input``, one per example.

    Raises:
        InvalidRequest: The signature does not regress, or there are no examples.
        GraphError: TensorFlow refused to run the graph.
    """
    servable, check_method = handle.servable, data_plane.settings.enable_signature_method_name_check
    signature = find_signature(servable, signature_name)
    wanted = checked_regress(servable, signature, check_method)
    outputs, rows = await _run(data_plane, handle, signature, wanted, source, timeout_seconds, "Regress")
    found = regressions(outputs, rows)
    note_regress(data_plane.request_log, servable, signature.name, source, found)
    return found


async def multi_inference(
    data_plane: DataPlane, handle: ServableHandle, tasks: Sequence[Any], source: Any
) -> list[tuple[str, Classifications | Regressions]]:
    """
    Signature name and answer of each ``InferenceTask``, all from one run of the graph.

    Raises:
        InvalidRequest: A task asks for another model, an unknown signature, or one twice.
        Unsupported: A task asks for something other than classify or regress.
    """
    asked = asked_of(handle.servable, tasks, data_plane.settings.enable_signature_method_name_check)
    found, rows = await _run(data_plane, handle, together(asked), (), source, None, "MultiInference")
    data_plane.metrics.count_examples(handle.servable.model, rows)
    answers = answers_of(tasks, asked, found, rows)
    note_multi_inference(data_plane.request_log, handle.servable, tasks, source, answers)
    return answers


async def _run(
    data_plane: DataPlane,
    handle: ServableHandle,
    signature: Signature,
    wanted: Aliases,
    source: Any,
    timeout_seconds: float | None,
    api: str,
) -> tuple[dict[str, Array], int]:
    examples = serialized_examples(source)
    inputs = dict.fromkeys(signature.inputs, examples)
    outputs = await data_plane.run(
        handle.servable, signature, inputs, output_filter(signature, wanted), timeout_seconds, api
    )
    return outputs, len(examples)
