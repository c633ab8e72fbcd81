"""
Reports the states of models over gRPC, and takes new configurations.

Source: tensorflow_serving/apis/model_service.proto, tensorflow_serving/model_servers/model_service_impl.cc
"""

from __future__ import annotations

from typing import Any

from tensorflow_serving.apis import model_management_pb2

from serving.grpc.model_specs import require_spec, spec_of
from serving.inference.data_plane import DataPlane
from serving.inference.replies import status_response
from serving.protocol.errors import InvalidRequest

_SERVER_TRAILER = "hotswap-server"
"""the trailer with the `DataPlane.id`, which REST gives too"""


class ModelService:
    """The methods of ``tensorflow.serving.ModelService``."""

    def __init__(self, data_plane: DataPlane) -> None:
        self._data_plane = data_plane

    async def status(self, request: Any, context: Any) -> Any:
        context.set_trailing_metadata(((_SERVER_TRAILER, self._data_plane.id),))
        require_spec(request)
        return status_response(self._data_plane, spec_of(request.model_spec))

    async def reload(self, request: Any, context: Any) -> Any:
        if request.config.WhichOneof("config") != "model_config_list":
            raise InvalidRequest(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        counted = self._data_plane.metrics.counted
        before = {name: counted(name) for name in request.metric_names}
        await self._data_plane.models.reload(request.config)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.SetInParent()
        for name, count in before.items():
            response.metric.add(name=name, int64_value_increase=counted(name) - count)
        return response
