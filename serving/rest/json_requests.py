"""
How is a JSON request read: which signature, and which values?

A small one is read where it is. A huge one would keep Python from doing anything else, and leave the process with the
memory it took: it is read in a process of its own, which ends with it.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import numpy as np
import orjson

from serving.protocol.errors import Exhausted, InvalidRequest
from serving.protocol.signature import DEFAULT_SIGNATURE, Signature
from serving.protocol.tensors import Array
from serving.rest.json_dialect import dump, parse
from serving.rest.json_tensors import read_inputs

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_INLINE_PARSE_BYTES = 8 * 2**20


def read_body(content: bytes) -> tuple[dict[str, Any], str]:
    """
    The JSON object in a request, and the name of the signature in it.

    Raises:
        InvalidRequest: There is no object, or the name is none.
    """
    body = parse(content)
    if not isinstance(body, dict):
        raise InvalidRequest(f"JSON Value: {dump(body)} Is not object")
    signature_name = body.get("signature_name", "")
    if not isinstance(signature_name, str):
        raise InvalidRequest(
            f"JSON Value: {dump(body)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return body, signature_name


def read_plain_rows(content: bytes) -> Array | None:
    """
    The values of a predict in row form that has nothing but lists of decimals; None for one that must be looked at.

    Args:
        content: The request as it came.

    Returns:
        float32 of any shape, as `read_predict` gives it for an input of that type.
    """
    if content.count(b":") != 1 or b"true" in content or b"false" in content:
        return None
    try:
        rows = np.array(orjson.loads(content)["instances"])
    except (ValueError, TypeError, KeyError):
        return None
    return rows.astype(np.float32) if rows.dtype.kind == "f" and rows.ndim and rows.size else None


def read_predict(
    content: bytes, body: dict[str, Any], signature: Signature, has_doubles: bool
) -> tuple[dict[str, Array], bool]:
    """
    The arrays of a predict, and whether it is in row form.

    Args:
        content: The request as it came.
        body: The object in it.
        signature: What it asks for.
        has_doubles: Whether numbers are to be read to the last bit as TensorFlow Serving reads them.

    Raises:
        InvalidRequest: A value cannot be read as the type of its input.
        Unsupported: The type of an input cannot come from JSON.
    """
    if has_doubles:
        body = parse(content, fast_numbers=False)
    return read_inputs(body, signature, has_bools=b"true" in content or b"false" in content)


def read_huge_predict(
    content: bytes, signatures: Mapping[str, Signature], double_signatures: Collection[str]
) -> tuple[str, dict[str, Array], bool]:
    """The name of the signature of a predict, its arrays (none if the signature is unknown), and if it is by rows."""
    return _in_a_process(_read_predict, content, signatures, double_signatures)


def read_huge_examples(content: bytes) -> tuple[str, bytes]:
    """The name of the signature of a classify or regress, and its ``tensorflow.serving.Input`` in bytes."""
    return _in_a_process(_read_examples, content)


def _read_predict(
    content: bytes, signatures: Mapping[str, Signature], double_signatures: Collection[str]
) -> tuple[str, dict[str, Array], bool]:
    body, name = read_body(content)
    signature = signatures.get(name or DEFAULT_SIGNATURE)
    if signature is None:
        return name, {}, False
    return name, *read_predict(content, body, signature, signature.name in double_signatures)


def _read_examples(content: bytes) -> tuple[str, bytes]:
    from serving.runtime import tensorflow_import

    tensorflow_import.prepare()
    from serving.rest.json_examples import read_examples

    body, name = read_body(content)
    return name, read_examples(body).SerializeToString()


def _in_a_process(function: Callable[..., T], *arguments: object) -> T:
    try:
        return _in_a_new_process(function, *arguments)
    except OSError as exc:
        log.warning("a huge request is read in a thread, as no process can be had: %s", exc)
        return function(*arguments)


def _in_a_new_process(function: Callable[..., T], *arguments: object) -> T:
    context = multiprocessing.get_context("spawn")
    # Ctrl-C reaches all processes of a terminal; the server decides what becomes of the requests it has.
    with ProcessPoolExecutor(1, context, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as exc:
            raise Exhausted("Reading the request took more memory than there is. Send fewer rows at a time.") from exc
