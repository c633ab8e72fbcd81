"""
Is this the answer that was recorded?

Every function returns where an answer differs from the recorded one, or nothing. `strict` asks for the same bytes,
except where two runs of the real server differ.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, MutableSequence
from itertools import pairwise
from typing import Any

import numpy as np
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from tests.conformance.cases import Case, content
from tests.conformance.client import GrpcAnswer, RestAnswer

RESPONSES: Mapping[str, type[Message]] = {
    "tensorflow.serving.PredictionService/Predict": predict_pb2.PredictResponse,
    "tensorflow.serving.PredictionService/Classify": classification_pb2.ClassificationResponse,
    "tensorflow.serving.PredictionService/Regress": regression_pb2.RegressionResponse,
    "tensorflow.serving.PredictionService/MultiInference": inference_pb2.MultiInferenceResponse,
    "tensorflow.serving.PredictionService/GetModelMetadata": get_model_metadata_pb2.GetModelMetadataResponse,
    "tensorflow.serving.ModelService/GetModelStatus": get_model_status_pb2.GetModelStatusResponse,
    "tensorflow.serving.ModelService/HandleReloadConfigRequest": model_management_pb2.ReloadConfigResponse,
    "grpc.health.v1.Health/Check": health_pb2.HealthCheckResponse,
}

_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_STATES = ("START", "LOADING", "AVAILABLE", "UNLOADING", "END")
_MAX_SHOWN = 300


def rest_difference(case: Case, answer: RestAnswer, strict: bool = False) -> str:
    """Where an answer over REST differs."""
    wanted = content(case.expect)
    if answer.status != case.expect["status"]:
        return f"status {answer.status} instead of {case.expect['status']}: {_shown(answer.body)}"
    if case.level == "status" and not strict:
        return _missing_error(wanted, answer.body)
    for name, value in case.expect["headers"].items():
        if answer.headers.get(name, "") != value:
            return f"header {name} {answer.headers.get(name)!r} instead of {value!r}"
    return _body_difference(case, wanted, answer.body, strict)


def grpc_difference(case: Case, answer: GrpcAnswer, strict: bool = False) -> str:
    """Where an answer over gRPC differs."""
    code, message = case.expect["code"], case.expect["message"]
    if answer.code != code:
        return f"code {answer.code} instead of {code}: {_shown(answer.message)}"
    if case.level == "status" and not strict:
        return "no message" if message and not answer.message else ""
    if "message" not in case.nondeterministic and answer.message not in (message, *case.alternatives):
        return f"message {_shown(answer.message)} instead of {_shown(message)}"
    return _response_difference(case, answer.response, strict) if code == "OK" else ""


def step_difference(step: Mapping[str, Any], seen: Any, strict: bool = False) -> str:
    """Where what was seen after a step of a scenario differs."""
    level = step.get("level", "exact")
    if level == "none":
        return ""
    if isinstance(seen, RestAnswer):
        tolerance = step.get("float_tolerance", 0.0)
        return rest_difference(
            Case(request=step["request"], expect=step["expect"], float_tolerance=tolerance), seen, strict
        )
    wanted = step["expect"]
    if not strict:
        wanted, seen = (_at_level(level, each) for each in (wanted, seen))
    return "" if seen == wanted else f"{_shown(seen)} instead of {_shown(wanted)}"


def response_value(method: str, answer: GrpcAnswer) -> Any:
    """What is in a response, without the order of its maps."""
    return _plain(RESPONSES[method].FromString(answer.response))


def in_legal_order(states: list[str]) -> bool:
    """May one version go through these states, some of which were too short to be seen?"""
    return all(_STATES.index(before) < _STATES.index(after) for before, after in pairwise(states))


def difference(wanted: Any, got: Any, tolerance: float = 0.0, path: str = "") -> str:
    """Where two nested values differ: an integer is no fraction, NaN is NaN, and fractions may differ by a share."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        if wanted.keys() != got.keys():
            return f"{path or '/'}: keys {sorted(map(str, got))} instead of {sorted(map(str, wanted))}"
        parts = [(f"{path}/{key}", wanted[key], got[key]) for key in wanted]
    elif isinstance(wanted, list) and isinstance(got, list):
        if len(wanted) != len(got):
            return f"{path or '/'}: {len(got)} items instead of {len(wanted)}"
        parts = [(f"{path}[{index}]", each, got[index]) for index, each in enumerate(wanted)]
    else:
        return "" if _agree(wanted, got, tolerance) else f"{path or '/'}: {_shown(got)} instead of {_shown(wanted)}"
    return next(filter(None, (difference(one, other, tolerance, where) for where, one, other in parts)), "")


def _body_difference(case: Case, wanted: bytes, got: bytes, strict: bool) -> str:
    if got == wanted or "body" in case.nondeterministic or got.decode(errors="replace") in case.alternatives:
        return ""
    if "order" not in case.nondeterministic:
        if not strict and case.float_tolerance and _same_but_digits(wanted, got, case.float_tolerance):
            return ""
        if strict or case.level == "exact":
            return f"body {_shown(got)} instead of {_shown(wanted)}"
    try:
        return _value_difference(case, _parsed(wanted), _parsed(got), strict)
    except ValueError:
        return f"body {_shown(got)} is no JSON"


def _response_difference(case: Case, response: bytes, strict: bool) -> str:
    kind = RESPONSES[case.request["method"]]
    wanted, got = (kind.FromString(each) for each in (content(case.expect, "response"), response))
    if strict and not case.nondeterministic:
        same = wanted.SerializeToString(deterministic=True) == got.SerializeToString(deterministic=True)
        return "" if same else f"bytes of the response: {difference(_plain(wanted), _plain(got)) or 'equal values'}"
    return _value_difference(case, _plain(wanted), _plain(got), strict)


def _value_difference(case: Case, wanted: Any, got: Any, strict: bool) -> str:
    if case.loose and not strict:
        wanted, got = (_without_load_errors(each, case.loose) for each in (wanted, got))
    return difference(wanted, got, case.float_tolerance)


def _missing_error(wanted: bytes, got: bytes) -> str:
    """Where the recorded answer has a JSON error, any text will do, but there must be one."""
    if _error_text(wanted) is None or _error_text(got):
        return ""
    return f"no error text: {_shown(got)}"


def _error_text(body: bytes) -> str | None:
    try:
        value = _parsed(body)
    except ValueError:
        return None
    text = value.get("error") if isinstance(value, dict) else None
    return text if isinstance(text, str) else None


def _parsed(body: bytes) -> Any:
    return json.loads(body.decode("utf-8", "surrogateescape"), strict=False)


def _agree(wanted: Any, got: Any, tolerance: float) -> bool:
    if type(wanted) is not type(got):
        return False
    if isinstance(wanted, float):
        if math.isnan(wanted) or math.isnan(got):
            return math.isnan(wanted) and math.isnan(got)
        return math.isclose(wanted, got, rel_tol=tolerance, abs_tol=tolerance * 1e-3)
    return bool(wanted == got)


def _same_but_digits(wanted: bytes, got: bytes, tolerance: float) -> bool:
    """Are both texts equal but for the digits of fractions, and are those close and in the right style?"""
    if _NUMBER.split(wanted) != _NUMBER.split(got):
        return False
    pairs = zip(_NUMBER.findall(wanted), _NUMBER.findall(got), strict=True)
    return all(
        _close_in_style(before.decode(), after.decode(), tolerance) for before, after in pairs if before != after
    )


def _close_in_style(wanted: str, got: str, tolerance: float) -> bool:
    fractions = all(re.search("[.eE]", text) for text in (wanted, got))
    return fractions and _agree(float(wanted), float(got), tolerance) and _in_style(got)


def _in_style(text: str) -> bool:
    """Is this how a float or a double is written: ``%g`` if that is all of it, else with 9 or 17 digits?"""
    return _written(np.float64(text), 17) == text or _written(np.float32(text), 9) == text


def _written(number: np.floating[Any], digits: int) -> str:
    short = f"{number:g}"
    text = short if type(number)(short) == number else f"{number:.{digits}g}"
    return text if "." in text or "e" in text else f"{text}.0"


def _plain(value: Any) -> Any:
    """A message as dicts, lists and numbers, with only the fields that are set and maps without an order."""
    if isinstance(value, AnyMessage):
        opened = get_model_metadata_pb2.SignatureDefMap()
        return {"type_url": value.type_url, "value": _plain(opened) if value.Unpack(opened) else value.value}
    if isinstance(value, Message):
        fields = {field.name: _plain(each) for field, each in value.ListFields()}
        if isinstance(value, TensorProto) and value.dtype == types_pb2.DT_FLOAT and value.tensor_content:
            fields["tensor_content"] = np.frombuffer(value.tensor_content, "<f4").tolist()
        return fields
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, MutableSequence):
        return [_plain(each) for each in value]
    return value


def _without_load_errors(answer: Any, what: str) -> Any:
    """A status answer in which only the presence of a load error counts: of its ``text``, or also of its ``code``."""
    for version in answer.get("model_version_status", []):
        status = version.get("status", {})
        if status.get("error_message"):
            status["error_message"] = "some text"
            if what == "code":
                status["error_code"] = "some code"
    return answer


def _at_level(level: str, seen: Any) -> Any:
    """What of an observation has to agree; the states of a model are rows of version, state, code and message."""
    if level == "code":
        return seen.split(":")[0]
    if level in ("states", "loose") and seen[0] == "OK":
        return [[version, state, code if level == "states" else code == "OK"] for version, state, code, _ in seen[1]]
    return seen


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:200]} … {text[-80:]}"
