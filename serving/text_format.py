"""
What does a message in protobuf's text format say?

Small configuration files are read here without their message classes: some of those are in no package that can be
installed, and the command line has no time to import the others.

Source: https://protobuf.dev/reference/protobuf/textformat-spec/
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from serving.errors import InvalidRequest

_TOKEN = re.compile(r"""[ \t\r\n]+|\#[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|[A-Za-z0-9_.+-]+|[:{}<>\[\],;]""")
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|[xX]([0-9A-Fa-f]{1,2})|(.))", re.DOTALL)
_SIMPLE_ESCAPES = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}

Value = str | bytes | dict[str, list["Value"]]
Message = dict[str, list[Value]]


def parse_message(text: str) -> Message:
    """
    The fields of a message, each with all its values: strings as bytes, messages as dictionaries, the rest as written.

    Raises:
        InvalidRequest: The text is not in the text format.
    """
    return _Parser(text).message(end="")


def scalar(message: Message, name: str, default: str) -> str:
    """A number, boolean or string in a message, written plainly or wrapped in a message with a ``value``."""
    value = message.get(name, [default])[-1]
    if isinstance(value, dict):
        return scalar(value, "value", default)
    return value.decode() if isinstance(value, bytes) else value


class _Parser:
    """Reads protobuf's text format into nested dictionaries of lists; strings are bytes, other scalars text."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._next = 0

    def message(self, end: str) -> Message:
        fields: Message = {}
        while (token := self._take()) != end:
            if not re.fullmatch(r"[A-Za-z_]\w*", token, re.ASCII):
                raise InvalidRequest(f"expected a field name, found {token!r}")
            fields.setdefault(token, []).extend(self._values())
            if self._peek() in (",", ";"):
                self._take()
        return fields

    def _values(self) -> list[Value]:
        colon = self._peek() == ":" and bool(self._take())
        if self._peek() != "[":
            return [self._value(colon)]
        self._take()
        values: list[Value] = []
        while self._peek() != "]":
            values.append(self._value(colon))
            if self._peek() != "]" and self._take() != ",":
                raise InvalidRequest("expected , or ] in a list")
        self._take()
        return values

    def _value(self, colon: bool) -> Value:
        token = self._take()
        if token in ("{", "<"):
            return self.message(end="}" if token == "{" else ">")
        if not colon or token in ("", "}", ">", "]", ":", ",", ";"):
            raise InvalidRequest(f"expected a value, found {token!r}")
        if token[0] not in "\"'":
            return token
        text = _unquote(token)
        while self._peek()[:1] in ('"', "'") and self._peek():
            text += _unquote(self._take())
        return text

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._next += 1
        return token


def _tokens(text: str) -> Iterator[str]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            line = text.count("\n", 0, position) + 1
            raise InvalidRequest(f"unexpected character {text[position]!r} on line {line}")
        position = match.end()
        if match.group()[0] not in " \t\r\n#":
            yield match.group()


def _unquote(token: str) -> bytes:
    def replace(match: re.Match[bytes]) -> bytes:
        octal, hexadecimal, simple = match.groups()
        if octal is not None:
            return bytes([int(octal, 8) & 0xFF])
        if hexadecimal is not None:
            return bytes([int(hexadecimal, 16)])
        return _SIMPLE_ESCAPES.get(simple, simple)

    return _ESCAPE.sub(replace, token[1:-1].encode("utf-8", "surrogateescape"))
