"""
What a restore has beside each of its two places until it is done: the files, and once all are verified, a record.

From the record in the home on, the restore is to be finished by whoever comes next, as some of it may be in its place.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from serving.repository.files import write_atomically

STAGING = ".restoring"
_RECORD = "verified.json"


@dataclass(frozen=True, slots=True)
class Restoring:
    """A restore whose files have been verified."""

    digest: str
    """SHA-256 of the archive"""
    home: str
    models_repo: str
    made_at: str
    """when the backup was made: ISO 8601, UTC"""

    def record(self) -> None:
        """Keep this in both places; that of the home counts, and comes last."""
        for place in (self.models_repo, self.home):
            write_atomically(Path(place, STAGING, _RECORD), json.dumps(asdict(self)))


def find_restoring(home: Path, models_repo: Path) -> Restoring | None:
    """The restore to one of these that has to be finished."""
    found = _read(home)
    if found is None and (other := _read(models_repo)) is not None:
        found = _read(Path(other.home))
    return found


def staged_files(place: Path) -> Path:
    """Where files wait beside their place, in the same file system."""
    return place / STAGING / "files"


def discard(place: Path) -> None:
    """Remove what is beside a place: the record first, so that no restore is finished with a part of the files."""
    (place / STAGING / _RECORD).unlink(missing_ok=True)
    shutil.rmtree(place / STAGING, ignore_errors=True)


def _read(place: Path) -> Restoring | None:
    try:
        return Restoring(**json.loads((place / STAGING / _RECORD).read_text("utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
