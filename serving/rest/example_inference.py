"""
Answers classify and regress requests, whose rows are ``tf.Example`` records.

Source: tensorflow_serving/model_servers/http_rest_api_handler.cc
"""

from __future__ import annotations

import numpy as np
from tensorflow_serving.apis import input_pb2

from serving.inference import examples
from serving.inference.data_plane import DataPlane
from serving.rest.answers import inference_response
from serving.rest.content import inflated, is_large
from serving.rest.http_messages import Head, Response
from serving.rest.json_dialect import array, quoted
from serving.rest.json_outputs import float_texts
from serving.rest.json_requests import read_example_request
from serving.rest.off_loop import OffLoop
from serving.rest.routes import Route
from serving.runtime.example_tasks import Classifications, Regressions


class ExampleInference:
    """Answers the requests whose path ends with ``:classify`` or ``:regress``."""

    def __init__(self, data_plane: DataPlane, off_loop: OffLoop, timeout_seconds: float | None) -> None:
        self._data_plane = data_plane
        self._off_loop = off_loop
        self._timeout_seconds = timeout_seconds

    async def answer(self, route: Route, head: Head, body: bytes) -> Response:
        """
        The answer to one request.

        Raises:
            ServingError: It cannot be read or run, see `serving.inference.examples`.
        """
        assert route.spec is not None
        content = await self._off_loop.run(inflated, head, body) if is_large(head, body) else body
        signature_name, serialized = await self._off_loop.read(read_example_request, content)
        source = input_pb2.Input.FromString(serialized)
        with self._data_plane.models.acquire(route.spec) as handle:
            arguments = self._data_plane, handle, signature_name, source, self._timeout_seconds
            if route.verb == "classify":
                results = _classifications(await examples.classify(*arguments))
            else:
                results = _regressions(await examples.regress(*arguments))
            return inference_response("results", results, handle.version)


def _classifications(found: Classifications) -> str:
    rows = []
    for row in found:
        scores = float_texts(np.array([score for _, score in row], np.float32))
        labels = [quoted(label.decode("utf-8", "surrogateescape")) for label, _ in row]
        pairs = [f"[{label}, {score}]" for label, score in zip(labels, scores, strict=True)]
        rows.append(array(pairs, 2, single_line=True))
    return f"[{', '.join(rows)}\n    ]"


def _regressions(found: Regressions) -> str:
    return array(float_texts(np.array(found, np.float32)), 1, single_line=True)
