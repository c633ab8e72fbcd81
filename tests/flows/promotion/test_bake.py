"""A version that goes live is watched, and taken out again when it is worse than the one before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import GrpcClient
from flows.promotion.bake import bake as bake_version
from flows.promotion.rollback import rollback
from flows.promotion.undo import PromotionUndone
from serving.protocol.errors import HotswapError
from tests.pipelines import ROWS, Pipeline, change_golden_answer

SLOW, FRAGILE = 7, 8


def build(path: Path, kind: int) -> Path:
    """Export a SavedModel that answers as the tiny one of this kind, slowly or not to large numbers."""
    import tensorflow as tf

    def answer(rows: Any) -> Any:
        total = tf.reduce_sum(rows, axis=1, keepdims=True) * tf.constant([[1.0, 10.0, 100.0]]) + float(kind)
        if kind == FRAGILE:
            with tf.control_dependencies([tf.debugging.assert_less(rows, 1000.0)]):
                return {"output": tf.identity(total)}
        until = 20_000.0 + rows[0, 0]
        (counted,) = tf.while_loop(lambda i: i < until, lambda i: (i + 1.0,), (tf.constant(0.0),))
        return {"output": total + 0.0 * counted}

    module = tf.Module()
    module.answer = tf.function(answer, input_signature=[tf.TensorSpec([None, 4], tf.float32, name="input")])
    tf.saved_model.save(module, str(path), signatures=module.answer)
    return path


@pytest.fixture
def promoted(pipeline: Pipeline) -> Pipeline:
    """A pipeline that can also build the slow and the fragile kind; its first version is live."""
    tiny = pipeline.sources

    def source(directory: Path, kind: int, name: str) -> Any:
        return build(directory / name, kind) if kind in (SLOW, FRAGILE) else tiny(directory, kind, name)

    pipeline.sources = source
    pipeline.promote(1)
    return pipeline


def bake(pipeline: Pipeline, version: int, previous: int | None, seconds: float) -> None:
    bake_version(pipeline.deployment, version, previous, seconds)


def assert_undone(pipeline: Pipeline, before: Any, version: int, reported: str) -> None:
    """Label, alias and directory are as before, and the journal says why."""
    assert pipeline.live() == before
    assert pipeline.repository.retired(pipeline.model) == [version]
    entry = pipeline.journal.read()[-1]
    assert (entry.action, entry.version) == ("undo", version)
    assert reported in entry.facts["why"]


def test_a_good_version_stays(promoted: Pipeline) -> None:
    """Nothing changes while it is watched; neither does it without a server, where there is nothing to watch."""
    version = promoted.promote(2)
    before = promoted.live()
    bake(promoted, version, version - 1, 0.5)
    promoted.settings = promoted.settings.model_copy(update={"rest_port": 1, "grpc_port": 2})
    bake(promoted, version, version - 1, 60.0)
    assert promoted.live()[1:] == before[1:]
    assert promoted.journal.read()[-1].action == "promote"


def test_a_version_that_answers_otherwise_is_undone(promoted: Pipeline) -> None:
    """One golden row that comes back different is enough."""
    before = promoted.live()
    version = promoted.promote(2)
    change_golden_answer(promoted, version)
    with pytest.raises(PromotionUndone, match="differently") as caught:
        bake(promoted, version, version - 1, 60.0)
    assert caught.value.exit_code == 5
    assert_undone(promoted, before, version, "golden rows differently")


def test_a_first_version_that_goes_wrong_leaves_nothing(pipeline: Pipeline) -> None:
    """With no version before, no label and no alias are left."""
    version = pipeline.promote(1)
    change_golden_answer(pipeline, version)
    with pytest.raises(PromotionUndone, match="differently"):
        bake(pipeline, version, None, 60.0)
    assert_undone(pipeline, ({}, {}, ()), version, "golden rows differently")


def test_a_version_that_is_much_slower_is_undone(promoted: Pipeline) -> None:
    """Both are asked in turn, so that load on the machine makes both slow."""
    before = promoted.live()
    version = promoted.promote(SLOW)
    with pytest.raises(PromotionUndone, match="95 of 100 answers took"):
        bake(promoted, version, version - 1, 60.0)
    assert_undone(promoted, before, version, f"those of version {version - 1}")


def test_a_version_that_fails_the_requests_of_others_is_undone(promoted: Pipeline) -> None:
    """The server's own counts by version show it, though the golden rows are answered well."""
    before = promoted.live()
    version = promoted.promote(FRAGILE)
    with GrpcClient(promoted.settings.grpc_target) as client:
        for _ in range(5):
            with pytest.raises(HotswapError):
                client.predict(promoted.model, np.full((1, 4), 1e6, np.float32), label="stable")
        for _ in range(20):
            client.predict(promoted.model, ROWS, label="stable")
    with pytest.raises(PromotionUndone, match="requests failed"):
        bake(promoted, version, version - 1, 60.0)
    assert_undone(promoted, before, version, "requests failed")


def test_a_version_that_no_longer_answers_is_undone(replicas: tuple[Pipeline, list[Any]]) -> None:
    """A server that went away with the new version live brings the one before back for its next start."""
    pipeline, (_, dead) = replicas
    first, second = pipeline.promote(1), pipeline.promote(2)
    dead.stop()
    pipeline.be_impatient()
    with pytest.raises(PromotionUndone, match="3 questions in a row failed"):
        bake(pipeline, second, first, 60.0)
    assert pipeline.repository.versions(pipeline.model) == [first]
    assert pipeline.registry.aliases(pipeline.model) == {"champion": first}


def test_a_version_that_was_rolled_back_meanwhile_is_left_alone(promoted: Pipeline) -> None:
    """A rollback by hand during the bake is final."""
    version = promoted.promote(2)
    rollback(promoted.deployment)
    before = promoted.live()
    bake(promoted, version, version - 1, 60.0)
    assert promoted.live() == before
    assert promoted.journal.read()[-1].action == "rollback"
