"""No client gets a version that is not stable without asking for it, whatever is done meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from clients import GrpcClient, PredictClient, RestClient
from flows.promotion.labelling import set_label
from flows.promotion.labels import STABLE
from flows.promotion.retirement import restore
from flows.promotion.rollback import rollback
from flows.promotion.undo import PromotionUndone
from flows.reconciliation.repair import repair
from serving.protocol.errors import HotswapError
from tests.faults.spells import Request, Spell
from tests.pipelines import BROKEN, ROWS, Pipeline, with_endpoints

MIN_ANSWERS = 5
"""of each client, after each step"""
TIMEOUT_SECONDS = 30.0


class Asker(threading.Thread):
    """A client that asks without version and without label until it is stopped."""

    def __init__(self, client: PredictClient, model: str) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self._client = client
        self._model = model
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(0.01):
            began = time.time()
            try:
                answer: int | str = self._client.predict(self._model, ROWS).version or "no version"
            except HotswapError as exc:
                answer = str(exc)
            self.requests.append(Request("", began, time.time(), answer))

    def wait(self, count: int) -> None:
        """Return when so many more requests have been answered."""
        enough, deadline = len(self.requests) + count, time.monotonic() + TIMEOUT_SECONDS
        while len(self.requests) < enough:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def stop(self) -> None:
        self._stopped.set()
        self.join()


class Stable:
    """Where label ``stable`` points, and from when until when it may have pointed there."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.spells = [Spell(self.version, time.time())]

    @property
    def version(self) -> int:
        return self._pipeline.deployment.labels.read()[STABLE]

    def while_doing(self, step: Callable[[], Any]) -> None:
        """Do something that may move the label at any moment."""
        began = time.time()
        step()
        if self.version != self.spells[-1].version:
            self.spells[-1].until = time.time()
            self.spells.append(Spell(self.version, began))


def refused(step: Callable[[], Any]) -> Callable[[], None]:
    def attempt() -> None:
        with pytest.raises(PromotionUndone):
            step()

    return attempt


def test_requests_that_name_nothing_are_answered_by_the_stable_version_at_every_moment(pipeline: Pipeline) -> None:
    """Promoted, refused, undone, rolled back, restored, a canary, moved in MLflow: the label alone decides."""
    settings, registry, model = pipeline.settings, pipeline.registry, pipeline.model
    deployment = pipeline.deployment
    pipeline.promote(1)
    steps: list[tuple[Callable[[], Any], int]] = [
        (lambda: pipeline.promote(2), 2),
        (refused(lambda: pipeline.promote(3, expected_kind=9)), 2),
        (refused(lambda: pipeline.promote(BROKEN)), 2),
        (lambda: pipeline.promote(5), 5),
        (lambda: rollback(deployment, to=1), 1),
        (lambda: restore(deployment, 5), 1),
        (lambda: set_label(deployment, STABLE, 5), 5),
        (lambda: registry.set_alias(model, "champion", 1), 5),
        (lambda: repair(deployment), 1),
        (lambda: pipeline.promote(6, label="canary"), 1),
        (lambda: pipeline.make_stable(6), 6),
        (lambda: rollback(deployment), 5),
    ]
    with RestClient(settings.rest_url) as rest, GrpcClient(settings.grpc_target) as grpc:
        stable = Stable(pipeline)
        askers = [Asker(rest, model), Asker(grpc, model)]
        for asker in askers:
            asker.start()
        try:
            for step, version in steps:
                stable.while_doing(step)
                assert stable.version == version
                for asker in askers:
                    asker.wait(MIN_ANSWERS)
        finally:
            for asker in askers:
                asker.stop()
    for request in (request for asker in askers for request in asker.requests):
        assert any(spell.version == request.answer and spell.touches(request) for spell in stable.spells), request
    assert {request.answer for asker in askers for request in asker.requests} == {1, 2, 5, 6}


@pytest.fixture
def highest_first(offline: Pipeline, model_server: Any, tmp_path: Any) -> Pipeline:
    """A pipeline with two servers, one of which has no default label, as TensorFlow Serving has none."""
    config = tmp_path / "models.config"
    config.write_text("model_config_list {}")
    servers = [
        model_server(
            model_config_file=config,
            allow_version_labels_for_unavailable_models=True,
            max_num_load_retries=0,
            default_version_label=label,
        )
        for label in (STABLE, None)
    ]
    offline.settings = with_endpoints(offline.settings, *((each.rest_port, each.grpc_port) for each in servers))
    return offline


def warned(pipeline: Pipeline, caplog: pytest.LogCaptureFixture, step: Callable[[], Any]) -> str:
    """What doing this warns of, about requests that name nothing."""
    caplog.clear()
    step()
    return "".join(record.getMessage() for record in caplog.records if record.name == "flows.promotion.unlabelled")


def test_commands_say_where_requests_that_name_nothing_get_another_version(
    highest_first: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    """Restored above the stable one, labelled below the highest, rolled back below a canary: each names the server."""
    pipeline, deployment, model = highest_first, highest_first.deployment, highest_first.model
    for kind in (1, 2, 3):
        pipeline.promote(kind)
    server = pipeline.settings.endpoints[1].rest_url

    def reported(highest: int, stable: int) -> str:
        return (
            f"requests for {model} with neither version nor label get version {highest}, the highest, "
            f"and not {stable}, the stable one, at {server}: let clients ask for label stable, "
            "or give hotswap's own server --default_version_label=stable"
        )

    assert warned(pipeline, caplog, lambda: rollback(deployment, to=2)) == ""
    assert warned(pipeline, caplog, lambda: restore(deployment, 3)) == reported(3, 2)
    assert warned(pipeline, caplog, lambda: set_label(deployment, STABLE, 3)) == ""
    assert warned(pipeline, caplog, lambda: set_label(deployment, "canary", 2)) == ""
    assert warned(pipeline, caplog, lambda: set_label(deployment, STABLE, 1)) == reported(3, 1)
    set_label(deployment, STABLE, 2)
    set_label(deployment, "canary", 3)
    assert warned(pipeline, caplog, lambda: rollback(deployment)) == reported(3, 1)


def test_a_server_that_follows_the_label_needs_no_warning(pipeline: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    """Also where the highest version is another one."""
    for kind in (1, 2):
        pipeline.promote(kind)
    step = lambda: set_label(pipeline.deployment, STABLE, 1)  # noqa: E731
    assert warned(pipeline, caplog, step) == ""
