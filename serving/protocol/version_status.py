"""Describes where a version is in its life on a server, for server and clients alike."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import grpc


class State(enum.IntEnum):
    """The states that a version goes through; the numbers are those of ``ModelVersionStatus.State``."""

    START = 10  # known, not yet begun
    LOADING = 20  # being loaded or warmed up, or waiting for the next try
    AVAILABLE = 30  # answering
    UNLOADING = 40  # no new requests; the last ones are being answered
    END = 50  # gone, or never came to be


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """The state of one version; `code` and `message` say why it could not be loaded."""

    version: int
    state: State
    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""
