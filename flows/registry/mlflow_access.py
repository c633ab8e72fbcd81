"""
The address of MLflow, and whether it can be used.

MLflow's own public client resolves addresses and credentials, for every command alike: ``MLFLOW_TRACKING_URI``,
``MLFLOW_REGISTRY_URI``, user and password or token from the environment or from ``~/.mlflow/credentials``,
certificates, plugins. Importing it takes most of a second, so it is imported where it is first needed.

A database is inspected before MLflow opens it: MLflow would try for minutes where nobody listens, and would make or
migrate its tables where they are missing or old, which a command that only reads must not do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from flows.machine.garbage import uncollected
from flows.registry.mlflow_errors import RegistryError, explain, other_schema

_IN_MEMORY = ("", ":memory:")


def import_mlflow() -> Any:
    """The package, imported quickly."""
    with uncollected():
        import mlflow
        import mlflow.store.db.utils
    return mlflow


def addresses() -> tuple[str, ...]:
    """The tracking address and, where it is another one, that of the registry, as MLflow resolves them."""
    mlflow = import_mlflow()
    return tuple(dict.fromkeys((str(mlflow.get_tracking_uri()), str(mlflow.get_registry_uri()))))


def tracking_address() -> str:
    """Where MLflow records runs."""
    return addresses()[0]


def registry_address() -> str:
    """Where MLflow keeps registered models."""
    return addresses()[-1]


def connect(what: str = "used", tracking: str | None = None) -> Any:
    """
    An `mlflow.MlflowClient`.

    Args:
        what: What MLflow cannot be, in the words of an error: used or read.
        tracking: Another address for its runs than the one that is set.

    Raises:
        RegistryError: A database cannot be opened, or has the tables of another release of MLflow.
    """
    mlflow = import_mlflow()
    tracking = tracking or tracking_address()
    for address in dict.fromkeys((tracking, registry_address())):
        with translated(address, what):
            check_schema(address, what)
    with translated(tracking, what):
        return mlflow.MlflowClient(tracking, registry_address())


def check_writable() -> None:
    """
    Raises:
        RegistryError: MLflow keeps its records in a SQLite file that cannot be written.
    """
    for address in addresses():
        with translated(address, "used"):
            file = sqlite_file(address)
        if file is None:
            continue
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("ab"):
                pass
        except OSError as exc:
            raise RegistryError(
                f"MLflow's database {file} cannot be written ({os.strerror(exc.errno or 0)}): "
                "set HOTSWAP_HOME to a directory that can, or MLFLOW_TRACKING_URI to a server"
            ) from exc


def is_new(address: str) -> bool:
    """Whether this is a database without any table yet."""
    return _is_database(address) and (_is_empty_file(address) or not _tables_and_revision(address)[0])


def sqlite_file(address: str) -> Path | None:
    """The file of a SQLite address, read as MLflow's database library reads it; None for any other address."""
    if not _is_database(address):
        return None
    from sqlalchemy.engine import make_url

    url = make_url(address)
    database = url.database or ""
    if url.get_backend_name() != "sqlite" or database in _IN_MEMORY or "mode" in url.query:
        return None
    return Path(unquote(database.removeprefix("file:")) if "uri" in url.query else database)


@contextmanager
def translated(address: str, what: str) -> Iterator[None]:
    """
    Say in one sentence why MLflow at `address` cannot be `what`: used or read.

    Raises:
        RegistryError: The block failed in MLflow, or in what MLflow uses.
    """
    try:
        yield
    except RegistryError:
        raise
    except Exception as exc:
        if (sentence := explain(exc, address, what)) is None:
            raise
        raise RegistryError(sentence) from exc


def _is_database(address: str) -> bool:
    from mlflow.store.db.db_types import DATABASE_ENGINES

    scheme, colon, _ = address.partition("://")
    return bool(colon) and scheme.partition("+")[0] in DATABASE_ENGINES


def _is_empty_file(address: str) -> bool:
    """Whether this is a SQLite file that is not there or has nothing in it; to connect to it would make it."""
    file = sqlite_file(address)
    return file is not None and not (file.exists() and file.stat().st_size)


def check_schema(address: str, what: str) -> None:
    """
    Raises:
        RegistryError: A database has the tables of another release of MLflow.
    """
    if not _is_database(address) or _is_empty_file(address):
        return
    revision = _tables_and_revision(address)[1]
    if revision is not None and revision != _expected_revisions()[0]:
        raise RegistryError(other_schema(address, what, older=revision in _expected_revisions()))


def _tables_and_revision(address: str) -> tuple[list[str], str | None]:
    """The tables that a database has, and the revision of MLflow's tables in it; an unchanged file is read once."""
    if (file := sqlite_file(address)) is None:
        return _read_tables(address)
    found = file.stat()
    return _read_file(address, found.st_ino, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=4)
def _read_file(address: str, *_state: int) -> tuple[list[str], str | None]:
    return _read_tables(address)


def _read_tables(address: str) -> tuple[list[str], str | None]:
    import sqlalchemy
    from alembic.migration import MigrationContext

    engine = import_mlflow().store.db.utils.create_sqlalchemy_engine(address)
    try:
        with engine.connect() as connection:
            tables = sqlalchemy.inspect(connection).get_table_names()
            return tables, MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


@lru_cache(maxsize=1)
def _expected_revisions() -> tuple[str, ...]:
    """The revisions of MLflow's tables that the installed release knows, its own first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(import_mlflow().__file__).parent / "store" / "db_migrations"))
    return tuple(script.revision for script in scripts.walk_revisions())
