"""Chooses which of the versions on disk should be served."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Latest:
    """The highest `count` versions; a count of zero means one, as in TensorFlow Serving."""

    count: int = 1


@dataclass(frozen=True, slots=True)
class All:
    """Every version on disk."""


@dataclass(frozen=True, slots=True)
class Specific:
    """These versions, as far as they are on disk; none unloads the model."""

    versions: tuple[int, ...]


VersionPolicy = Latest | All | Specific


def aspired_versions(on_disk: Iterable[int], policy: VersionPolicy) -> tuple[int, ...]:
    """The versions of `on_disk` that `policy` wants served, lowest first."""
    present = sorted(set(on_disk))
    if isinstance(policy, All):
        return tuple(present)
    if isinstance(policy, Specific):
        return tuple(version for version in present if version in policy.versions)
    return tuple(present[-max(policy.count, 1) :])


def parse_version(name: str) -> int | None:
    """
    The version that a directory name stands for, or None.

    As TensorFlow Serving reads it: leading zeros, one sign and surrounding white space are allowed, nothing beyond
    int64 is.
    """
    text = name.strip(" \t\n\v\f\r")
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdecimal()):
        return None
    version = int(text)
    return version if -INT64_MAX - 1 <= version <= INT64_MAX else None
