"""The models repository on a real disk."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.protocol.errors import HotswapError, IncompleteSavedModel, RepositoryError, VersionExists, VersionNotFound
from serving.repository.names import validate_model_name
from serving.repository.saved_model_files import check_complete, digest
from serving.repository.stamp import STAMP_FILE, Stamp
from serving.repository.store import Repository

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "models_repo")


@pytest.fixture
def saved_model(tmp_path: Path) -> Path:
    path = tmp_path / "saved_model"
    for name in ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(name.encode())
    return path


def publish(repository: Repository, saved_model: Path, version: int) -> Path:
    stamp = Stamp(version=version, digest=digest(saved_model))
    with repository.lock("iris"):
        return repository.publish("iris", version, repository.stage("iris", version, saved_model, stamp))


def test_publish(repository: Repository, saved_model: Path) -> None:
    """A published version has the digest of its source, carries its stamp, and leaves nothing in staging."""
    path = publish(repository, saved_model, 3)
    assert path == repository.root / "iris" / "3"
    assert digest(path) == digest(saved_model)
    assert repository.stamp("iris", 3) == Stamp(version=3, digest=digest(saved_model))
    assert repository.versions("iris") == [3]
    assert repository.models() == ["iris"]
    assert list((repository.root / ".staging").iterdir()) == []


def test_staged_is_not_published(repository: Repository, saved_model: Path) -> None:
    """A staged version is no version yet, but its number is seen."""
    repository.stage("iris", 4, saved_model, Stamp())
    assert repository.versions("iris") == []
    assert repository.highest_version_seen("iris") == 4


def test_staging_again_clears_what_a_killed_process_left(repository: Repository, saved_model: Path) -> None:
    """Whoever stages next removes what was left half copied."""
    repository.stage("iris", 4, saved_model, Stamp())
    publish(repository, saved_model, 5)
    assert not (repository.root / ".staging" / "iris").exists()


@pytest.mark.parametrize("retired", [False, True])
def test_numbers_are_used_once(repository: Repository, saved_model: Path, retired: bool) -> None:
    """A number that is published or retired cannot be published again."""
    publish(repository, saved_model, 1)
    if retired:
        repository.retire("iris", 1)
    with pytest.raises(VersionExists, match="never used twice"):
        publish(repository, saved_model, 1)


def test_an_empty_directory_in_the_way_is_not_overwritten(repository: Repository, saved_model: Path) -> None:
    """An empty directory with the version's number is not silently replaced."""
    (repository.root / "iris" / "1").mkdir(parents=True)
    with pytest.raises(VersionExists):
        publish(repository, saved_model, 1)


def test_retire_and_restore(repository: Repository, saved_model: Path) -> None:
    """A retired version leaves the polled directory whole, keeps its number, and comes back as it was."""
    publish(repository, saved_model, 1)
    publish(repository, saved_model, 2)
    repository.retire("iris", 2)
    assert (repository.versions("iris"), repository.retired("iris")) == ([1], [2])
    assert repository.highest_version_seen("iris") == 2
    assert repository.stamp("iris", 2).version == 2
    repository.restore("iris", 2)
    assert (repository.versions("iris"), repository.retired("iris")) == ([1, 2], [])
    assert digest(repository.path("iris", 2)) == digest(saved_model)


def test_a_changed_version_is_not_restored(repository: Repository, saved_model: Path) -> None:
    """Restore refuses files that are not those that were published."""
    publish(repository, saved_model, 1)
    (repository.retire("iris", 1) / "saved_model.pb").write_bytes(b"other")
    with pytest.raises(IncompleteSavedModel, match="digest"):
        repository.restore("iris", 1)
    assert repository.retired("iris") == [1]


def test_missing_versions_are_named(repository: Repository, saved_model: Path) -> None:
    """Retiring or restoring what is not there says what is."""
    publish(repository, saved_model, 7)
    with pytest.raises(VersionNotFound, match="published are: 7"):
        repository.retire("iris", 8)
    with pytest.raises(VersionNotFound, match="retired are: none"):
        repository.restore("iris", 7)


def test_only_plain_numbers_are_versions(repository: Repository) -> None:
    """Names that int() would take, but that hotswap never writes, are not versions."""
    for name in ("1", "02", "+3", "1_000", "-4", " 5", "six", ".7", "٧"):
        (repository.root / "iris" / name).mkdir(parents=True)
    (repository.root / "iris" / "8").write_text("a file")
    assert repository.versions("iris") == [1]


@pytest.mark.parametrize(
    "missing", ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"]
)
def test_incomplete_saved_model(repository: Repository, saved_model: Path, missing: str) -> None:
    """A SavedModel without one of its files is refused by name, and nothing is staged."""
    (saved_model / missing).unlink()
    with pytest.raises(IncompleteSavedModel, match=missing):
        repository.stage("iris", 1, saved_model, Stamp())
    assert not (repository.root / ".staging").exists()


def test_a_missing_shard_is_noticed(saved_model: Path) -> None:
    """The name of one shard of the variables says how many there must be."""
    data = saved_model / "variables" / "variables.data-00000-of-00001"
    data.rename(data.with_name("variables.data-00000-of-00002"))
    with pytest.raises(IncompleteSavedModel, match="00001-of-00002"):
        check_complete(saved_model)


def test_digest(saved_model: Path) -> None:
    """The digest is what sha256sum says of a sorted listing; the stamp does not count, every other file does."""
    listing = "find * -type f ! -path assets.extra/hotswap.json | LC_ALL=C sort | xargs sha256sum | sha256sum"
    before = digest(saved_model)
    (saved_model / STAMP_FILE).parent.mkdir()
    (saved_model / STAMP_FILE).write_text("{}")
    assert digest(saved_model) == before
    assert subprocess.check_output(listing, shell=True, cwd=saved_model, text=True).split()[0] == before
    (saved_model / "assets.extra" / "other").write_text("{}")
    assert digest(saved_model) != before


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../iris", ".hidden", "a b", "iris\n", "é"])
def test_bad_model_names(name: str) -> None:
    """A name that would leave the repository, hide in it, or break an address is refused."""
    with pytest.raises(HotswapError, match="cannot be a model's name"):
        validate_model_name(name)


def test_config_is_replaced_whole(repository: Repository) -> None:
    """models.config is read back as written, and no temporary file stays beside it."""
    assert repository.read_config() == ""
    for text in ("first", "second"):
        repository.write_config(text)
    assert repository.read_config() == "second"
    assert [path.name for path in repository.root.iterdir()] == ["models.config"]


def test_the_lock_excludes(repository: Repository) -> None:
    """While one holds a model's lock, another waits and then gives up with one sentence; other models are free."""
    with repository.lock("iris"), repository.lock("digits"), ThreadPoolExecutor() as pool:
        attempt = pool.submit(_try_lock, repository.root)
        assert str(attempt.exception()) == (
            "Another process has been changing model 'iris' for 0.1 s: try again when it is done"
        )
    _try_lock(repository.root)


def _try_lock(root: Path) -> None:
    with Repository(root).lock("iris", timeout_seconds=0.1):
        pass


@pytest.fixture
def holder(repository: Repository) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of iris until it is killed."""
    code = (
        "import sys; from pathlib import Path; from serving.repository.store import Repository\n"
        "with Repository(Path(sys.argv[1])).lock('iris'):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(repository.root)]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_kill_frees_the_lock(repository: Repository, saved_model: Path, holder: subprocess.Popen[str]) -> None:
    """A lock whose holder is killed with SIGKILL is free at once."""
    with pytest.raises(RepositoryError):
        _try_lock(repository.root)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    publish(repository, saved_model, 1)


def test_unwritable(tmp_path: Path, saved_model: Path) -> None:
    """A repository that cannot be written gives one sentence with the way out."""
    (tmp_path / "file").write_text("")
    repository = Repository(tmp_path / "file" / "models_repo")
    with pytest.raises(RepositoryError, match="make it writable, or set HOTSWAP_MODELS_REPO"):
        repository.check_writable()
    with pytest.raises(RepositoryError, match="make it writable, or set HOTSWAP_MODELS_REPO"):
        repository.lock("iris").__enter__()


def test_full(repository: Repository, saved_model: Path) -> None:
    """When there is no room for the copy, nothing of it stays and the published versions are untouched."""
    publish(repository, saved_model, 1)
    (saved_model / "variables" / "variables.data-00000-of-00001").write_bytes(bytes(1_000_000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(RepositoryError, match=r"No room is left in .*: free some space"):
            publish(repository, saved_model, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert repository.versions("iris") == [1]
    assert list((repository.root / ".staging").iterdir()) == []
    publish(repository, saved_model, 2)
