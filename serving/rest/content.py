"""Gives the content of a request: its body, inflated if need be."""

from __future__ import annotations

import zlib

from serving.rest.http_messages import Head
from serving.rest.off_loop import MAX_INLINE_BYTES

MAX_INFLATED_BYTES = 100 * 2**20


def is_large(head: Head, body: bytes) -> bool:
    """Whether the content is to be inflated and read off the event loop."""
    return len(body) > MAX_INLINE_BYTES or b"gzip" in head.encoding


def inflated(head: Head, body: bytes) -> bytes:
    """The content; nothing when it cannot be inflated, as in TensorFlow Serving."""
    if b"gzip" not in head.encoding:
        return body
    inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        content = inflate.decompress(body, MAX_INFLATED_BYTES + 1)
    except zlib.error:
        return b""
    complete = inflate.eof and not inflate.unused_data and len(content) <= MAX_INFLATED_BYTES
    return content if complete else b""
