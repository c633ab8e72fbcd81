"""JSON is read and written as TensorFlow Serving reads and writes it."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from serving.protocol.errors import InvalidRequest
from serving.rest.json_dialect import DEEPEST, MAX_DUMP_LENGTH, double_text, dump, parse, quoted
from serving.rest.json_inputs import decode_base64
from serving.rest.json_outputs import float_texts, write_few_rows, write_rows

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.integers(-(10**9), 10**9).map(lambda number: number / 8)
    | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_plain_json_is_read_as_it_is(value: Any) -> None:
    """
    What every JSON parser reads alike is read alike here, numbers as integers or floats as they were written.

    The floats are short, as RapidJSON may miss the last bit of long ones.
    """
    text = json.dumps(value).encode()
    assert repr(parse(text)) == repr(json.loads(text))


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": 1, "a": 2}', {"a": 1}),
        (b'{"a": {"b": 1, "b": 2}, "c": ":"}', {"a": {"b": 1}, "c": ":"}),
        (b'{"a": 1} and more', {"a": 1}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b"[Infinity, -Inf]", [math.inf, -math.inf]),
        (b"[18446744073709551616]", [2.0**64]),
        (b'[2e308, -1.0e309, "2e308"]', [math.inf, -math.inf, "2e308"]),
        (b'["\\udc00"]', ["\udced\udcb0\udc80"]),
        (b'["a\xff"]', ["a\udcff"]),
        (b'["\\\\udc00"]', ["\\udc00"]),
        (b'["\\ud83d\\ude00\xff"]', ["\U0001f600\udcff"]),
    ],
)
def test_the_dialect_is_rapidjsons(body: bytes, value: Any) -> None:
    """Repeated keys, trailing text, odd numbers and bytes that are no UTF-8 are read as RapidJSON reads them."""
    assert parse(body) == value


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The document is empty"),
        (b"  ", "The document is empty. at offset: 2"),
        (b"}", "The document is empty. at offset: 0"),
        (b"{", "Missing a name for object member. at offset: 1"),
        (b'{"x": [1,]}', "Invalid value. at offset: 9"),
        (b'["\xff\xff", 1 2]', "Missing a comma or ']' after an array element. at offset: 9"),
        (b'["\xff\xf4\x8f\xa0\x80", 1 2]', "Missing a comma or ']' after an array element. at offset: 12"),
        (b'["\\udc00", 1 2]', "Missing a comma or ']' after an array element. at offset: 13"),
        (b'["a\x01"]', "Invalid escape character in string. at offset: 3"),
        (b"[2e308, 1e309]", "Number too big to be stored in double. at offset: 8"),
        (b'[2e308, "2e308]', "Missing a closing quotation mark in string. at offset: 15"),
        (b'["\\ud800"]', "The surrogate pair in string is invalid. at offset: 2"),
        (b"[" * 5000, "Invalid value. at offset: 5000"),
        (b"[" * (DEEPEST + 1), f"nested more than {DEEPEST} levels deep"),
    ],
)
def test_what_is_no_json_is_refused_where_it_ends(body: bytes, message: str) -> None:
    """The error says what is missing and at which byte of the body."""
    with pytest.raises(InvalidRequest) as caught:
        parse(body)
    assert caught.value.message == f"JSON Parse error: {message}"


@given(st.binary(max_size=40))
def test_no_body_breaks_the_parser(body: bytes) -> None:
    """Any bytes are either a value or an InvalidRequest."""
    with suppress(InvalidRequest):
        parse(body)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_doubles_in_errors_read_back_the_same(value: float) -> None:
    """The text of a double is exact, whatever its size."""
    assert float(double_text(value)) == value


def test_a_dump_is_cut_off() -> None:
    """An error never carries a whole request: nothing new is written after 256 bytes."""
    assert dump([0] * 1000) == "[" + ", ".join(["0"] * 86)
    assert len(dump([0] * 1000)) == MAX_DUMP_LENGTH + 1
    assert dump({"k" * 245: 1, "b": 2}) == f'{{\n    "{"k" * 245}": 1'
    assert dump({"a": [1, math.nan, 2]}) == '{\n    "a": [1, '


@given(npst.arrays(np.float32, st.integers(0, 60), elements=st.floats(width=32)))
def test_floats_read_back_the_same(array: Any) -> None:
    """Every float32 that is not denormal survives the way through its text, and always looks like a float."""
    texts = float_texts(array)
    expected = np.where(np.abs(array) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), array), array)
    back = np.array([float(text) for text in texts], np.float32)
    np.testing.assert_array_equal(back, expected)
    assert all("." in text or "e" in text or text.endswith(("NaN", "Infinity")) for text in texts)


@pytest.mark.parametrize(
    ("value", "text"),
    [(9e6, "9e+06"), (16777216.0, "16777216.0"), (1 / 3, "0.333333343"), (-0.0, "-0.0"), (1e-40, "0.0"), (1.0, "1.0")],
)
def test_floats_look_as_tensorflow_serving_writes_them(value: float, text: str) -> None:
    """``%g``, or ``%.9g`` where that would lose something; ``.0`` where it would look like an integer."""
    assert float_texts(np.array([value], np.float32)) == [text]


def test_many_floats_look_as_each_alone() -> None:
    """What is written at once differs in nothing, next to powers of ten and where six digits just are enough or not."""
    random = np.random.default_rng(7)
    exponents = np.arange(-8, 9)
    decimals = np.outer(random.integers(1, 10**6, 100), 10.0**exponents).ravel().astype(np.float32)
    powers = (10.0**exponents).astype(np.float32)
    around = [np.nextafter(near, np.float32(to)) for near in (decimals, powers) for to in (-np.inf, np.inf)]
    any_bits = random.integers(0, 2**32, 10_000, dtype=np.uint32).view(np.float32)
    floats = np.concatenate([decimals, powers, *around, any_bits])
    assert float_texts(floats) == [text for each in floats for text in float_texts(each)]


@given(npst.arrays(np.float32, npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)))
def test_few_rows_look_as_others(array: Any) -> None:
    """They are laid out in one go, and differ in nothing."""
    few = write_few_rows(array)
    assert few is None or few == write_rows({"y": array})
    assert (few is None) == (array.ndim == 0 or not 0 < array.size <= 32)


@given(st.binary())
@example(b"\x80\xf4\x8f\xa0\x80")
@example(b"\x80\xf4\x8f\xbf\xbf")
def test_strings_survive_their_escapes(content: bytes) -> None:
    """What is quoted reads back byte for byte."""
    body = quoted(content.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    assert parse(body).encode("utf-8", "surrogateescape") == content


@pytest.mark.parametrize(
    "written", ["\U0010f800\U0010fc00\U0010ff80\U0010ffff", "\\udbfe\\udc00\\udbff\\udc00\\udbff\\udf80\\uDBFF\\uDFFF"]
)
@pytest.mark.parametrize("harm", [b"", b"\xff", b"\\udc00"])
def test_every_character_is_itself(written: str, harm: bytes) -> None:
    """Characters of the highest plane come back, also beside what is no UTF-8 or no character, as key and as value."""
    content = written.encode() + harm
    ((key, value),) = parse(b'{"%b": "%b"}' % (content, content)).items()
    assert key == value
    harmed = harm.replace(b"\\udc00", b"\xed\xb0\x80").decode("utf-8", "surrogateescape")
    assert value == "\U0010f800\U0010fc00\U0010ff80\U0010ffff" + harmed


def test_long_strings_survive_their_escapes() -> None:
    """Wherever in the text the escapes stand, every character comes back once."""
    text = 'a"b\\\n\x01é' * 30_000
    assert parse(quoted(text).encode()) == text


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("aGk=", b"hi"),
        ("aGk", b"hi"),
        ("aGk.", b"hi"),
        ("aG k=\n", b"hi"),
        ("YR==", b"a"),
        ("aGk==", None),
        ("a", None),
        ("-_", None),
    ],
)
def test_base64_may_lack_padding_but_not_sense(text: str, content: bytes | None) -> None:
    """White space is ignored and padding may be left out; wrong padding and the URL alphabet are refused."""
    if content is None:
        with pytest.raises(InvalidRequest, match="Unable to base64 decode"):
            decode_base64(text)
    else:
        assert decode_base64(text) == content
