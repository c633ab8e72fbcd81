"""
What of a request is not kept: columns that are left out, and columns of which only a keyed hash is kept.

A column is an input or output of a signature, or a feature of a ``tf.Example``.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serving.protocol.errors import InvalidRequest
from serving.protocol.tensors import Array, as_bytes

MIN_KEY_BYTES = 16
HASH_BYTES = 16


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of columns that are not kept as they are."""

    left_out: frozenset[str] = frozenset()
    hashed: frozenset[str] = frozenset()
    key: bytes = b""

    def __bool__(self) -> bool:
        return bool(self.left_out or self.hashed)

    def kept(self, names: Sequence[str], arrays: Sequence[Array]) -> Iterator[tuple[str, Array]]:
        """The columns as they may be kept, by name."""
        for name, array in zip(names, arrays, strict=True):
            if name not in self.left_out:
                yield name, (self._hashed(array) if name in self.hashed else array)

    def redact_features(self, features: Mapping[str, Any]) -> None:
        """Leave out and hash in the ``feature`` of a ``tf.train.Features``."""
        for name in self.left_out & features.keys():
            del features[name]  # type: ignore[attr-defined]  # a map of protobuf's can
        for name in self.hashed & features.keys():
            feature = features[name]
            values = [*feature.bytes_list.value, *feature.float_list.value, *feature.int64_list.value]
            feature.bytes_list.value[:] = [hash_of(value, self.key) for value in values]

    def _hashed(self, array: Array) -> Array:
        hashes = np.empty(array.size, object)
        hashes[:] = [hash_of(value, self.key) for value in array.ravel().tolist()]
        return hashes.reshape(array.shape)


def hash_of(value: Any, key: bytes) -> bytes:
    """The HMAC-SHA256 of one value, cut to 32 hexadecimal digits; nothing for nothing."""
    content = as_bytes(value)
    if not content:
        return b""
    return hmac.digest(key, content, hashlib.sha256)[:HASH_BYTES].hex().encode()


def read_key(path: Path) -> bytes:
    """
    The key in a file, without the white space around it.

    Raises:
        InvalidRequest: It is too short to keep anything from being guessed.
        OSError: The file cannot be read.
    """
    key = path.read_bytes().strip()
    if len(key) < MIN_KEY_BYTES:
        raise InvalidRequest(f"{path} must hold a key of at least {MIN_KEY_BYTES} bytes: openssl rand -hex 32 > {path}")
    return key
