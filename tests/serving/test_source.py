"""Does the source see the versions that are there, and only those?"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from serving.source import Source, Watched, list_versions
from serving.version_policy import All, Latest, VersionPolicy


def aspired(base_path: Path, policy: VersionPolicy, known: set[str] | None = None) -> dict[int, str]:
    """The names of the directories that should be served; with `known`, as a watch sees them."""
    listing = list_versions(Watched(base_path, policy), known or (), complete_only=known is not None)
    return {number: version.path.name for number, version in listing.aspired.items()}


def test_other_names_than_versions_do_not_count(tmp_path: Path) -> None:
    """Names of copies that are under way are ignored."""
    for name in ("1", "3_new", "tmp.3", "1.0"):
        (tmp_path / name).mkdir()
    assert list_versions(Watched(tmp_path, All())).names == {"1"}


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


def test_a_watch_takes_a_new_version_only_once_it_has_a_graph(tmp_path: Path) -> None:
    """What was there before stays, whatever is in it."""
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
    assert aspired(tmp_path, Latest(), known={"1"}) == {1: "1"}
    assert aspired(tmp_path, Latest(), known={"1", "2"}) == {2: "2"}
    (tmp_path / "2" / "saved_model.pb").touch()
    assert aspired(tmp_path, Latest(), known={"1"}) == {2: "2"}


def test_a_base_path_without_versions_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
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
    """Its identity tells it from the one before."""
    watched = Watched(tmp_path, Latest())
    (tmp_path / "1").mkdir()
    before = list_versions(watched)
    assert list_versions(watched) == before
    (tmp_path / "1").rename(tmp_path / "away")
    (tmp_path / "1").mkdir()
    assert list_versions(watched).aspired[1].identity != before.aspired[1].identity
