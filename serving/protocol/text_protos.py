"""Reads configuration files in protobuf's text format."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from serving.protocol.errors import InvalidRequest

M = TypeVar("M", bound=Message)


def read_text_proto(path: Path, message: M) -> M:
    """
    Fill a message with what a file says; a file of comments alone leaves it empty.

    Raises:
        InvalidRequest: The file has no bytes, or says something else.
        OSError: It cannot be read.
    """
    try:
        text = path.read_text()
        if not text:
            raise InvalidRequest(f"{path}; Invalid argument")
        return text_format.Parse(text, message)
    except (text_format.ParseError, UnicodeDecodeError) as exc:
        raise InvalidRequest(f"Invalid protobuf file: '{path}': {exc}") from exc
