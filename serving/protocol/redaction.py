"""
Removes secrets from texts before they are shown or kept.

Addresses carry passwords (``postgresql://user:password@host/db?sslpassword=…``), the errors of libraries quote
addresses, and secrets stand in environment variables. So texts are redacted where they leave a process rather than
where they are written: in log records, in errors, in what commands print, in the journal and in what MLflow and Prefect
are given.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from io import TextIOBase
from pathlib import Path
from typing import Any, BinaryIO, TextIO
from urllib.parse import quote, quote_plus, unquote, urlsplit

MASK = "***"
_WORDS = r"pass(?:word|wd|phrase)?|pwd|secret|token|api_?key|access_?key|private_?key|auth_?string|credentials?|sig"
_SECRET_NAME = re.compile(
    r"PASSWORD$|PASSWD$|_PWD$|(?:^|_)(?:PASS|PASSPHRASE|SECRET|SECRET_KEY|TOKEN|API_KEY|ACCESS_KEY(?:_ID)?|AUTH_STRING)$",
    re.IGNORECASE,
)
_USER_INFO = re.compile(r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]{0,30}://)(?P<user>[^\s/?#\"<>]{1,1000})@")
_NO_SECRET = r"(?!(?:true|false|none|null)\b)"
_PARAMETER = re.compile(
    rf"(?P<name>(?:^|[?&;\s'\"(])[\w.-]{{0,40}}(?:{_WORDS})=){_NO_SECRET}[^\s&;#'\"<>),]+", re.IGNORECASE
)
_AUTHORIZATION = re.compile(r"(?P<scheme>\b(?:Bearer|Basic) )[A-Za-z0-9._~+/=-]{8,}")
_PLAIN = re.compile(r"(?:[a-z0-9-]+\.)+[a-z0-9-]+|[a-z]{1,11}|\d{1,5}")
_SECRET_FILES = ("HOTSWAP_TOKEN_FILE", "HOTSWAP_ADMIN_TOKEN_FILE", "HOTSWAP_UI_PASSWORD_FILE")
_MIN_LENGTH = 6
"""shorter values of variables would blot out words that have nothing to do with them"""


def redacted(text: str) -> str:
    """`text` without the secrets of addresses and headers, and without those that this process's environment holds."""
    if "://" in text:
        text = _USER_INFO.sub(_without_password, text)
    if "=" in text:
        text = _PARAMETER.sub(rf"\g<name>{MASK}", text)
    text = _AUTHORIZATION.sub(rf"\g<scheme>{MASK}", text)
    for secret in sorted(set(_secrets()), key=len, reverse=True):
        if secret in text:
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", MASK, text)
    return text


def redacted_values(value: Any) -> Any:
    """What ``json`` can write, with every text in it redacted."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {key: redacted_values(each) for key, each in value.items()}
    return [redacted_values(each) for each in value] if isinstance(value, (list, tuple)) else value


def redact_error(exc: BaseException) -> None:
    """Leave the secrets out of an error and of those that it came from; who catches it may keep its text anywhere."""
    seen: list[BaseException] = []
    current: BaseException | None = exc
    while current is not None and current not in seen:
        seen.append(current)
        current.args = tuple(map(_redacted_part, current.args))
        if isinstance(current, OSError):
            current.filename = _redacted_part(current.filename)
            current.strerror = _redacted_part(current.strerror)
        current = current.__cause__ or current.__context__


def _redacted_part(part: Any) -> Any:
    """The part as it is, or its text where that has a secret in it."""
    text = str(part)
    return part if (shown := redacted(text)) == text else shown


def redact_logs() -> None:
    """From now on no log record of this process carries a secret, nor does its traceback."""
    logging.setLogRecordFactory(_record)


@contextmanager
def redacted_output() -> Iterator[None]:
    """What the block prints carries no secret."""
    with redirect_stdout(_Redacting(sys.stdout)), redirect_stderr(_Redacting(sys.stderr)):
        yield


class _Redacting(TextIOBase):
    """A text stream that redacts what is written, and is the stream below it in all else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redacted(text))
        return len(text)

    def flush(self) -> None:
        if not self._stream.closed:
            self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute there
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors

    @property
    def buffer(self) -> BinaryIO:
        return self._stream.buffer


def _record(*arguments: Any, **named: Any) -> logging.LogRecord:
    record = logging.LogRecord(*arguments, **named)
    try:
        message = record.getMessage()
    except (TypeError, ValueError):  # the handler reports whose message and arguments do not fit
        return record
    if (shown := redacted(message)) != message:
        record.msg, record.args = shown, ()
    if record.exc_info and record.exc_info[1] is not None:
        record.exc_text = redacted(logging.Formatter().formatException(record.exc_info))
    return record


def _without_password(found: re.Match[str]) -> str:
    """A user stays visible beside a password; alone it may be a token, as in ``https://TOKEN@host``."""
    user, colon, _ = found["user"].partition(":")
    return f"{found['scheme']}{user}:{MASK}@" if colon else f"{found['scheme']}{MASK}@"


def _secrets() -> Iterator[str]:
    for name, value in os.environ.items():
        for secret in _secrets_of(name, value):
            plain = unquote(secret)
            for spelling in (secret, plain, quote(plain, safe=""), quote_plus(plain)):
                if len(spelling) >= _MIN_LENGTH:
                    yield spelling


def _secrets_of(name: str, value: str) -> Iterator[str]:
    if name == "HOTSWAP_NOTIFY":
        for address in re.split(r"[\s,]+", value):
            yield from _secrets_of_receiver(address)
    elif "://" in value:
        for address in value.replace(",", " ").split():
            yield from _secrets_in(address)
    elif name in _SECRET_FILES:
        with suppress(OSError, UnicodeDecodeError):
            yield from map(str.strip, Path(value).read_text("utf-8").splitlines())
    elif _SECRET_NAME.search(name):
        yield value
        yield from value.split(":", 1)[1:]  # USER:PASSWORD, as in PREFECT_API_AUTH_STRING


def _secrets_of_receiver(address: str) -> Iterator[str]:
    """An address of Apprise has its tokens anywhere: all of it is secret but names of hosts and plain short words."""
    yield from _secrets_in(address)
    content = address.partition("://")[2]
    yield from (address, content)
    yield from (part for part in re.split(r"[/@:?&=+]", content) if not _PLAIN.fullmatch(part))
    with suppress(ValueError):
        host = urlsplit(address).hostname or ""
        yield "" if "." in host or host == "localhost" else host


def _secrets_in(address: str) -> Iterator[str]:
    with suppress(ValueError):
        parts = urlsplit(address)
        yield parts.password or ""
        yield from (found.group().partition("=")[2] for found in _PARAMETER.finditer(f"?{parts.query}"))
