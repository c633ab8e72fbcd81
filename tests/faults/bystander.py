"""Somebody who asks a server all the time, and should not notice what is done to it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

import requests

from tests.pipelines import Pipeline

ROW = {"instances": [[1.0, 2.0, 3.0, 4.0]]}
_BODY = json.dumps(ROW).encode()
_PAUSE_SECONDS = 0.02


class Bystander(threading.Thread):
    """Somebody who asks all the time, and should never notice anything."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.answers: set[tuple[int, str]] = set()
        self.slowest_seconds = 0.0
        self.answered = threading.Event()
        self._url = url
        self._stopped = threading.Event()

    def run(self) -> None:
        address = urlsplit(self._url)
        with closing(HTTPConnection(address.netloc, timeout=30)) as connection:
            while not self._stopped.wait(_PAUSE_SECONDS):
                started = time.perf_counter()
                self.answers.add(self._ask(connection, address.path))
                self.slowest_seconds = max(self.slowest_seconds, time.perf_counter() - started)
                self.answered.set()

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def _ask(self, connection: HTTPConnection, path: str) -> tuple[int, str]:
        try:
            connection.request("POST", path, _BODY)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (HTTPException, OSError) as exc:
            return 0, repr(exc)


@contextmanager
def undisturbed(url: str, within_seconds: float = 30.0) -> Iterator[None]:
    """During the block version 1 of the model at `url` gives a bystander one and the same answer, in time."""
    _wait_available(f"{url}/versions/1")
    bystander = Bystander(f"{url}/versions/1:predict")
    bystander.start()
    bystander.answered.wait(30)
    try:
        yield
    finally:
        bystander.stop()
    assert [status for status, _ in bystander.answers] == [200], bystander.answers
    assert bystander.slowest_seconds < within_seconds, f"one answer took {bystander.slowest_seconds:.1f} seconds"


@contextmanager
def answered_all_the_while(pipeline: Pipeline, *kinds: int) -> Iterator[None]:
    """During the block each request, by label or without, gets the whole answer of a version of one of these kinds."""
    url = f"{pipeline.settings.rest_url}/v1/models/{pipeline.model}"
    bystanders = [Bystander(f"{url}{how}:predict") for how in ("", "/labels/stable")]
    with ExitStack() as stack:
        for bystander in bystanders:
            bystander.start()
            stack.callback(bystander.stop)
            assert bystander.answered.wait(30)
        yield
    total = sum(ROW["instances"][0])
    expected = [{"predictions": [[total * factor + kind for factor in (1, 10, 100)]]} for kind in kinds]
    for status, text in {answer for bystander in bystanders for answer in bystander.answers}:
        assert (status, json.loads(text) in expected) == (200, True), text


def _wait_available(url: str) -> None:
    """A server answers as soon as one version of a model is there; others may still be loading."""
    deadline = time.monotonic() + 30
    while "AVAILABLE" not in requests.get(url, timeout=30).text:
        assert time.monotonic() < deadline, f"{url} is not available"
