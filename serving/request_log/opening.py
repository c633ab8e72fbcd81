"""Opens the request log that the settings of a server ask for."""

from __future__ import annotations

import os
from collections.abc import Callable

from serving.protocol.errors import InvalidRequest
from serving.request_log.columns import Columns, read_key
from serving.request_log.files import Limits, LogFiles
from serving.request_log.request_log import CountLogged, RequestLog
from serving.settings import ServerSettings


def open_request_log(
    settings: ServerSettings, rate_of: Callable[[str], float], count: CountLogged
) -> RequestLog | None:
    """
    The log, or None where the settings ask for none.

    Raises:
        InvalidRequest: A setting has a value that cannot be used.
        OSError: The directory cannot be written, or the key not read.
    """
    directory = settings.request_log_directory
    if directory is None:
        return None
    _check(settings)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(13, os.strerror(13), str(directory))
    key_file = settings.request_log_key_file
    columns = Columns(
        _names(settings.request_log_leave_out),
        _names(settings.request_log_hash),
        b"" if key_file is None else read_key(key_file),
    )
    limits = Limits(
        settings.request_log_file_bytes, settings.request_log_file_seconds, settings.request_log_total_bytes
    )
    return RequestLog(LogFiles(directory, limits), columns, rate_of, count)


def _check(settings: ServerSettings) -> None:
    if not 0 <= settings.request_log_sampling_rate <= 1:
        raise InvalidRequest("--request_log_sampling_rate must be from 0 to 1")
    if not 0 < settings.request_log_file_bytes <= settings.request_log_total_bytes:
        raise InvalidRequest("--request_log_file_bytes must be above 0 and at most --request_log_total_bytes")
    if settings.request_log_file_seconds <= 0:
        raise InvalidRequest("--request_log_file_seconds must be above 0")
    if settings.request_log_hash and settings.request_log_key_file is None:
        raise InvalidRequest("--request_log_hash needs a --request_log_key_file: without a key, values can be guessed")


def _names(text: str) -> frozenset[str]:
    return frozenset(filter(None, map(str.strip, text.split(","))))
