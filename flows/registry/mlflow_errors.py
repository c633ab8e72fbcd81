"""
The failures of MLflow in one sentence each, with the next step.

MLflow passes on the errors of everything below it: HTTP, databases and their drivers, object stores, files. Each kind
has its sentence here; what fits none keeps MLflow's own words.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass

from flows.machine.workspaces import still_there
from serving.protocol.errors import HotswapError
from serving.protocol.redaction import redacted

_MAX_WORDS = 300
_UNLESS_LOCAL = "or unset MLFLOW_TRACKING_URI to record in a local database"
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EISDIR)
_BAD_SETTING = re.compile(r"Failed to convert (?P<value>.+?) for (?P<name>MLFLOW_\w+)")
_PACKAGES = {
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
    "pymysql": "pymysql",
    "pymssql": "pymssql",
    "pyodbc": "pyodbc",
    "boto3": "boto3",
    "google": "google-cloud-storage",
    "azure": "azure-storage-blob azure-identity",
}


class RegistryError(HotswapError):
    """MLflow cannot be used."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of failure: how its text is known, what it is called, and the next step; both may use its groups."""

    pattern: re.Pattern[str]
    why: str
    step: str


def _kind(pattern: str, why: str, step: str) -> _Kind:
    return _Kind(re.compile(pattern, re.IGNORECASE | re.DOTALL), why, step)


_KINDS = (
    _kind(
        r"filesystem tracking backend",
        "MLflow uses a directory of files only when it is allowed to",
        "set MLFLOW_ALLOW_FILE_STORE=true, or move the records to a database with `mlflow migrate-filestore`",
    ),
    _kind(
        r"out-of-date database schema|can't locate revision",
        "its tables are of another release of MLflow",
        "back the database up and run `mlflow db upgrade ADDRESS`, or install the release of MLflow that made it",
    ),
    _kind(
        r"\b401\b|unauthorized|UNAUTHENTICATED|not authenticated",
        "it does not accept the credentials, status 401",
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    ),
    _kind(
        r"\b403\b|PERMISSION_DENIED|forbidden",
        "these credentials may not do that, status 403",
        "ask for the permission, or set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to others",
    ),
    _kind(
        r"CERTIFICATE_VERIFY_FAILED|SSLError|SSLCertVerificationError|TLS CA certificate bundle",
        "its certificate cannot be verified",
        "name the file of who signed it in MLFLOW_TRACKING_SERVER_CERT_PATH",
    ),
    _kind(
        r"password authentication failed|access denied for user|login failed",
        "the database does not accept user or password",
        "correct them in MLFLOW_TRACKING_URI",
    ),
    _kind(
        r"file is not a database|malformed|file is encrypted",
        "the file is damaged, or no database",
        "put a copy of it back, or move it away to begin a new one",
    ),
    _kind(
        r"database is locked", "another process holds the database locked", "try again when that process has finished"
    ),
    _kind(r"database or disk is full|No space left on device", "the disk is full", "free some space"),
    _kind(
        r"unable to open database file|readonly database",
        "the file cannot be opened or written",
        "check that it and its directory can be written",
    ),
    _kind(
        r"timed out|timeout",
        "no answer came in time: timeout",
        f"check that it runs and can be reached, {_UNLESS_LOCAL}",
    ),
    _kind(
        r"connection refused|could not connect|can't connect|Max retries exceeded|Name or service not known"
        r"|could not translate host name|Connection reset|Connection aborted|Failed to resolve",
        "nobody answers there",
        f"check that it runs, {_UNLESS_LOCAL}",
    ),
    _kind(
        r"ENDPOINT_NOT_FOUND|error code 404|not in a valid JSON format",
        "what answers there is no MLflow",
        f"correct the address, {_UNLESS_LOCAL}",
    ),
    _kind(
        r"Could not parse SQLAlchemy URL|Can't load plugin|Invalid (?:port|IPv6)|unsupported URI|invalid database"
        r"|No connection adapters",
        "that is no address that MLflow knows",
        f"correct MLFLOW_TRACKING_URI, {_UNLESS_LOCAL}",
    ),
)


def explain(exc: Exception, address: str, what: str) -> str | None:
    """The sentence for an error that came out of MLflow at `address`; None for one that is a bug of ours."""
    for known in (_missing_package, _unusable_file):
        if (sentence := known(exc, address, what)) is not None:
            return sentence
    if not _is_foreign(exc):
        return None
    if (setting := _BAD_SETTING.search(str(exc))) is not None:
        return f"{setting['name']}={setting['value']} cannot be used: correct or unset it"
    words = " ".join(f"{type(each).__name__}: {each}" for each in _chain(exc))
    for kind in _KINDS:
        if kind.pattern.search(words):
            return _sentence(address, what, kind.why, kind.step.replace("ADDRESS", redacted(address)))
    first_line = str(exc).strip().partition("\n")[0][:_MAX_WORDS] or type(exc).__name__
    return _sentence(address, what, redacted(first_line), f"check MLFLOW_TRACKING_URI, {_UNLESS_LOCAL}")


def other_schema(address: str, what: str, older: bool) -> str:
    """The sentence for tables that the installed release of MLflow does not know."""
    if older:
        step = f"back it up, then run `mlflow db upgrade {redacted(address)}`"
        return _sentence(address, what, "its tables are of an older release of MLflow", step)
    step = "install the release of MLflow that made them, or name another address in MLFLOW_TRACKING_URI"
    return _sentence(address, what, "its tables are of a newer release of MLflow", step)


def _sentence(address: str, what: str, why: str, step: str) -> str:
    return f"MLflow at {redacted(address)} cannot be {what} ({why}): {step}"


def _missing_package(exc: Exception, address: str, what: str) -> str | None:
    for each in _chain(exc):
        if isinstance(each, ModuleNotFoundError) and each.name:
            package = _PACKAGES.get(each.name.partition(".")[0], each.name.partition(".")[0])
            why = f"the package {each.name!r}, which this address needs, is not installed"
            return _sentence(address, what, why, f"`pip install {package}`")
    return None


def _unusable_file(exc: Exception, address: str, what: str) -> str | None:
    """A file or directory of MLflow's that the system refuses, such as where artifacts go."""
    for each in _chain(exc):
        if isinstance(each, OSError) and each.filename is not None and each.errno in _REFUSALS:
            why = f"{still_there(str(each.filename))}: {os.strerror(each.errno or 0)}"
            step = "see that this place can be written and has room; it is where MLflow keeps its files"
            return _sentence(address, what, redacted(why), step)
    return None


def _is_foreign(exc: Exception) -> bool:
    """Whether it comes from MLflow or from what MLflow uses."""
    rooms = ("mlflow", "requests", "urllib3", "sqlalchemy", "alembic", "sqlite3")
    if type(exc).__module__.partition(".")[0] in rooms:
        return True
    return isinstance(exc, (OSError, ImportError)) or _raised_in(exc, rooms)


def _raised_in(exc: BaseException, rooms: tuple[str, ...]) -> bool:
    """Whether it was raised in one of these packages, as MLflow raises ValueError about its own variables."""
    traceback = exc.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return False
    module = str(traceback.tb_frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in rooms


def _chain(exc: BaseException) -> list[BaseException]:
    """The error and those that it came from."""
    found: list[BaseException] = []
    current: BaseException | None = exc
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or current.__context__
    return found
