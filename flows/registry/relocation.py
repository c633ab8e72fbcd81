"""
Moves the artifacts of MLflow's database to another directory.

MLflow keeps absolute addresses of artifacts in its tables. What is not below the old directory, as in an object
store, stays as it is.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)
"""the columns with an address of artifacts, by table"""


def relocate(database: Path, old: Path, new: Path) -> None:
    """
    Let the database name the artifacts below `new` that it names below `old`; nobody may have it open.

    Args:
        database: A SQLite file of MLflow's.
        old: The directory of the artifacts so far, absolute.
        new: Where they are now, absolute.
    """
    with closing(sqlite3.connect(database)) as connection, connection:
        for table, column in _ADDRESSES:
            for before, after in ((old.as_uri(), new.as_uri()), (str(old), str(new))):
                length = len(before)
                connection.execute(
                    f"UPDATE {table} SET {column} = :after || substr({column}, :length + 1)"
                    f" WHERE {column} = :before OR substr({column}, 1, :length + 1) = :before || '/'",
                    {"after": after, "before": before, "length": length},
                )
