"""Does the source see the versions that are there, and only those?"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from serving.lifecycle.source import Listing, Source, Watched, list_versions, was_put_in_place_whole, with_additions
from serving.repository.version_policy import All, Latest, Specific, VersionPolicy
from tests.conftest import TinyModel

ROUNDS = 3000
CLOCK_TICK_SECONDS = 0.02
"""longer than that of a file system's clock"""


def names(listing: Listing) -> dict[int, str]:
    """The names of the directories that should be served."""
    return {number: version.path.name for number, version in listing.aspired.items()}


def aspired(base_path: Path, policy: VersionPolicy) -> dict[int, str]:
    """What a poll finds."""
    return names(list_versions(Watched(base_path, policy)))


def test_other_names_than_versions_do_not_count(tmp_path: Path) -> None:
    """Names of copies that are under way are ignored."""
    for name in ("1", "3_new", "tmp.3", "1.0"):
        (tmp_path / name).mkdir()
    assert list_versions(Watched(tmp_path, All())).numbers == {1}


def test_a_link_to_nothing_is_no_version(tmp_path: Path) -> None:
    """The next lower version is served in its place, also where the link has the number of a directory."""
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
    (tmp_path / "02").symlink_to(tmp_path / "gone")
    (tmp_path / "3").symlink_to(tmp_path / "gone")
    assert aspired(tmp_path, Latest()) == {2: "2"}
    assert aspired(tmp_path, All()) == {1: "1", 2: "2"}


def test_of_two_names_for_one_version_one_is_served(tmp_path: Path) -> None:
    """The last name wins, under the policy `all` the first."""
    for name in ("7", "007"):
        (tmp_path / name).mkdir()
    assert aspired(tmp_path, Latest()) == {7: "7"}
    assert aspired(tmp_path, All()) == {7: "007"}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Latest(), {2: "2", 4: "4"}),
        (Latest(2), {1: "1", 2: "2", 4: "4"}),
        (All(), {1: "1", 2: "2", 4: "4"}),
        (Specific((1, 3)), {1: "1"}),
    ],
)
def test_a_watch_only_adds(
    tiny_model: TinyModel, tmp_path: Path, policy: VersionPolicy, expected: dict[int, str]
) -> None:
    """What was removed, renamed, replaced or not wanted before stays as it was until the next poll."""
    watched = Watched(tmp_path / "tiny", policy)
    for version in (1, 2):
        tiny_model(watched.base_path, version)
    before = list_versions(watched)
    assert with_additions(watched, before) is before
    (watched.base_path / "1").rename(tmp_path / "away")
    tiny_model(watched.base_path, 1, "01")
    (watched.base_path / "2").rename(watched.base_path / "not-2")
    tiny_model(watched.base_path, 4)
    assert names(with_additions(watched, before)) == expected


@pytest.mark.parametrize("count", [1, 2])
def test_a_version_that_is_there_already_is_no_addition(tiny_model: TinyModel, tmp_path: Path, count: int) -> None:
    """The version below the removed ones is served from the next poll on."""
    watched = Watched(tmp_path / "tiny", Latest(count))
    for version in (1, 2, 3):
        tiny_model(watched.base_path, version)
    before = list_versions(watched)
    shutil.rmtree(watched.base_path / "3")
    assert with_additions(watched, before) is before
    assert max(list_versions(watched).aspired) == 2


@pytest.mark.parametrize(
    "missing",
    ["saved_model.pb", "variables", "variables/variables.index", "variables/variables.data-00000-of-00001"],
)
def test_a_watch_leaves_what_is_not_complete_to_the_poll(tiny_model: TinyModel, tmp_path: Path, missing: str) -> None:
    """A file may be missing or empty."""
    nothing = Listing(frozenset(), {})
    watched = Watched(tmp_path / "tiny", All())
    for version in (1, 2):
        lost = tiny_model(tmp_path / "staged", version) / missing
        shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
        if version == 2 and missing != "variables":
            lost.touch()
        (tmp_path / "staged" / str(version)).rename(tmp_path / str(version))
        watched.base_path.mkdir(exist_ok=True)
        (tmp_path / str(version)).rename(watched.base_path / str(version))
    assert with_additions(watched, nothing) is nothing


def test_a_watch_leaves_what_is_being_copied_to_the_poll(tiny_model: TinyModel, tmp_path: Path) -> None:
    """At no moment of a copy, in whatever order, does it pass for complete; what was renamed or linked does."""
    whole = tiny_model(tmp_path / "whole", 1)
    variables = ["variables/variables.index", "variables/variables.data-00000-of-00001"]
    for number, order in enumerate(itertools.permutations(["saved_model.pb", *variables]), start=1):
        target = tmp_path / "tiny" / str(number)
        (target / "variables").mkdir(parents=True)
        for name in order:
            content = (whole / name).read_bytes()
            with (target / name).open("wb", buffering=0) as file:
                for part in (content[:10], content[10:]):
                    time.sleep(CLOCK_TICK_SECONDS)
                    is_last = (name, part) == (order[-1], content[10:])
                    assert is_last or not was_put_in_place_whole(target), (order, name)
                    file.write(part)
        copied = target.rename(tmp_path / "tiny" / "0")
        assert was_put_in_place_whole(copied)
        (tmp_path / "tiny" / str(number)).symlink_to(copied)
        assert was_put_in_place_whole(tmp_path / "tiny" / str(number))
        shutil.rmtree(copied)


def test_a_model_that_is_written_as_text_is_complete(tiny_model: TinyModel, tmp_path: Path) -> None:
    """With ``saved_model.pbtxt`` in the place of ``saved_model.pb``."""
    (tiny_model(tmp_path, 1) / "saved_model.pb").rename(tmp_path / "1" / "saved_model.pbtxt")
    assert was_put_in_place_whole((tmp_path / "1").rename(tmp_path / "2"))


def test_what_another_models_config_changes_takes_nothing_away(tiny_model: TinyModel, tmp_path: Path) -> None:
    """A reload looks for additions of the models that stay as they are, and whole at those that it changes."""

    async def main() -> None:
        found: dict[str, set[int]] = {}
        source = Source(lambda name, aspired: found.__setitem__(name, set(aspired)), poll_seconds=3600)
        models = {name: Watched(tmp_path / name, All()) for name in ("same", "changed", "dropped")}
        for name in models:
            tiny_model(tmp_path / name, 1)
        await source.set_models(models)
        for name in models:
            shutil.rmtree(tmp_path / name / "1")
            tiny_model(tmp_path / name, 2)
        await source.set_models({"same": models["same"], "changed": Watched(tmp_path / "changed", Latest())})
        assert found == {"same": {1, 2}, "changed": {2}, "dropped": set()}
        await source.set_models(models)
        assert found["dropped"] == {2}

    asyncio.run(main())


def test_a_base_path_without_versions_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And again when its last version has gone."""

    async def main() -> None:
        source = Source(lambda name, aspired: None, poll_seconds=1)
        await source.set_models({"tiny": Watched(tmp_path, Latest())})
        for _ in range(2):
            await source.poll()
            await source.poll()
            assert caplog.text.count(f"No versions of servable tiny found under base path {tmp_path}") == 1
            caplog.clear()
            (tmp_path / "1").mkdir()
            await source.poll()
            (tmp_path / "1").rmdir()

    asyncio.run(main())


def test_another_directory_in_a_versions_place_is_another_version(tmp_path: Path) -> None:
    """Its identity distinguishes it from the one before."""
    watched = Watched(tmp_path, Latest())
    (tmp_path / "1").mkdir()
    before = list_versions(watched)
    assert list_versions(watched) == before
    (tmp_path / "1").rename(tmp_path / "away")
    (tmp_path / "1").mkdir()
    assert list_versions(watched).aspired[1].identity != before.aspired[1].identity


def test_a_base_path_that_is_renamed_away_meanwhile_has_lost_no_version(tmp_path: Path) -> None:
    """It is listed whole or not at all: a version less would be taken down."""
    base_path, away = tmp_path / "iris", tmp_path / "away"
    for version in ("1", "2"):
        (base_path / version).mkdir(parents=True)
    stopped = threading.Event()

    def rename() -> None:
        while not stopped.is_set():
            base_path.rename(away)
            away.rename(base_path)

    renaming = threading.Thread(target=rename)
    renaming.start()
    seen = set()
    try:
        for _ in range(ROUNDS):
            with suppress(FileNotFoundError):
                seen.add(frozenset(list_versions(Watched(base_path, All())).aspired))
    finally:
        stopped.set()
        renaming.join()
    assert seen == {frozenset({1, 2})}
