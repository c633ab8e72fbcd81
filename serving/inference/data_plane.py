"""
Runs inferences, whatever the protocol: binds a request to a call, submits the call, counts it.

The edges only read requests and write answers; rules and error texts are TensorFlow Serving's.

Source: tensorflow_serving/model_servers/prediction_service_impl.cc
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from functools import partial

from serving.inference.batching import Done, Merger, Result
from serving.inference.merging import Merging, merging_of
from serving.inference.monitoring import Metrics, read_metrics_path
from serving.inference.process_metrics import ProcessMetrics
from serving.lifecycle.served_models import ServedModels
from serving.protocol.errors import DeadlineExceeded, ServingError
from serving.protocol.signature import Signature
from serving.protocol.tensors import Array
from serving.request_log.opening import open_request_log
from serving.runtime.call import Call
from serving.runtime.servable import Servable
from serving.settings import NEVER, ServerSettings

PREDICT = "Predict"
PREDICT_METHODS = ("tensorflow/serving/predict", "tensorflow/serving/classify", "tensorflow/serving/regress")


class DataPlane:
    """All that the server does, for one event loop."""

    def __init__(self, settings: ServerSettings) -> None:
        self.id = uuid.uuid4().hex
        """of this server while it runs; both protocols send it"""
        self.settings = settings
        self.draining = False
        self.metrics = Metrics()
        monitoring = settings.monitoring_config_file
        self.metrics_path = None if monitoring is None else read_metrics_path(monitoring)
        self.models = ServedModels(settings, self.metrics.observe_warmup)
        self.request_log = open_request_log(settings, self.models.sampling_rate, self.metrics.count_logged)
        self._process_metrics = ProcessMetrics(self.models)
        self._loop = asyncio.get_running_loop()
        self._merger = Merger(self._loop, settings.grpc_max_threads, self.metrics, settings.merge_requests != NEVER)

    async def close(self) -> None:
        """Let the last requests end, then free everything."""
        await self.models.close()
        self._merger.close()
        if self.request_log is not None:
            await asyncio.to_thread(self.request_log.close)

    def bind(
        self,
        servable: Servable,
        signature: Signature,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] = (),
        timeout_seconds: float | None = None,
    ) -> tuple[Call, list[Array]]:
        """
        Match a request with a signature.

        Args:
            inputs: One array per input alias; strings are object arrays of bytes.
            outputs: The output aliases wanted; none means all.
            timeout_seconds: When TensorFlow ends a run that takes longer for some values than for others.

        Raises:
            InvalidRequest: A name or type differs from the signature, or the batch breaks the limits of the settings.
        """
        call, arrays = servable.bind(signature, inputs, outputs, round(1000 * (timeout_seconds or 0)))
        if servable.limits and call.is_declared:
            servable.limits.check_inputs(arrays)
        call.check_types(arrays)
        return call, arrays

    def submit(
        self,
        call: Call,
        arrays: list[Array],
        done: Done,
        api: str = PREDICT,
        timeout_seconds: float | None = None,
    ) -> None:
        """
        Run what `bind` gave, together with what else arrives in this turn of the loop.

        Args:
            done: Called once on the loop's thread, perhaps before this returns, with the arrays in the order of
                ``call.outputs``, or with the error; must not raise.
            api: Which kind of inference the metrics count this as.
            timeout_seconds: After which `done` gets `DeadlineExceeded` from a run that is not short.
        """
        if self.request_log is not None and api == PREDICT:
            servable = call.servable
            if next(servable.usage.log_draws or self.request_log.draws(servable)):
                done = partial(self.request_log.note_predict, call, arrays, done)
        if timeout_seconds is not None and not call.is_short(arrays):
            done = self._within(timeout_seconds, done)
        limits = call.servable.limits
        if limits is None or not call.is_declared:
            self._merger.submit(call, arrays, done, api)
            return
        padded = limits.padded(arrays) if arrays else arrays
        if arrays:
            self.metrics.observe_batch(len(arrays[0]), len(padded[0]))

        def check(result: Result) -> None:
            done(result if isinstance(result, Exception) else limits.checked_outputs(arrays, padded, result))

        self._merger.submit(call, padded, check, api)

    async def run(
        self,
        servable: Servable,
        signature: Signature,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] = (),
        timeout_seconds: float | None = None,
        api: str = PREDICT,
    ) -> dict[str, Array]:
        """
        `bind`, `submit`, and wait for the result; the servable is kept until then.

        Raises:
            InvalidRequest: A name or type differs from the signature.
            GraphError: TensorFlow refused to run the graph.
            DeadlineExceeded: It did not end within `timeout_seconds`.
        """
        call, arrays = self.bind(servable, signature, inputs, outputs, timeout_seconds)
        future: asyncio.Future[list[Array]] = self._loop.create_future()
        self.submit(call, arrays, partial(_resolve, future), api, timeout_seconds)
        return dict(zip(call.outputs, await future, strict=True))

    def check_predict_method(self, signature: Signature) -> None:
        """
        Where the settings ask for it, refuse to predict with a signature made for something else.

        Raises:
            ServingError: Its method name is none of TensorFlow Serving's.
        """
        if self.settings.enable_signature_method_name_check and signature.method_name not in PREDICT_METHODS:
            raise ServingError(
                "Expected prediction signature method_name to be one of "
                f"{{{', '.join(PREDICT_METHODS)}}}. Was: {signature.method_name}"
            )

    def ready(self) -> bool:
        """Whether every model that should have a version has one available, and the server is not about to stop."""
        return not self.draining and self.models.ready()

    def merging(self, servable: Servable) -> dict[str, Merging]:
        """Which signatures have requests that arrive together run as one."""
        return merging_of(servable, self.settings.merge_requests)

    def metrics_page(self) -> str:
        """The Prometheus page."""
        servables = self.models.servables()
        usages = {(each.model, each.version): each.usage for each in servables}
        merging = {(each.model, each.version): self.merging(each) for each in servables}
        return self.metrics.render(usages, merging) + self._process_metrics.render()

    def _within(self, seconds: float, done: Done) -> Done:
        """`done`, called with the result or, if that comes first, with the end of the time."""
        has_ended = False

        def end(result: Result) -> None:
            nonlocal has_ended
            if not has_ended:
                has_ended = True
                timer.cancel()
                done(result)

        timer = self._loop.call_later(seconds, end, DeadlineExceeded("Timed out waiting for notification"))
        return end


def _resolve(future: asyncio.Future[list[Array]], result: Result) -> None:
    if future.done():  # given up by its caller
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
