"""What was a real TensorFlow Serving asked, and what did it answer?"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"
MODELS = DATA / "models"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """
    One request and its recorded answer; ``data/README.md`` says what the levels and the marks mean.

    Each equals only itself: pytest puts tests with equal parameters next to each other, away from their server.
    """

    request: Mapping[str, Any]
    expect: Mapping[str, Any]
    id: str = ""
    group: str = ""
    server: str = ""
    level: str = "exact"
    float_tolerance: float = 0.0
    why_tolerance: str = ""
    nondeterministic: Sequence[str] = ()
    alternatives: Sequence[str] = ()
    loose: str = ""
    timeout: float = 20.0


def read_cases(protocol: str) -> list[Case]:
    """The recorded cases of ``rest`` or ``grpc``."""
    return [Case(**each) for each in _read_lines(f"{protocol}.jsonl")]


def read_scenarios() -> list[dict[str, Any]]:
    """The recorded scenarios, each with ``id`` and ``steps``."""
    return _read_lines("lifecycle.jsonl")


def read_setups() -> dict[str, dict[str, Any]]:
    """The ways to start a server that the cases name."""
    setups: dict[str, dict[str, Any]] = json.loads((DATA / "servers.json").read_text("utf-8"))
    return setups


def content(part: Mapping[str, Any], key: str = "body") -> bytes:
    """The bytes that a request or answer holds as text, as base64, or as one item many times."""
    if f"{key}_b64" in part:
        return base64.b64decode(part[f"{key}_b64"])
    if f"{key}_repeat" in part:
        repeat = part[f"{key}_repeat"]
        items = repeat["sep"].join([repeat["item"]] * repeat["count"])
        return f"{repeat['head']}{items}{repeat['tail']}".encode()
    text: str = part.get(key, "")
    return text.encode()


def _read_lines(name: str) -> list[dict[str, Any]]:
    with (DATA / name).open("rb") as lines:
        return [json.loads(line) for line in lines]
