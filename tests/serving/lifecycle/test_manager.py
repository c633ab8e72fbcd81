"""Versions come and go on real SavedModels without an answer being lost."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tensorflow_serving.config import model_server_config_pb2

from serving.inference.data_plane import DataPlane
from serving.lifecycle.manager import Manager, RetryPolicy
from serving.lifecycle.source import Source, Watched, list_versions
from serving.lifecycle.version_loader import MAX_SMALL_MODEL_BYTES
from serving.protocol.errors import (
    FailedPrecondition,
    GraphError,
    InvalidRequest,
    LabelNotAssignable,
    ServableNotFound,
    ServerUnavailable,
    ServingError,
)
from serving.protocol.model_spec import ModelSpec
from serving.protocol.version_status import State
from serving.repository.model_config import Logging, ModelEntry
from serving.repository.version_policy import All, Latest, Specific, VersionPolicy
from serving.runtime.background import NICENESS, NICENESS_OF_SMALL
from serving.runtime.saved_model import LoadOptions, load
from serving.runtime.servable import Servable
from serving.settings import ServerSettings
from tests.conftest import TinyModel, server_settings

WAIT_SECONDS = 20
LATEST = ModelSpec("tiny")


@asynccontextmanager
async def serving(*entries: ModelEntry, **settings: Any) -> AsyncIterator[DataPlane]:
    """A data plane that serves these models."""
    defaults = {"max_num_load_retries": 0, "load_retry_interval_micros": 50_000}
    data_plane = DataPlane(server_settings(**{**defaults, **settings}))
    try:
        await data_plane.models.start(entries)
        yield data_plane
    finally:
        await data_plane.close()


async def ask(data_plane: DataPlane, spec: ModelSpec = LATEST) -> int:
    """The version that answers, as its answer shows."""
    with data_plane.models.acquire(spec) as handle:
        signature = handle.servable.signatures["serving_default"]
        outputs = await data_plane.run(handle.servable, signature, {"input": np.zeros((1, 4), dtype=np.float32)})
    return int(outputs["output"][0][0])


async def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds; fail after `WAIT_SECONDS`."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)


def states(data_plane: DataPlane, model: str = "tiny") -> dict[int, State]:
    """The state of every version."""
    return {status.version: status.state for status in data_plane.models.status(ModelSpec(model))}


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a test on an event loop of its own."""
    asyncio.run(main)


def test_a_renamed_in_version_takes_over(tiny_model: TinyModel, tmp_path: Path) -> None:
    """A new version answers soon after its rename, the old one ends with the next poll, and no request fails."""

    async def main(version: int, poll_seconds: int, old: State) -> None:
        tiny_model(tmp_path / "tiny", version)
        async with serving(
            ModelEntry("tiny", str(tmp_path / "tiny")), file_system_poll_wait_seconds=poll_seconds
        ) as data_plane:
            await ask(data_plane)
            answers = [await ask(data_plane)]
            await asyncio.to_thread(tiny_model, tmp_path / "tiny", version + 1)
            async with asyncio.timeout(WAIT_SECONDS):
                while answers[-1] != version + 1:
                    answers.append(await ask(data_plane))
            assert answers == sorted(answers)
            await until(lambda: states(data_plane) == {version + 1: State.AVAILABLE, version: old})

    run(main(1, poll_seconds=60, old=State.AVAILABLE))
    run(main(3, poll_seconds=1, old=State.END))


def test_what_is_removed_between_two_polls_goes_on_answering(tiny_model: TinyModel, tmp_path: Path) -> None:
    """The last version goes, and one that cannot be loaded takes its place: the poll finds one step, which fails."""
    watched = Watched(tmp_path / "tiny", Latest())

    def load_tiny(name: str, version: int, path: Path) -> Servable:
        return load(name, version, path, LoadOptions())

    async def main() -> None:
        manager = Manager(load_tiny, RetryPolicy(retries=0), threads=1, on_change=lambda: None)
        source = Source(manager.set_aspired, poll_seconds=3600)
        tiny_model(watched.base_path, 1)
        tiny_model(tmp_path / "other", 1)
        await source.set_models({"tiny": watched, "other": Watched(tmp_path / "other", Latest())})
        source.start()
        await manager.wait_available(["tiny", "other"])
        before = manager.latest("tiny")
        (watched.base_path / "1").rename(tmp_path / "away")
        for version in (2, 3):  # the watch has looked, and looks again
            tiny_model(tmp_path / "other", version)
            await until(lambda: manager.servable("other", version) is not None)  # noqa: B023  (called before the next)
        broken = tiny_model(tmp_path / "broken", 2)
        (broken / "saved_model.pb").write_bytes(b"broken")
        broken.rename(watched.base_path / "2")
        await source.poll()
        await until(lambda: manager.statuses("tiny")[0].state is State.END)
        assert manager.latest("tiny") is before is not None
        await source.stop()
        await manager.close()

    run(main())


def test_a_new_version_is_prepared_for_what_the_one_before_was_asked(tiny_model: TinyModel, tmp_path: Path) -> None:
    """Its first request does not wait until TensorFlow has prepared the graph, nor does any other meanwhile."""

    async def main() -> None:
        tiny_model(tmp_path / "tiny", 1)
        async with serving(ModelEntry("tiny", str(tmp_path / "tiny"), All())) as data_plane:
            await ask(data_plane)
            tiny_model(tmp_path / "tiny", 2)
            await until(lambda: states(data_plane).get(2) is State.AVAILABLE)
            servable = data_plane.models.servable("tiny", 2)
            assert servable is not None
            assert servable.prepared == {"serving_default"}

    run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all threads of a process have one priority")
@pytest.mark.parametrize(("more_bytes", "niceness"), [(0, NICENESS_OF_SMALL), (MAX_SMALL_MODEL_BYTES, NICENESS)])
def test_only_what_holds_no_lock_runs_at_a_low_priority(
    tiny_model: TinyModel, tmp_path: Path, more_bytes: int, niceness: int
) -> None:
    """TensorFlow prepares a version that replaces another in a thread that steps back; Python's part does not."""

    def priorities() -> dict[str, int]:
        threads = (thread for thread in threading.enumerate() if thread.native_id)
        return {
            thread.name.partition("_")[0]: os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) for thread in threads
        }

    async def main() -> None:
        tiny_model(tmp_path / "tiny", 1)
        async with serving(ModelEntry("tiny", str(tmp_path / "tiny"))) as data_plane:
            assert "background" not in priorities()
            staged = tiny_model(tmp_path / "staged", 2)
            (staged / "more").write_bytes(bytes(more_bytes))
            staged.rename(tmp_path / "tiny" / "2")
            await until(lambda: data_plane.models.servable("tiny", 2) is not None)
            found = priorities()
            assert found["background"] == found["load"] + niceness

    run(main())


def test_a_model_is_ready_once_all_its_versions_were_removed(tiny_model: TinyModel, tmp_path: Path) -> None:
    """One whose versions do not load is not, nor one whose config names a version that is gone."""

    async def main() -> None:
        tiny_model(tmp_path / "tiny", 1)
        entry = ModelEntry("tiny", str(tmp_path / "tiny"), All())
        async with serving(entry) as data_plane:
            (tmp_path / "tiny" / "1").rename(tmp_path / "retired")
            await until(lambda: states(data_plane)[1] is State.END)
            assert data_plane.ready()
            (tmp_path / "tiny" / "2").mkdir()
            await until(lambda: states(data_plane).get(2) is State.END)
            assert not data_plane.ready()
            (tmp_path / "tiny" / "2").rmdir()
            await until(data_plane.ready)
            tiny_model(tmp_path / "tiny", 3)
            await until(lambda: states(data_plane).get(3) is State.AVAILABLE)
            await data_plane.models.reload_entries([replace(entry, policy=Specific((3,)))])
            (tmp_path / "tiny" / "3").rename(tmp_path / "away")
            await until(lambda: states(data_plane)[3] is State.END)
            assert not data_plane.ready()

    run(main())


def test_removing_a_version_brings_back_the_one_before(tiny_model: TinyModel, tmp_path: Path) -> None:
    """Rolling back is removing a directory; the version that went ends without an error."""

    async def main() -> None:
        tiny_model(tmp_path / "tiny", 1)
        tiny_model(tmp_path / "tiny", 2)
        async with serving(ModelEntry("tiny", str(tmp_path / "tiny"), All())) as data_plane:
            await until(lambda: set(states(data_plane).values()) == {State.AVAILABLE})
            assert await ask(data_plane) == 2
            (tmp_path / "tiny" / "2").rename(tmp_path / "retired")
            await until(lambda: states(data_plane)[2] is State.END)
            assert await ask(data_plane) == 1
            with pytest.raises(ServableNotFound, match=r"Servable not found for request: Specific\(tiny, 2\)"):
                data_plane.models.acquire(ModelSpec("tiny", version=2))
            (tmp_path / "retired").rename(tmp_path / "tiny" / "2")
            await until(lambda: states(data_plane)[2] is State.AVAILABLE)
            assert await ask(data_plane) == 2

    run(main())


def test_an_emptied_base_path_unloads_a_missing_one_does_not(tiny_model: TinyModel, tmp_path: Path) -> None:
    """Without versions nothing is served; without a base path all goes on."""

    async def main() -> None:
        base_path = tmp_path / "tiny"
        tiny_model(base_path, 1)
        tiny_model(tmp_path / "other", 1)
        entries = [ModelEntry("tiny", str(base_path)), ModelEntry("other", str(tmp_path / "other"))]
        async with serving(*entries) as data_plane:
            base_path.rename(tmp_path / "away")
            tiny_model(tmp_path / "other", 2)
            await until(lambda: states(data_plane, "other").get(2) is State.AVAILABLE)
            assert await ask(data_plane) == 1
            (tmp_path / "away").rename(base_path)
            (base_path / "1").rename(tmp_path / "1")
            await until(lambda: states(data_plane)[1] is State.END)
            with pytest.raises(ServableNotFound, match=r"Servable not found for request: Latest\(tiny\)"):
                data_plane.models.acquire(LATEST)

    run(main())


def test_a_version_in_use_is_freed_after_its_last_request(tiny_model: TinyModel, tmp_path: Path) -> None:
    """A version that is going still answers those who hold it, and nobody else."""

    async def main() -> None:
        tiny_model(tmp_path / "tiny", 1)
        async with serving(ModelEntry("tiny", str(tmp_path / "tiny"))) as data_plane:
            with data_plane.models.acquire(LATEST) as handle:
                tiny_model(tmp_path / "tiny", 2)
                await until(lambda: states(data_plane) == {2: State.AVAILABLE, 1: State.UNLOADING})
                signature = handle.servable.signatures["serving_default"]
                outputs = await data_plane.run(
                    handle.servable, signature, {"input": np.zeros((1, 4), dtype=np.float32)}
                )
                assert outputs["output"][0][0] == 1
            await until(lambda: states(data_plane)[1] is State.END)

    run(main())


def test_a_broken_version_changes_nothing_else(tiny_model: TinyModel, tmp_path: Path) -> None:
    """The old version and other models go on, also while the broken one waits for its next try."""

    async def main() -> None:
        tiny_model(tmp_path / "tiny", 1)
        tiny_model(tmp_path / "other", 1)
        entries = [ModelEntry("tiny", str(tmp_path / "tiny")), ModelEntry("other", str(tmp_path / "other"))]
        async with serving(*entries, max_num_load_retries=3, load_retry_interval_micros=60_000_000) as data_plane:
            (tmp_path / "tiny" / "2").mkdir()
            await until(lambda: states(data_plane).get(2) is State.LOADING)
            tiny_model(tmp_path / "other", 2)
            await until(lambda: states(data_plane, "other") == {2: State.AVAILABLE, 1: State.END})
            assert await ask(data_plane) == 1
            tiny_model(tmp_path / "tiny", 3)
            await until(lambda: states(data_plane).get(3) is State.AVAILABLE and states(data_plane)[2] is State.END)

    run(main())


def test_a_pipe_in_place_of_a_version_holds_up_nothing(tiny_model: TinyModel, tmp_path: Path) -> None:
    """To open it would wait for a writer; it is a failed version."""

    async def main() -> None:
        tiny_model(tmp_path / "tiny", 1)
        async with serving(ModelEntry("tiny", str(tmp_path / "tiny"))) as data_plane:
            os.mkfifo(tmp_path / "tiny" / "2")
            await until(lambda: states(data_plane) == {2: State.END, 1: State.AVAILABLE})
            assert await ask(data_plane) == 1

    run(main())


def test_a_version_without_its_variables_is_a_failed_load(tiny_model: TinyModel, tmp_path: Path) -> None:
    """A graph whose variables are missing never becomes available; put right, it is loaded."""

    async def main() -> None:
        tiny_model(tmp_path / "tiny", 1)
        async with serving(ModelEntry("tiny", str(tmp_path / "tiny"))) as data_plane:
            broken = tiny_model(tmp_path / "staging", 2)
            shutil.rmtree(broken / "variables")
            broken.rename(tmp_path / "tiny" / "2")
            await until(lambda: states(data_plane).get(2) is State.END)
            status = data_plane.models.status(ModelSpec("tiny", version=2))[0]
            assert status.code is grpc.StatusCode.NOT_FOUND
            assert status.message.endswith("variables.index; No such file or directory")
            assert await ask(data_plane) == 1
            (tmp_path / "tiny" / "2").rename(tmp_path / "broken")
            tiny_model(tmp_path / "tiny", 2)
            await until(lambda: states(data_plane)[2] is State.AVAILABLE)

    run(main())


def test_a_load_is_tried_again(tiny_model: TinyModel, tmp_path: Path) -> None:
    """A version that becomes complete between two tries is loaded; meanwhile it is LOADING without an error."""

    async def main() -> None:
        tiny_model(tmp_path / "tiny", 1)
        async with serving(ModelEntry("tiny", str(tmp_path / "tiny")), max_num_load_retries=400) as data_plane:
            partial = tiny_model(tmp_path / "staging", 2)
            (partial / "saved_model.pb").rename(tmp_path / "saved_model.pb")
            partial.rename(tmp_path / "tiny" / "2")
            await until(lambda: states(data_plane).get(2) is State.LOADING)
            (tmp_path / "saved_model.pb").rename(tmp_path / "tiny" / "2" / "saved_model.pb")
            await until(lambda: states(data_plane) == {2: State.AVAILABLE, 1: State.END})

    run(main())


def test_a_failed_version_is_tried_again_when_another_directory_is_in_its_place(tmp_path: Path) -> None:
    """Also when no poll came between, though file systems give a new directory the inode of a removed one."""
    watched = Watched(tmp_path / "tiny", All())
    version = watched.base_path / "1"
    tried = []

    def fail(_name: str, _version: int, path: Path) -> Servable:
        tried.append((path / "saved_model.pb").read_bytes())
        raise GraphError(grpc.StatusCode.DATA_LOSS, "Cannot be loaded")

    async def main() -> None:
        manager = Manager(fail, RetryPolicy(retries=0), threads=1, on_change=lambda: None)
        for content in (b"first", b"second", b"third"):
            version.mkdir(parents=True)
            for _ in range(2):
                (version / "saved_model.pb").write_bytes(content)
                manager.set_aspired("tiny", list_versions(watched).aspired)
                await until(lambda: manager.statuses("tiny")[0].state is State.END)
            shutil.rmtree(version)
        await manager.close()

    run(main())
    assert tried == [b"first", b"second", b"third"]


def test_start_fails_when_a_model_has_no_hope(tmp_path: Path) -> None:
    """A server whose model cannot be loaded does not start, and says why in TensorFlow Serving's words."""

    async def main() -> None:
        (tmp_path / "tiny" / "1").mkdir(parents=True)
        with pytest.raises(GraphError) as caught:
            async with serving(ModelEntry("tiny", str(tmp_path / "tiny"))):
                pass
        assert caught.value.code is grpc.StatusCode.UNKNOWN
        assert caught.value.message.startswith(
            "1 servable(s) did not become available: {{{name: tiny version: 1} due to error: NOT_FOUND: Specified file"
        )

    run(main())


def test_policies_change_by_reload(tiny_model: TinyModel, tmp_path: Path) -> None:
    """What a reload asks for is what is served."""

    async def main() -> None:
        for version in (1, 2, 3):
            tiny_model(tmp_path / "tiny", version)
        path = str(tmp_path / "tiny")

        def available() -> set[int]:
            return {version for version, state in states(data_plane).items() if state is State.AVAILABLE}

        async with serving(ModelEntry("tiny", path)) as data_plane:
            assert available() == {3}
            policies: list[tuple[VersionPolicy, set[int]]] = [
                (All(), {1, 2, 3}),
                (Specific((1,)), {1}),
                (Latest(2), {2, 3}),
                (Specific(()), set()),
                (Latest(), {3}),
            ]
            for policy, expected in policies:
                await data_plane.models.reload_entries([ModelEntry("tiny", path, policy)])
                await until(lambda expected=expected: available() == expected)  # type: ignore[misc]

    run(main())


def test_labels_only_point_at_available_versions(tiny_model: TinyModel, tmp_path: Path) -> None:
    """A label is assigned, moved and taken away by reload; one bad label refuses the whole reload."""

    async def main() -> None:
        tiny_model(tmp_path / "tiny", 1)
        tiny_model(tmp_path / "tiny", 2)

        def entry(**labels: int) -> list[ModelEntry]:
            return [ModelEntry("tiny", str(tmp_path / "tiny"), All(), labels)]

        async with serving(*entry()) as data_plane:
            await until(lambda: set(states(data_plane).values()) == {State.AVAILABLE})
            for version in (1, 2):
                await data_plane.models.reload_entries(entry(stable=version))
                assert await ask(data_plane, ModelSpec("tiny", label="stable")) == version
            with pytest.raises(LabelNotAssignable, match="Request to assign label to version 9 of model tiny"):
                await data_plane.models.reload_entries(entry(stable=1, other=9))
            assert data_plane.models.labels("tiny") == {"stable": 2}
            await data_plane.models.reload_entries(entry())
            with pytest.raises(InvalidRequest, match="Unrecognized servable version label: stable"):
                data_plane.models.acquire(ModelSpec("tiny", label="stable"))

    run(main())


def test_a_failed_reload_leaves_everything_as_it_was(tiny_model: TinyModel, tmp_path: Path) -> None:
    """Models and labels survive a reload whose new model cannot be loaded, and later reloads work."""

    async def main() -> None:
        tiny_model(tmp_path / "tiny", 1)
        (tmp_path / "broken" / "1").mkdir(parents=True)
        tiny = ModelEntry("tiny", str(tmp_path / "tiny"), All())
        labelled = ModelEntry("tiny", str(tmp_path / "tiny"), All(), {"stable": 1})
        async with serving(tiny) as data_plane:
            with pytest.raises(GraphError, match=r"1 model\(s\) did not become available"):
                await data_plane.models.reload_entries([labelled, ModelEntry("broken", str(tmp_path / "broken"))])
            assert await ask(data_plane) == 1
            assert data_plane.models.labels("tiny") == {}
            await data_plane.models.reload_entries([labelled])
            assert data_plane.models.labels("tiny") == {"stable": 1}

    run(main())


def test_an_adopted_config_serves_what_can_be_loaded(tiny_model: TinyModel, tmp_path: Path) -> None:
    """A model that fails, or has no directory yet, keeps the others neither from being served nor from staying so."""

    async def main() -> None:
        for name in ("tiny", "other"):
            tiny_model(tmp_path / name, 1)
        (tmp_path / "broken" / "1").mkdir(parents=True)
        config = model_server_config_pb2.ModelServerConfig()
        for name in ("tiny", "broken", "missing", "other"):
            config.model_config_list.config.add(
                name=name, base_path=f"file://{tmp_path / name}", model_platform="tensorflow"
            )
        async with serving(ModelEntry("tiny", str(tmp_path / "tiny"))) as data_plane:
            await data_plane.models.adopt(config)
            await until(lambda: data_plane.models.servable("other", 1) is not None)
            await until(lambda: states(data_plane, "broken") == {1: State.END})
            found = [data_plane.models.servable(name, 1) for name in ("tiny", "other")]
            await data_plane.models.adopt(config)
            assert [data_plane.models.servable(name, 1) for name in ("tiny", "other")] == found
            assert states(data_plane, "broken") == {1: State.END}
            with pytest.raises(FailedPrecondition, match="Cannot transition to requested config"):
                await data_plane.models.adopt(model_server_config_pb2.ModelServerConfig())

    run(main())


@pytest.mark.parametrize(("good", "starts"), [((2, 3), False), ((2, 4), True)])
def test_the_highest_version_decides_whether_a_model_has_failed(
    tiny_model: TinyModel, tmp_path: Path, good: Sequence[int], starts: bool
) -> None:
    """What is below it may fail or not; it may not, whatever is below it."""

    async def main() -> None:
        for version in range(1, 5):
            if version in good:
                tiny_model(tmp_path / "tiny", version)
            else:
                (tmp_path / "tiny" / str(version)).mkdir(parents=True)
        with nullcontext() if starts else pytest.raises(GraphError, match="name: tiny version: 4"):
            async with serving(ModelEntry("tiny", str(tmp_path / "tiny"), All())) as data_plane:
                await until(lambda: data_plane.models.servable("tiny", 4) is not None)

    run(main())


def test_versions_may_bring_their_own_batching_parameters(tiny_model: TinyModel, tmp_path: Path) -> None:
    """Those that bring none have no limits; those that bring bad ones are not loaded."""

    async def main() -> None:
        for version, parameters in ((1, None), (2, "max_batch_size { value: 4 }"), (3, "max_batch_size { value: 0 }")):
            path = tiny_model(tmp_path / "staged", version)
            if parameters:
                (path / "batching_params.pbtxt").write_text(parameters)
        (tmp_path / "staged" / "3").rename(tmp_path / "3")
        entry = ModelEntry("tiny", str(tmp_path / "staged"), All())
        async with serving(entry, enable_batching=True, enable_per_model_batching_parameters=True) as data_plane:
            await until(lambda: states(data_plane) == {2: State.AVAILABLE, 1: State.AVAILABLE})
            for version, error in ((1, None), (2, "Task size 5 is larger than maximum input batch size 4")):
                servable = data_plane.models.servable("tiny", version)
                assert servable is not None
                with pytest.raises(InvalidRequest, match=error) if error else nullcontext():
                    inputs = {"input": np.zeros((5, 4), np.float32)}
                    data_plane.bind(servable, servable.signatures["serving_default"], inputs)
            (tmp_path / "3").rename(tmp_path / "staged" / "3")
            await until(lambda: states(data_plane).get(3) is State.END)
            failed = data_plane.models.status(ModelSpec("tiny", 3))[0]
            assert (failed.code.name, failed.message) == ("INVALID_ARGUMENT", "max_batch_size must be positive; was 0")

    run(main())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ([{}, {}], InvalidRequest, "Illegal to list model tiny multiple times in config list"),
        ([{"base_path": "tiny"}], InvalidRequest, "Expected model tiny to have an absolute path or URI; got "
         "base_path()=tiny"),
        ([{"platform": ""}], InvalidRequest, "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
         "ModelServerConfig::model_platform, model name is tiny"),
        ([{"model_type": 1}], InvalidRequest, "Illegal setting both ModelServerConfig::model_type (deprecated) and "
         "ModelServerConfig::model_platform, model name is tiny"),
        ([{"platform": "torch"}], InvalidRequest, "Illegal to change a model's platform. For model tiny platform was "
         "tensorflow and new platform requested is torch"),
        ([{"name": "other", "platform": "torch"}], InvalidRequest, "Model other requests unsupported platform torch"),
        ([{"logging": Logging()}], InvalidRequest, "No request-logger-creator provided."),
        ([{"name": "other", "base_path": "tiny"}, {}, {}], InvalidRequest,
         "Illegal to list model tiny multiple times in config list"),
        ([{"labels": {"stable": 9}}, {"name": "other", "platform": "", "logging": Logging()}], LabelNotAssignable,
         "Request to assign label to version 9 of model tiny, which is not currently available for inference"),
        ([{"name": "other", "platform": "torch", "logging": Logging()}], InvalidRequest,
         "Model other requests unsupported platform torch"),
    ],
)  # fmt: skip
def test_invalid_configs_are_refused(
    tiny_model: TinyModel, tmp_path: Path, changes: list[dict[str, Any]], error: type[ServingError], message: str
) -> None:
    """A config that TensorFlow Serving refuses is refused in its words and changes nothing."""

    async def main() -> None:
        tiny_model(tmp_path / "tiny", 1)
        base: dict[str, Any] = {"name": "tiny", "base_path": str(tmp_path / "tiny")}
        async with serving(ModelEntry(**base)) as data_plane:
            with pytest.raises(error) as caught:
                await data_plane.models.reload_entries([ModelEntry(**{**base, **change}) for change in changes])
            assert caught.value.message == message
            assert await ask(data_plane) == 1

    run(main())


def test_a_reload_that_waits_for_a_missing_path_blocks_nothing(tiny_model: TinyModel, tmp_path: Path) -> None:
    """Other models go on being discovered, the next reload takes over, and the path may still appear."""

    async def main() -> None:
        tiny_model(tmp_path / "tiny", 1)
        tiny = ModelEntry("tiny", str(tmp_path / "tiny"))
        late = ModelEntry("late", str(tmp_path / "late"))
        async with serving(tiny) as data_plane:
            first = asyncio.create_task(data_plane.models.reload_entries([tiny, late]))
            tiny_model(tmp_path / "tiny", 2)
            await until(lambda: states(data_plane).get(2) is State.AVAILABLE)
            second = asyncio.create_task(data_plane.models.reload_entries([tiny, late]))
            with pytest.raises(ServerUnavailable):
                await first
            second.cancel()
            tiny_model(tmp_path / "late", 5)
            await until(
                lambda: "late" in data_plane.models.names() and states(data_plane, "late").get(5) is State.AVAILABLE
            )
            await data_plane.models.reload_entries([tiny])
            await until(lambda: states(data_plane, "late")[5] is State.END)

    run(main())


def test_an_empty_server_knows_nothing(tmp_path: Path) -> None:
    """A server without models answers with TensorFlow Serving's errors, and can be reloaded."""

    async def main() -> None:
        data_plane = DataPlane(ServerSettings())
        await data_plane.models.start([], has_config=False)
        with pytest.raises(ServerUnavailable, match=r"Model labels does not init yet\.stable"):
            data_plane.models.acquire(ModelSpec("tiny", label="stable"))
        with pytest.raises(ServableNotFound, match="Could not find any versions of model tiny"):
            data_plane.models.status(LATEST)
        with pytest.raises(FailedPrecondition, match="Cannot transition to requested config"):
            await data_plane.models.reload(model_server_config_pb2.ModelServerConfig())
        await data_plane.close()

    run(main())
