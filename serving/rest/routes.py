"""
Reads what the target of a request asks for.

Source: tensorflow_serving/model_servers/http_rest_api_handler.cc; RFC 3986 for what a target may be
"""

from __future__ import annotations

import re
import weakref
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from serving.protocol.model_spec import ModelSpec
from serving.repository.version_policy import INT64_MAX
from serving.runtime.call import Call

_VERBS = ("predict", "classify", "regress")
_VERSION = r"(?:(?:/versions/(?P<version>\d+))|(?:/labels/(?P<label>[^/:]+)))?"
_INFERENCE = re.compile(rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<verb>classify|regress|predict)", re.I | re.A)
_INFORMATION = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<metadata>metadata))?", re.I | re.A)
_PATTERNS = {"POST": _INFERENCE, "GET": _INFORMATION}
_V1 = re.compile(r"/v1/.*", re.I | re.S)
_CHARACTERS = r"[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9a-fA-F]{2}"
_AFTER_PATH = rf"(?:{_CHARACTERS}|[/?])*+"
_TARGET = re.compile(
    rf"(?:(?:[A-Za-z][A-Za-z0-9+.-]*+:)?//(?:{_CHARACTERS}|[\[\]])*+)?"
    rf"(?P<target>(?P<path>(?:{_CHARACTERS}|/)*+)(?:\?{_AFTER_PATH})?(?:#{_AFTER_PATH})?)"
)


@dataclass(slots=True)
class Route:
    """What a path below ``/v1/`` asks for; `refusal` says why there is no `spec`."""

    spec: ModelSpec | None = None
    verb: str = ""
    with_metadata: bool = False
    refusal: str = ""
    is_version_too_big: bool = False
    """beyond int64, which TensorFlow Serving answers with an empty body"""
    name: str = field(init=False)
    """of the model, for the metrics"""
    rows_call: tuple[int, weakref.ref[Call]] | None = None
    """what the last predict by rows was bound to, if all it takes is one float32, and after how many changes"""

    def __post_init__(self) -> None:
        self.name = self.spec.name if self.spec else ""


def split_target(target: bytes) -> tuple[str, str] | None:
    """Path with query and fragment, and path alone; None for what is no target."""
    match = _TARGET.fullmatch(target.decode("latin-1"))
    return None if match is None else (match["target"], match["path"])


def is_v1(target: str) -> bool:
    """Whether it is one of TensorFlow Serving's own."""
    return _V1.fullmatch(target) is not None


def route_of(method: str, target: str) -> Route:
    """What a request to a target below ``/v1/`` asks for."""
    pattern = _PATTERNS.get(method)
    match = pattern.fullmatch(target) if pattern else None
    if match is None:
        return Route(refusal=f"Malformed request: {method} {target}")
    version = int(match["version"]) if match["version"] is not None else None
    if version is not None and version > INT64_MAX:
        return Route(is_version_too_big=True)
    verb = match["verb"] if method == "POST" else ""
    if verb and verb not in _VERBS:
        return Route(refusal=f"Malformed request: {method} {target}")
    if match["name"] is None:
        return Route(refusal="Missing model name in request.")
    label = None if match["label"] is None else _unquote(match["label"])
    spec = ModelSpec(_unquote(match["name"]), version, label)
    return Route(spec, verb, method == "GET" and match["metadata"] == "metadata")


def _unquote(text: str) -> str:
    return unquote_to_bytes(text).decode("utf-8", "surrogateescape")
