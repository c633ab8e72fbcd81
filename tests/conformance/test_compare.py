"""A wrong digit, letter, state or code does not pass for the recorded answer."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.message import Message
from tensorflow_serving.apis import get_model_status_pb2, predict_pb2, regression_pb2

from tests.conformance.cases import Case, content, read_cases, read_scenarios
from tests.conformance.client import GrpcAnswer, RestAnswer
from tests.conformance.compare import RESPONSES, grpc_difference, in_legal_order, rest_difference, step_difference

REST = read_cases("rest")
GRPC = read_cases("grpc")
FRACTIONS = "[0.961991906, 0.0220652968, 1.0]"


def rest_answer(case: Case, **changes: Any) -> RestAnswer:
    """The recorded answer, with changes."""
    answer = RestAnswer(case.expect["status"], case.expect["headers"], content(case.expect))
    return replace(answer, **changes)


def grpc_answer(case: Case, **changes: Any) -> GrpcAnswer:
    """The recorded answer, with changes."""
    answer = GrpcAnswer(case.expect["code"], case.expect["message"], content(case.expect, "response"))
    return replace(answer, **changes)


def swapped(text: bytes, letters: bytes) -> bytes | None:
    """The text with the first of these letters or digits another one; None where it has none of them."""
    first = next((index for index, byte in enumerate(text) if byte in letters), None)
    if first is None:
        return None
    other = letters[(letters.index(text[first]) + 1) % len(letters)]
    return text[:first] + bytes([other]) + text[first + 1 :]


@pytest.mark.parametrize("strict", [False, True])
def test_the_recorded_answers_agree_with_themselves(strict: bool) -> None:
    """No recorded answer differs from what was recorded."""
    assert not [case.id for case in REST if rest_difference(case, rest_answer(case), strict)]
    assert not [case.id for case in GRPC if grpc_difference(case, grpc_answer(case), strict)]


def test_a_wrong_status_or_code_is_found() -> None:
    """Whatever the level is, status and code have to be the recorded ones."""
    assert not [case.id for case in REST if not rest_difference(case, rest_answer(case, status=299))]
    assert not [case.id for case in GRPC if not grpc_difference(case, grpc_answer(case, code="DATA_LOSS"))]


@pytest.mark.parametrize("characters", [b"123456789", b"abcdefghijklmnopqrstuvwxyz"])
def test_a_wrong_digit_or_letter_is_found(characters: bytes) -> None:
    """In every body and message that has to agree, one other digit or letter is a difference."""
    for case in REST:
        body = swapped(content(case.expect), characters)
        if case.level != "status" and "body" not in case.nondeterministic and body is not None:
            assert rest_difference(case, rest_answer(case, body=body)), case.id
    for case in GRPC:
        message = swapped(case.expect["message"].encode(), characters)
        if case.level != "status" and "message" not in case.nondeterministic and message is not None:
            assert grpc_difference(case, grpc_answer(case, message=message.decode())), case.id


def test_a_missing_field_is_found() -> None:
    """In every response over gRPC, one top-level field less is a difference."""
    for case in GRPC:
        if case.expect["code"] == "OK":
            response = RESPONSES[case.request["method"]].FromString(content(case.expect, "response"))
            for field, _ in response.ListFields():
                shorter = type(response).FromString(response.SerializeToString())
                shorter.ClearField(field.name)
                assert grpc_difference(case, grpc_answer(case, response=shorter.SerializeToString())), case.id


@pytest.mark.parametrize(
    ("method", "wanted", "got"),
    [
        (
            "PredictionService/Regress",
            regression_pb2.RegressionResponse(result={"regressions": [{"value": 2.0}]}),
            regression_pb2.RegressionResponse(result={"regressions": [{"value": 2.5}]}),
        ),
        (
            "ModelService/GetModelStatus",
            get_model_status_pb2.GetModelStatusResponse(model_version_status=[{"version": 1, "state": 30}]),
            get_model_status_pb2.GetModelStatusResponse(model_version_status=[{"version": 1, "state": 50}]),
        ),
        (
            "PredictionService/Predict",
            predict_pb2.PredictResponse(outputs={"y": {"dtype": 1, "float_val": [1.0]}}),
            predict_pb2.PredictResponse(outputs={"y": {"dtype": 2, "float_val": [1.0]}}),
        ),
        (
            "PredictionService/Predict",
            predict_pb2.PredictResponse(outputs={"y": {"dtype": 7, "string_val": [b"a"]}}),
            predict_pb2.PredictResponse(outputs={"y": {"dtype": 7, "string_val": [b"b"]}}),
        ),
    ],
)
def test_a_wrong_value_is_found(method: str, wanted: Message, got: Message) -> None:
    """One other number, state, type or letter inside a response is a difference."""
    response = base64.b64encode(wanted.SerializeToString()).decode()
    case = Case(
        request={"method": f"tensorflow.serving.{method}"},
        expect={"code": "OK", "message": "", "response_b64": response},
    )
    assert not grpc_difference(case, GrpcAnswer("OK", "", wanted.SerializeToString()))
    assert grpc_difference(case, GrpcAnswer("OK", "", got.SerializeToString()))


@pytest.mark.parametrize(
    ("body", "agrees"),
    [
        ("[0.961991906, 0.0220652968, 1.0]", True),
        ("[0.961991966, 0.0220652968, 1.0]", True),
        ("[0.961999999, 0.0220652968, 1.0]", False),
        ("[0.96199190600, 0.0220652968, 1.0]", False),
        ("[0.96199190616607666, 0.0220652968, 1.0]", True),
        ("[0.961991906, 2.20652968e-02, 1.0]", False),
        ("[0.961991906, 0.0220652968, 1]", False),
        ("[0.961991906,0.0220652968, 1.0]", False),
    ],
)
def test_digits_may_differ_but_not_their_style(body: str, agrees: bool) -> None:
    """Within a tolerance the digits of a fraction may be others, written as floats and doubles are written."""
    case = Case(request={}, expect={"status": 200, "headers": {}, "body": FRACTIONS}, float_tolerance=1e-6)
    answer = RestAnswer(200, {}, body.encode())
    assert bool(rest_difference(case, answer)) is not agrees
    assert bool(rest_difference(case, answer, strict=True)) is (body != FRACTIONS)


def test_an_integer_is_no_fraction() -> None:
    """Where only the value counts, 1 is still not 1.0."""
    case = Case(request={}, expect={"status": 200, "headers": {}, "body": '{"x": 1, "y": 2}'}, level="json")
    assert not rest_difference(case, RestAnswer(200, {}, b'{"y":2,"x":1}'))
    assert rest_difference(case, RestAnswer(200, {}, b'{"y":2,"x":1.0}'))
    assert rest_difference(case, RestAnswer(200, {}, b'{"y":2,"x":1'))


def test_an_error_needs_a_text_and_a_header_its_value() -> None:
    """An empty error, or another content type, is a difference."""
    case = Case(request={}, expect={"status": 400, "headers": {}, "body": '{"error": "some"}'}, level="status")
    assert not rest_difference(case, RestAnswer(400, {}, b'{"error": "another"}'))
    assert rest_difference(case, RestAnswer(400, {}, b'{"error": ""}'))
    assert rest_difference(case, RestAnswer(400, {}, b"another"))
    typed = Case(request={}, expect={"status": 200, "headers": {"content-type": "application/json"}, "body": ""})
    assert rest_difference(typed, RestAnswer(200, {"content-type": "text/html"}, b""))


def test_what_a_scenario_sees_has_to_be_what_was_seen() -> None:
    """Every recorded observation that counts agrees with itself, and with nothing else."""
    steps = [step for scenario in read_scenarios() for step in scenario["steps"] if "expect" in step]
    for step in steps:
        if step["op"] != "rest" and step.get("level") != "none":
            assert not step_difference(step, step["expect"])
            assert not step_difference(step, step["expect"], strict=True)
            assert step_difference(step, ["UNKNOWN", "something else"] if step["op"] == "states" else "something else")


@pytest.mark.parametrize(
    ("level", "row", "agrees"),
    [
        ("states", [2, "END", "NOT_FOUND", "another text"], True),
        ("states", [2, "END", "INTERNAL", "text"], False),
        ("loose", [2, "END", "INTERNAL", "another text"], True),
        ("loose", [2, "END", "OK", ""], False),
        ("loose", [2, "LOADING", "NOT_FOUND", "text"], False),
        ("exact", [2, "END", "NOT_FOUND", "another text"], False),
    ],
)
def test_states_at_their_level(level: str, row: list[Any], agrees: bool) -> None:
    """A level says which of version, state, code and text have to agree."""
    step = {"op": "states", "level": level, "expect": ["OK", [[2, "END", "NOT_FOUND", "text"]]]}
    assert bool(step_difference(step, ["OK", [row]])) is not agrees
    assert step_difference(step, ["OK", [row]], strict=True)


def test_one_failed_request_in_a_swap_is_found() -> None:
    """A watcher has to see one switch and nothing else; a level of none is not compared; states have one order."""
    step = {"op": "unwatch", "expect": ["v1", "v2"]}
    assert step_difference(step, ["v1", "NOT_FOUND: Servable not found for request: Latest(iris)", "v2"])
    assert not step_difference({"op": "served", "level": "none", "expect": "v1"}, "v2")
    assert in_legal_order(["LOADING", "AVAILABLE", "END"])
    assert not in_legal_order(["LOADING", "AVAILABLE", "LOADING"])
