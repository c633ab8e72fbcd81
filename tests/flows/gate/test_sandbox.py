"""What a candidate meets before anyone depends on it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from flows.gate.noninferiority import Verdict
from flows.gate.replay import Replay
from flows.gate.sandbox import SandboxDecision, try_served
from flows.gate.sandbox_answers import Trial
from flows.gate.sandbox_server import SandboxServer, SandboxUnavailable
from flows.settings import Settings
from tests.serving.runtime.one_operation import save

PROJECT = Path(__file__).parents[3]
ROWS = np.random.default_rng(0).random((20, 4), np.float32)
ANSWERS = np.cumsum(ROWS[:, :3], axis=1)


def build(path: Path, answer: Callable[[Any], Any], features: int = 4) -> Path:
    """Export a SavedModel of this one function of rows float32 [rows, features]."""
    import tensorflow as tf

    module = tf.Module()
    rows = tf.TensorSpec([None, features], tf.float32, name="input")
    module.answer = tf.function(lambda input: {"output": answer(input)}, input_signature=[rows])
    tf.saved_model.save(module, str(path), signatures=module.answer)
    return path


def good(rows: Any) -> Any:
    import tensorflow as tf

    return tf.cumsum(rows[:, :3], axis=1)


def not_a_number(rows: Any) -> Any:
    return good(rows) / (rows[:, :1] - rows[:, :1]) * 0.0


def infinite(rows: Any) -> Any:
    return good(rows) / (rows[:, :1] - rows[:, :1])


def wrong_shape(rows: Any) -> Any:
    return good(rows)[:, :2]


def slightly_off(rows: Any) -> Any:
    return good(rows) + 1e-3


def slow(rows: Any) -> Any:
    """Counts for some tens of milliseconds."""
    import tensorflow as tf

    (counted,) = tf.while_loop(lambda i: i < 20_000.0 + rows[0, 0], lambda i: (i + 1.0,), (tf.constant(0.0),))
    return good(rows) + 0.0 * counted


def greedy(rows: Any) -> Any:
    """Fills gigabytes."""
    import tensorflow as tf

    size = tf.cast(rows[0, 0] * 0.0 + 4e9, tf.int64)
    return good(rows) + 0.0 * tf.reduce_sum(tf.cumsum(tf.fill([size], 1.0)))


def of_three_columns(rows: Any) -> Any:
    """Refuses rows of any other length."""
    import tensorflow as tf

    return tf.ensure_shape(rows, [None, 3])


def over_the_batch(rows: Any) -> Any:
    import tensorflow as tf

    return tf.nn.softmax(good(rows), axis=0)


def by_place(rows: Any) -> Any:
    import tensorflow as tf

    return good(rows) + tf.cast(tf.range(tf.shape(rows)[0]), tf.float32)[:, None]


def by_distinct_rows(rows: Any) -> Any:
    """Counts how many different values there are."""
    import tensorflow as tf

    return good(rows) + tf.cast(tf.size(tf.unique(rows[:, 0])[0]), tf.float32)


def in_large_batches(rows: Any) -> Any:
    """Does something else where ten rows or more come together."""
    import tensorflow as tf

    return tf.cond(tf.shape(rows)[0] >= 10, lambda: good(rows), lambda: -good(rows))


def on_the_sum(rows: Any) -> Any:
    import tensorflow as tf

    return tf.cond(tf.reduce_sum(rows) > 20.0, lambda: good(rows), lambda: good(rows) + 1.0)


def in_order(rows: Any) -> Any:
    """Sorts the rows."""
    import tensorflow as tf

    return tf.sort(good(rows), axis=0)


def settings(**fields: Any) -> Settings:
    return Settings(server_timeout_seconds=20.0, **fields)


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    """One for all candidates that leave it alive."""
    with SandboxServer(settings(sandbox_p95_ms=2000.0)) as started:
        yield started


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("champion") / "saved_model", good)


def tried(
    server: SandboxServer, saved_model: Path, model: str, champion: Path | None = None, rows: int = len(ROWS)
) -> SandboxDecision:
    """What the sandbox decides on version 4, beside version 3 where there is a champion."""
    inputs, answers = {"input": ROWS[:rows]}, {"output": ANSWERS[:rows]}
    return try_served(
        server, Trial(model, 4, saved_model, inputs, answers, None if champion is None else (3, champion))
    )


def test_a_good_candidate_passes_beside_its_champion(server: SandboxServer, champion: Path, tmp_path: Path) -> None:
    """It is loaded, asked over both protocols, timed against the champion, and its memory is measured."""
    decision = tried(server, build(tmp_path / "candidate", good), "good", champion)
    assert decision.verdict is Verdict.PASSED, decision.markdown
    assert len(decision.checks) == 6
    assert "held-out rows are answered the same alone, in batches and shuffled" in decision.checks[3].why
    assert "beside version 3" in decision.checks[4].why
    assert decision.log == ""


@pytest.mark.parametrize(("answer", "share"), [(good, 0.0), (slightly_off, 1.0)])
def test_logged_rows_are_asked_of_both_versions(
    answer: Callable[[Any], Any], share: float, server: SandboxServer, champion: Path, tmp_path: Path
) -> None:
    """How many of them the candidate answers otherwise than the live version is told, and decides nothing."""
    saved_model = build(tmp_path / "candidate", answer)
    judged = np.asarray(answer(ROWS), np.float32)
    replay = Replay({"input": ROWS[:10]})
    trial = Trial(f"replayed{share}", 4, saved_model, {"input": ROWS}, {"output": judged}, (3, champion), replay=replay)
    decision = try_served(server, trial)
    assert decision.verdict is Verdict.PASSED, decision.markdown
    assert decision.disagreement == share
    assert f"| sandbox replay | {share:.1%} differ |" in decision.markdown


def test_a_candidate_that_refuses_logged_rows_is_rejected(
    server: SandboxServer, champion: Path, tmp_path: Path
) -> None:
    """What clients ask of the live version, they will ask of the next."""
    saved_model = build(tmp_path / "candidate", good)
    replay = Replay({"another": ROWS[:10]})
    trial = Trial("refusing", 4, saved_model, {"input": ROWS}, {"output": ANSWERS}, (3, champion), replay=replay)
    decision = try_served(server, trial)
    assert decision.verdict is Verdict.REJECTED
    assert decision.checks[-1].check == "sandbox replay"


@pytest.mark.parametrize("broken", [False, True])
def test_a_champion_that_cannot_be_timed_is_left_out(broken: bool, server: SandboxServer, tmp_path: Path) -> None:
    """One that takes other rows, or whose files are broken, is not the candidate's fault: the budget alone decides."""
    champion = build(tmp_path / "champion", of_three_columns, features=3)
    if broken:
        (champion / "saved_model.pb").write_bytes(b"no graph")
    decision = tried(server, build(tmp_path / "candidate", good), f"alone{broken}", champion)
    assert decision.verdict is Verdict.PASSED, decision.markdown
    assert decision.checks[4].why == "quick enough"


@pytest.mark.parametrize(
    ("answer", "reported"),
    [
        (not_a_number, "NaN or infinite values in 100.0% of the answers"),
        (infinite, "NaN or infinite values"),
        (wrong_shape, r"20 rows are answered by shape \[20, 2\] instead of \[20, 3\]"),
        (slightly_off, "answers differ from those that were judged by 1.0e-03"),
        (slow, "too slow: .* from what version 3 takes"),
    ],
)
def test_a_bad_candidate_is_rejected_with_the_reason(
    answer: Callable[[Any], Any], reported: str, server: SandboxServer, champion: Path, tmp_path: Path
) -> None:
    """The report says what was measured, what is required, and ends with the server's last lines of log."""
    decision = tried(server, build(tmp_path / "candidate", answer), answer.__name__, champion)
    assert decision.verdict is Verdict.REJECTED
    assert re.search(reported, decision.reason), decision.markdown
    assert decision.log
    assert decision.log in decision.markdown


@pytest.mark.parametrize("answer", [over_the_batch, by_place, by_distinct_rows, in_large_batches, on_the_sum, in_order])
@pytest.mark.parametrize("meant", [False, True])
def test_a_candidate_whose_answers_depend_on_their_neighbours_is_rejected(
    meant: bool, answer: Callable[[Any], Any], server: SandboxServer, tmp_path: Path
) -> None:
    """It answers all rows together as it was judged, but not in other company; the recipe may say that it may."""
    saved_model = build(tmp_path / "candidate", answer)
    name = f"{answer.__name__}_{meant}"
    judged = np.asarray(answer(ROWS), np.float32)
    decision = try_served(
        server, Trial(name, 4, saved_model, {"input": ROWS}, {"output": judged}, rows_independent=not meant)
    )
    assert decision.verdict is (Verdict.PASSED if meant else Verdict.REJECTED), decision.markdown
    assert meant or decision.checks[-1].check == "sandbox rows apart"
    assert meant or "its answer to a row depends on the rows that are asked with it" in decision.reason


def test_many_held_out_rows_do_not_hide_that_they_depend_on_one_another(server: SandboxServer, tmp_path: Path) -> None:
    """Where only some of the rows that were judged are asked, the reason is the same."""
    saved_model = build(tmp_path / "candidate", over_the_batch)
    judged = np.asarray(over_the_batch(np.tile(ROWS, (2, 1))), np.float32)[: len(ROWS)]
    decision = try_served(server, Trial("many", 4, saved_model, {"input": ROWS}, {"output": judged}))
    assert "its answer to a row depends on the rows that are asked with it" in decision.reason, decision.markdown


def test_a_candidate_that_cannot_be_loaded_is_rejected(server: SandboxServer, champion: Path, tmp_path: Path) -> None:
    """The server's own words are the reason."""
    saved_model = build(tmp_path / "candidate", good)
    (saved_model / "saved_model.pb").write_bytes(b"no graph")
    decision = tried(server, saved_model, "broken", champion)
    assert "cannot load it" in decision.reason, decision.markdown


def test_a_candidate_that_needs_another_library_is_rejected_with_what_to_install(
    server: SandboxServer, tmp_path: Path
) -> None:
    """The sandbox is a server, and says what the server says of an operation that nobody has."""
    save(tmp_path / "model", "TFText>NoSuchThing")
    decision = tried(server, tmp_path / "model", "missing")
    assert "part of TensorFlow Text" in decision.reason
    assert "extra `ops`" in decision.reason


def test_a_candidate_is_held_to_its_budgets_and_nothing_is_left_of_the_sandbox(tmp_path: Path) -> None:
    """
    Without a champion the setting decides how slow is too slow; who takes too much memory is stopped in time.

    When the block ends, its processes have ended and its directory is gone, where the server makes temporary files too.
    """
    with SandboxServer(settings(sandbox_p95_ms=0.001, sandbox_memory_mb=1000)) as server:
        leader, directory = psutil.Process(server._process.pid), server.directory
        processes = [leader, *leader.children(recursive=True)]
        assert directory.exists()
        slow = tried(server, build(tmp_path / "first", good), "first")
        assert leader.environ()["TMPDIR"] == str(directory)
        large = tried(server, build(tmp_path / "second", greedy), "greedy")
    assert "too slow" in slow.reason, slow.markdown
    assert "more than 1000 MB (HOTSWAP_SANDBOX_MEMORY_MB)" in large.reason, large.markdown
    assert not directory.exists()
    assert not [each for each in psutil.wait_procs(processes, timeout=10)[1] if each.status() != psutil.STATUS_ZOMBIE]


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\ncd {PROJECT}\n{text}\n")
    path.chmod(0o755)
    return path


def test_another_server_can_be_the_sandbox(champion: Path, forked_sandbox: Path, tmp_path: Path) -> None:
    """Any program with the flags of tensorflow_model_server will do; one that finds its port taken is started again."""
    binary = program(
        tmp_path / "tensorflow_model_server",
        f'echo "$@" >> {tmp_path}/asked\n[ $(wc -l < {tmp_path}/asked) = 1 ] && exit 1\nexec {forked_sandbox} "$@"',
    )
    with SandboxServer(settings(sandbox_server=binary)) as server:
        decision = tried(server, build(tmp_path / "candidate", good), "other", champion)
    assert decision.verdict is Verdict.PASSED, decision.markdown
    first, second = (tmp_path / "asked").read_text().splitlines()
    assert first.split()[0] != second.split()[0]


def test_a_candidate_that_crashes_the_server_is_rejected(tmp_path: Path) -> None:
    """A server that dies while it answers takes nothing along but the candidate's chances."""
    dying = "import os, sys; from serving import cli; from serving.runtime import tensorflow_import; "
    dying += "tensorflow_import.prepare(); from serving.runtime import call; "
    dying += "call.Call.__call__ = lambda *_: os._exit(1); sys.exit(cli.main())"
    binary = program(tmp_path / "tensorflow_model_server", f"exec {sys.executable} -c '{dying}' \"$@\"")
    with SandboxServer(settings(sandbox_server=binary)) as server:
        decision = tried(server, build(tmp_path / "candidate", good), "crashing")
    assert "the server crashed with it" in decision.reason, decision.markdown


def test_a_sandbox_that_cannot_be_started_is_no_ones_fault(tmp_path: Path) -> None:
    """A missing program is found at once, a server that never comes up after three tries."""
    with pytest.raises(SandboxUnavailable, match="HOTSWAP_SANDBOX_SERVER"):
        SandboxServer(settings(sandbox_server=tmp_path / "missing")).__enter__()
    with (
        SandboxServer(settings(sandbox_server=program(tmp_path / "server", "echo no licence; exit 1"))) as server,
        pytest.raises(SandboxUnavailable, match="no licence"),
    ):
        tried(server, tmp_path, "any")
