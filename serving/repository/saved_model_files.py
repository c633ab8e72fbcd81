"""Says which files a SavedModel consists of, whether they are all there, and what their digest is."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from serving.protocol.errors import IncompleteSavedModel
from serving.repository.stamp import STAMP_FILE

_SHARD = re.compile(r"variables\.data-\d{5}-of-(\d{5})")


def digest(path: Path) -> str:
    """
    SHA-256 of a SavedModel: over its sorted paths and file hashes, leaving out the stamp that publish writes.

    The same as ``find * -type f ! -path assets.extra/hotswap.json | LC_ALL=C sort | xargs sha256sum | sha256sum``.
    """
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    files.pop(STAMP_FILE.as_posix(), None)
    whole = hashlib.sha256()
    for name in sorted(files, key=str.encode):
        with files[name].open("rb") as file:
            whole.update(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n".encode())
    return whole.hexdigest()


def check_complete(path: Path) -> None:
    """
    Raises:
        IncompleteSavedModel: A file that every SavedModel has is missing from `path`, or is empty.
    """
    if not path.is_dir():
        raise IncompleteSavedModel(f"{path} is not a directory with a SavedModel")
    has_text = (path / "saved_model.pbtxt").is_file() and not (path / "saved_model.pb").exists()
    for name in ("saved_model.pbtxt" if has_text else "saved_model.pb", *variables_files(path)):
        if not (path / name).is_file() or not (path / name).stat().st_size:
            raise IncompleteSavedModel(f"{path} is not a complete SavedModel: {name} is missing or empty")


def variables_files(path: Path) -> list[str]:
    """The files that the variables of a SavedModel consist of, by the names of those that are there."""
    variables = path / "variables"
    if not variables.is_dir():
        return []
    counts = {int(match[1]) for each in variables.iterdir() if (match := _SHARD.fullmatch(each.name))} or {1}
    shards = [f"variables/variables.data-{i:05d}-of-{count:05d}" for count in counts for i in range(count)]
    return ["variables/variables.index", *shards]
