"""What is no whole backup is refused before anything has changed, and nothing is overwritten."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.backups.archive import BackupError, writing
from flows.backups.backup import back_up
from flows.backups.restore import restore
from flows.settings import Settings
from serving.repository.model_config import ModelEntry, parse, render
from serving.repository.store import Repository

FILES = (
    *("home/artifacts/iris/1/file", "home/logs/up.log", "models/iris/1/saved_model.pb", "models/README.md"),
    *("models/.retired/iris/2/saved_model.pb", "models/.journal/iris.jsonl", "models/.staging/iris/3/part"),
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home and a repository with a little of everything."""
    settings = Settings(home=tmp_path / "home", models_repo=tmp_path / "models")
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name * 100)
    config = render([ModelEntry("iris", str(tmp_path / "models" / "iris")), ModelEntry("other", "/elsewhere/other")])
    Repository(settings.models_repo).write_config(config)
    return settings


@pytest.fixture
def file(settings: Settings, tmp_path: Path) -> Path:
    """Its backup."""
    file = tmp_path / "backup.tar.gz"
    back_up(settings, file)
    return file


def test_only_its_owner_can_read_a_backup(file: Path) -> None:
    """From its first byte on: it has what the registry and Prefect know, and perhaps the logged requests."""
    with writing(file.with_name("other.tar.gz")) as archive:
        archive.add(file, "home/file")
        modes = {path.name: path.stat().st_mode & 0o777 for path in file.parent.glob("*.tar.gz*")}
        modes |= {path.name: path.stat().st_mode & 0o777 for path in file.parent.glob(".*")}
    assert modes == {"backup.tar.gz": 0o600, ".other.tar.gz.partial": 0o600}


def contents(*directories: Path) -> dict[str, bytes]:
    paths = [path for directory in directories for path in sorted(directory.rglob("*")) if path.is_file()]
    return {str(path): path.read_bytes() for path in paths}


def changed(file: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]) -> None:
    """Write the archive again with other members."""
    with tarfile.open(file) as tar:
        members = [(member, (tar.extractfile(member) or io.BytesIO()).read()) for member in tar]
    change(members)
    with tarfile.open(file, "w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def with_member(name: str, kind: bytes = tarfile.REGTYPE) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        changed(file, lambda members: members.insert(0, (member, b"")))

    return change


def with_other_content(file: Path) -> None:
    changed(file, lambda members: members.__setitem__(0, (members[0][0], b"other")))


def without_a_file(file: Path) -> None:
    changed(file, lambda members: members.__delitem__(0))


def without_manifest(file: Path) -> None:
    changed(file, lambda members: members.__delitem__(-1))


def of_a_later_format(file: Path) -> None:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        member, content = members.pop()
        members.append((member, json.dumps({**json.loads(content), "format": 2}).encode()))

    changed(file, change)


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def with_a_flipped_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def no_archive(file: Path) -> None:
    file.write_text("nothing of this kind")


@pytest.mark.parametrize(
    "damage",
    [
        *(with_other_content, without_a_file, without_manifest, of_a_later_format),
        *(cut_off, with_a_flipped_bit, no_archive),
        with_member("../outside"),
        with_member("home/../../outside"),
        with_member("/tmp/hotswap-outside"),
        with_member("other/file"),
        with_member("home"),
        with_member("home/link", tarfile.SYMTYPE),
        with_member("home/link", tarfile.LNKTYPE),
        with_member("home/pipe", tarfile.FIFOTYPE),
    ],
)
def test_a_damaged_backup_changes_nothing(damage: Callable[[Path], None], file: Path, tmp_path: Path) -> None:
    """Neither what is there nor where it would go; and no name of a file leads out of its directory."""
    damage(file)
    before = contents(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BackupError, match="nothing was changed"):
        restore(file, tmp_path / "new", tmp_path / "empty")
    assert contents(tmp_path) == before
    assert list((tmp_path / "empty").iterdir()) == []
    assert not (tmp_path / "new").exists()


def test_what_is_kept_comes_back_and_what_is_of_the_moment_does_not(
    file: Path, settings: Settings, tmp_path: Path
) -> None:
    """Versions, retired ones and the journal, but no logs, half-staged versions or locks; paths are the new ones."""
    there = tmp_path / "there"
    assert restore(file, there / "home", there / "models").models == ("iris",)
    old = {
        name.removeprefix(str(tmp_path)): text for name, text in contents(tmp_path).items() if str(there) not in name
    }
    new = {name.removeprefix(str(there)): text for name, text in contents(there).items()}
    of_the_moment = {name for name in old if "/logs/" in name or "/.staging/" in name or "/.locks/" in name}
    assert old.keys() - new.keys() == of_the_moment | {"/models/.repository.json", "/backup.tar.gz"}
    assert {name for name in new if new[name] != old[name]} == {"/models/models.config"}
    entries = {entry.name: entry.base_path for entry in parse(new["/models/models.config"].decode())}
    assert entries == {"iris": str(there / "models" / "iris"), "other": "/elsewhere/other"}
    assert not (settings.models_repo / ".backup").exists()


def test_nothing_is_overwritten(file: Path, settings: Settings, tmp_path: Path) -> None:
    """Neither an earlier backup, nor a home or a repository that has something."""
    before = contents(tmp_path)
    with pytest.raises(BackupError, match="never overwritten"):
        back_up(settings, file)
    with pytest.raises(BackupError, match="has artifacts already"):
        restore(file, settings.home, tmp_path / "new")
    with pytest.raises(BackupError, match=r"has \.journal already"):
        restore(file, tmp_path / "new", settings.models_repo)
    assert contents(tmp_path) == before


def test_a_backup_is_kept_elsewhere_than_what_it_keeps(settings: Settings) -> None:
    """Else it would keep itself, and be lost with the rest."""
    for place in (settings.home, settings.models_repo):
        with pytest.raises(BackupError, match="elsewhere"):
            back_up(settings, place / "backup.tar.gz")


def test_a_backup_that_was_killed_is_in_nobodys_way(settings: Settings, tmp_path: Path) -> None:
    """What it left is cleared by the next one, and is no part of that."""
    left = settings.models_repo / ".backup" / "iris" / "1"
    left.mkdir(parents=True)
    (left / "left-over").write_text("left")
    back_up(settings, tmp_path / "next.tar.gz")
    with tarfile.open(tmp_path / "next.tar.gz") as tar:
        assert [name for name in tar.getnames() if name.endswith("left-over")] == []
    assert not (settings.models_repo / ".backup").exists()
