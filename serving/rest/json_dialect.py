"""
Reads and writes JSON as TensorFlow Serving does.

Its parser is RapidJSON: the first of two equal keys wins, what follows the document is ignored, ``NaN`` and
``Infinity`` are numbers, and invalid UTF-8 passes. orjson reads what both read alike, python-rapidjson the rest.
Strings are ``str`` with ``surrogateescape``, so that every byte survives.

Source: RapidJSON 1.1.0 (reader.h, prettywriter.h), tensorflow_serving/util/json_tensor.cc
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import orjson
import rapidjson

from serving.protocol.errors import InvalidRequest

MAX_DUMP_LENGTH = 256
DEEPEST = 20_000
_PIECE_CHARACTERS = 2**16
_INDENT = "    "
_BOM = b"\xef\xbb\xbf"
_WHITE_SPACE = b" \t\r\n"
_NO_VALUE_STARTS_WITH = b"}],:\0"
_TRAILING = "The document root must not be followed by other values."
_TOO_BIG = "Number too big to be stored in double."
_MAX_EXPONENT = 308
_STRING_OR_NUMBER = re.compile(
    rb'"(?:[^"\\]|\\.)*"|-?\d{1,17}(?:\.(?P<fraction>\d{1,17}))?[eE]\+?(?P<exponent>\d{1,4})(?!\d)', re.DOTALL
)
# While python-rapidjson reads a text, private code points replace what it would refuse.
_BYTES = 0x10FF00  # + a byte that is not UTF-8
_SURROGATES = 0x10F800  # + what a low surrogate is above U+DC00, where it comes alone
_STAND_INS = {
    **{_BYTES + byte: chr(0xDC00 + byte) for byte in range(0x80, 0x100)},
    **{
        _SURROGATES + low: "".join(chr(0xDC00 + byte) for byte in chr(0xDC00 + low).encode("utf-8", "surrogatepass"))
        for low in range(0x400)
    },
}
_HIGH, _LOW = r"\\u[dD][89abAB][0-9a-fA-F]{2}", r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPED_STAND_IN = rf"\\u[dD][bB][fF][eEfF]{_LOW}"
_ESCAPES = re.compile(rf"(?P<taken>{_ESCAPED_STAND_IN})|{_HIGH}{_LOW}|(?P<alone>{_LOW})|\\.", re.DOTALL)
_TAKEN = re.compile(f"[{chr(_SURROGATES)}-{chr(sys.maxunicode)}]")
"""The characters that replace others; where a text has them itself, their bytes are replaced."""
_ESCAPED = re.compile('["\\\\\x00-\x1f]')
_SHORT_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}


class Object(dict[str, Any]):
    """A JSON object with a repeated key; its first value counts, `pairs` has them all."""

    pairs: list[tuple[str, Any]]


def parse(body: bytes, fast_numbers: bool = True) -> Any:
    """
    The value in a request's body.

    Args:
        body: UTF-8, or nearly so.
        fast_numbers: Round decimals correctly. RapidJSON as TensorFlow Serving uses it may miss a double by its last
            bits, the more digits the more.

    Raises:
        InvalidRequest: It is no JSON; with RapidJSON's text and offset.
    """
    if not fast_numbers:
        return _parse_slowly(body)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _parse_slowly(body)
    # orjson keeps the last of two equal keys. Each key has a colon; a colon too many is in a string or a repeated key.
    colons = body.count(b":")
    if colons and (not isinstance(value, dict) or colons != len(value)) and colons != _keys(value):
        return _parse_slowly(body)
    return value


def members(value: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    """Every key and value of an object in order, repeated keys included."""
    return value.pairs if isinstance(value, Object) else value.items()


def type_name(value: Any) -> str:
    """RapidJSON's name for the kind of a value."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, (int, float)):
        return "Number"
    return "String" if isinstance(value, str) else "Array" if isinstance(value, list) else "Object"


def dump(value: Any) -> str:
    """A value as errors show it: laid out, and cut off after 256 bytes or before a number that is not finite."""
    text = b""
    for token in _tokens(value, 0):
        if token is None or len(text) >= MAX_DUMP_LENGTH:
            break
        text += token.encode("utf-8", "surrogateescape")
    return text.decode("utf-8", "surrogateescape")


def quoted(text: str) -> str:
    """A string with its quotation marks and escapes."""
    if len(text) <= _PIECE_CHARACTERS:
        return f'"{_ESCAPED.sub(_escape, text)}"'
    # Between the pieces other threads may run.
    pieces = [
        _ESCAPED.sub(_escape, text[start : start + _PIECE_CHARACTERS])
        for start in range(0, len(text), _PIECE_CHARACTERS)
    ]
    return f'"{"".join(pieces)}"'


def array(items: list[str], level: int, single_line: bool) -> str:
    """An array of values that are laid out already; `level` is the depth at which it stands."""
    if not items:
        return "[]"
    if single_line:
        return f"[{', '.join(items)}]"
    inner = "\n" + _INDENT * (level + 1)
    return f"[{inner}{(',' + inner).join(items)}\n{_INDENT * level}]"


def mapping(items: dict[str, str], level: int) -> str:
    """An object of values that are laid out already."""
    inner = "\n" + _INDENT * (level + 1)
    listed = ("," + inner).join(f"{quoted(key)}: {value}" for key, value in items.items())
    return f"{{{inner}{listed}\n{_INDENT * level}}}"


def double_text(value: float) -> str:
    """The shortest text for a double that is finite, as RapidJSON lays it out."""
    sign, listed, exponent = Decimal(repr(value)).normalize().as_tuple()
    minus = "-" if sign else ""
    if not value:
        return f"{minus}0.0"
    assert isinstance(exponent, int)
    digits = "".join(map(str, listed))
    point = len(digits) + exponent
    if exponent >= 0 and point <= 21:
        return f"{minus}{digits}{'0' * exponent}.0"
    if 0 < point <= 21:
        return f"{minus}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{minus}0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{minus}{digits[0]}{fraction}e{point - 1}"


def _escape(match: re.Match[str]) -> str:
    return _SHORT_ESCAPES.get(match[0], f"\\u{ord(match[0]):04X}")


def _tokens(value: Any, level: int, before: str = "") -> Iterator[str | None]:
    """What is written in one go; None for a number that cannot be written."""
    if isinstance(value, dict):
        yield f"{before}{{"
        comma = ""
        for key, each in members(value):
            yield f"{comma}\n{_INDENT * (level + 1)}{quoted(key)}"
            yield from _tokens(each, level + 1, ": ")
            comma = ","
        yield f"\n{_INDENT * level}}}" if value else "}"
    elif isinstance(value, list):
        yield f"{before}["
        for position, each in enumerate(value):
            yield from _tokens(each, level + 1, ", " if position else "")
        yield "]"
    else:
        scalar = _scalar(value)
        yield before if scalar is None else before + scalar
        if scalar is None:
            yield None


def _scalar(value: Any) -> str | None:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, float):
        return double_text(value) if math.isfinite(value) else None
    return "null" if value is None else str(value).lower()


def _keys(value: Any) -> int:
    """How many keys there are in a value at all depths."""
    count = 0
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            count += len(each)
            pending.extend(each.values())
        elif isinstance(each, list) and each and isinstance(each[0], (dict, list)):
            pending.extend(each)
        elif isinstance(each, list):
            pending.extend(item for item in each if isinstance(item, (dict, list)))
    return count


class _Decoder(rapidjson.Decoder):
    def start_object(self) -> list[tuple[str, Any]]:
        return []

    def end_object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        last = dict(pairs)
        if len(last) == len(pairs):
            return last
        found = Object(last)
        found.update(reversed(pairs))
        found.pairs = pairs
        return found


class _RestoringDecoder(_Decoder):
    def string(self, text: str) -> str:
        return text.translate(_STAND_INS).encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")

    def end_object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return super().end_object([(self.string(key), value) for key, value in pairs])


_NUMBERS = rapidjson.NM_NATIVE | rapidjson.NM_NAN
_decode = _Decoder(number_mode=_NUMBERS)
_decode_and_restore = _RestoringDecoder(number_mode=_NUMBERS)


def _parse_slowly(body: bytes) -> Any:
    if not body:
        raise InvalidRequest("JSON Parse error: The document is empty")
    start = len(_BOM) if body.startswith(_BOM) else 0
    value = body[start:].lstrip(_WHITE_SPACE)
    if not value or value[0] in _NO_VALUE_STARTS_WITH:
        raise _parse_error("The document is empty.", len(body) - len(value))
    text, decode = _readable(body[start:])
    try:
        with _deep_recursion():
            return _decode_first(decode, text)
    except RecursionError as exc:
        raise InvalidRequest(f"JSON Parse error: nested more than {DEEPEST} levels deep") from exc
    except rapidjson.JSONDecodeError as exc:
        reason, offset = _reason(exc)
        reason = reason.replace("Invalid encoding in string.", "Invalid escape character in string.")
        raise _parse_error(reason, start + _original_offset(text, offset)) from exc


@contextmanager
def _deep_recursion() -> Iterator[None]:
    """python-rapidjson goes as deep as Python may."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, DEEPEST))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _decode_first(decode: _Decoder, text: bytes) -> Any:
    """The first value in a text, whatever follows it."""
    try:
        return decode(text)
    except rapidjson.JSONDecodeError as exc:
        reason, offset = _reason(exc)
        if reason == _TRAILING:
            return decode(text[:offset])
        understood = _STRING_OR_NUMBER.sub(_infinity, text) if reason == _TOO_BIG else text
        if understood == text:
            raise
        return _decode_first(decode, understood)


def _infinity(match: re.Match[bytes]) -> bytes:
    """
    The replacement for a number: itself, or an infinity of the same length.

    TensorFlow Serving's RapidJSON, unlike python-rapidjson's, refuses an exponent that is too big, not the number.
    """
    number = match[0]
    if match["exponent"] is None or int(match["exponent"]) > _MAX_EXPONENT + len(match["fraction"] or b""):
        return number
    infinities = {math.inf: b"Inf", -math.inf: b"-Inf"}
    return infinities.get(float(number), number).ljust(len(number))


def _reason(exc: Exception) -> tuple[str, int]:
    found = re.fullmatch(r"Parse error at offset (\d+): (.*)", str(exc))
    assert found is not None
    return found[2], int(found[1])


def _parse_error(reason: str, offset: int) -> InvalidRequest:
    return InvalidRequest(f"JSON Parse error: {reason} at offset: {offset}")


def _readable(body: bytes) -> tuple[bytes, _Decoder]:
    """The text with stand-ins for what python-rapidjson refuses, and the decoder that puts it back."""
    text = body.decode("utf-8", "surrogateescape")
    readable = text if text.isascii() else _TAKEN.sub(lambda match: _as_bytes(match[0]), text)
    if "\\u" in text:
        readable = _ESCAPES.sub(_stand_in, readable)
    if not readable.isascii():
        readable = "".join(
            chr(ord(each) - 0xDC00 + _BYTES) if "\udc80" <= each <= "\udcff" else each for each in readable
        )
    return readable.encode(), _decode if readable == text else _decode_and_restore


def _stand_in(match: re.Match[str]) -> str:
    alone = match["alone"]
    if match["taken"]:
        return _as_bytes(orjson.loads(f'"{match[0]}"'))
    return chr(_SURROGATES + int(alone[2:], 16) - 0xDC00) if alone else match[0]


def _as_bytes(character: str) -> str:
    """The character's UTF-8, as if each byte of it were none."""
    return character.encode().decode("ascii", "surrogateescape")


def _original_offset(text: bytes, offset: int) -> int:
    """Where an offset in a readable text was in the body."""
    before = text[:offset].decode("utf-8", "ignore")
    replaced_bytes = sum(ord(each) >= _BYTES for each in before)
    replaced_surrogates = sum(_SURROGATES <= ord(each) < _BYTES for each in before)
    return offset - 3 * replaced_bytes + 2 * replaced_surrogates
