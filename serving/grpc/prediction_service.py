"""
Answers classify, regress, multi-inference and metadata requests over gRPC.

Source: tensorflow_serving/apis/prediction_service.proto, tensorflow_serving/model_servers/prediction_service_impl.cc
"""

from __future__ import annotations

from typing import Any

from tensorflow_serving.apis import get_model_metadata_pb2, inference_pb2, regression_pb2

from serving.grpc.model_specs import fill_spec, named_spec, require_spec, required_spec
from serving.grpc.statuses import version_trailer
from serving.inference import examples
from serving.inference.data_plane import DataPlane
from serving.inference.replies import signature_map
from serving.protocol import wire_pb2 as wire
from serving.protocol.errors import InvalidRequest
from serving.protocol.model_spec import ModelSpec
from serving.protocol.signature import DEFAULT_SIGNATURE
from serving.runtime.example_tasks import CLASSIFY
from serving.runtime.servable import Servable, ServableHandle


class PredictionService:
    """The methods of ``tensorflow.serving.PredictionService`` but for ``Predict``."""

    def __init__(self, data_plane: DataPlane) -> None:
        self._data_plane = data_plane

    async def classify(self, request: Any, context: Any) -> Any:
        with self._acquire(request, context) as handle:
            name = request.model_spec.signature_name
            found = await examples.classify(self._data_plane, handle, name, request.input)
            response = wire.ClassificationResponse()
            _fill_classifications(response.result, found)
            fill_spec(response.model_spec, handle.servable, name or DEFAULT_SIGNATURE)
            return response

    async def regress(self, request: Any, context: Any) -> Any:
        with self._acquire(request, context) as handle:
            name = request.model_spec.signature_name
            found = await examples.regress(self._data_plane, handle, name, request.input)
            response = regression_pb2.RegressionResponse()
            _fill_regressions(response.result, found)
            fill_spec(response.model_spec, handle.servable, name or DEFAULT_SIGNATURE)
            return response

    async def multi_inference(self, request: Any, context: Any) -> Any:
        first = request.tasks[0] if request.tasks else inference_pb2.InferenceTask()
        with ServableHandle(self._find(named_spec(first), context)) as handle:
            answers = await examples.multi_inference(self._data_plane, handle, request.tasks, request.input)
            response = wire.MultiInferenceResponse()
            for task, (name, found) in zip(request.tasks, answers, strict=True):
                result = response.results.add()
                fill_spec(result.model_spec, handle.servable, name)
                if task.method_name == CLASSIFY:
                    _fill_classifications(result.classification_result, found)
                else:
                    _fill_regressions(result.regression_result, found)
            return response

    async def metadata(self, request: Any, context: Any) -> Any:
        require_spec(request)
        if not request.metadata_field:
            raise InvalidRequest("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise InvalidRequest(f"Metadata field {field} is not supported")
        with self._acquire(request, context) as handle:
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            response.model_spec.name = handle.servable.model
            response.model_spec.version.value = handle.version
            response.metadata["signature_def"].Pack(signature_map(handle))
            return response

    def _acquire(self, request: Any, context: Any) -> ServableHandle:
        return ServableHandle(self._find(required_spec(request), context))

    def _find(self, spec: ModelSpec, context: Any) -> Servable:
        servable = self._data_plane.models.find(spec)
        context.set_trailing_metadata(version_trailer(servable.version))
        return servable


def _fill_classifications(result: wire.ClassificationResult, found: Any) -> None:
    for row in found:
        classes = result.classifications.add().classes
        for label, score in row:
            classes.add(label=label, score=score)


def _fill_regressions(result: Any, found: Any) -> None:
    for value in found:
        result.regressions.add(value=value)
