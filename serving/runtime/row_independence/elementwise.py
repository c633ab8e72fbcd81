"""Operations that compute each element from the same element of their inputs, and assertions about all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from serving.protocol.tensors import dtype_of
from serving.runtime.row_independence.dims import Dim, NotProven, dim, has_batch, number, product, quotient
from serving.runtime.row_independence.rules import Node, Outputs, rule
from serving.runtime.row_independence.values import (
    Coupled,
    Fixed,
    Rows,
    Sizes,
    Value,
    broadcast,
    fixed,
    is_fixed,
    is_scalar,
    shape_of,
    tensor,
    with_shape,
)

UNARY = (
    *("StopGradient", "PreventGradient", "CheckNumerics", "CheckNumericsV2", "ZerosLike", "OnesLike"),
    *("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Sigmoid", "Tanh", "Softplus", "Softsign"),
    *("Neg", "Abs", "Sign", "Square", "Sqrt", "Rsqrt", "Exp", "Expm1", "Log", "Log1p", "Reciprocal", "Inv"),
    *("Floor", "Ceil", "Round", "Rint", "Erf", "Erfc", "Erfinv", "Ndtri", "Lgamma", "Digamma"),
    *("Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"),
    *("IsNan", "IsInf", "IsFinite", "LogicalNot", "Invert", "PopulationCount", "Bucketize"),
    *("Real", "Imag", "Conj", "Angle", "ComplexAbs", "FakeQuantWithMinMaxArgs"),
    *("BesselI0", "BesselI0e", "BesselI1", "BesselI1e"),
    *("AsString", "StringLower", "StringUpper", "StringStrip", "StringLength", "StringToNumber"),
    *("StringToHashBucketFast", "StringToHashBucketStrong", "StringToHashBucket"),
    *("StaticRegexReplace", "StaticRegexFullMatch", "EncodeBase64", "DecodeBase64", "UnicodeTranscode"),
)
_MAY_REFUSE = {
    *("CheckNumerics", "CheckNumericsV2", "StringToNumber", "DecodeBase64", "UnicodeTranscode"),
}
BINARY = (
    *("Add", "AddV2", "Sub", "Mul", "MulNoNan", "Div", "DivNoNan", "RealDiv", "FloorDiv", "TruncateDiv"),
    *("Mod", "FloorMod", "TruncateMod", "Pow", "Maximum", "Minimum", "SquaredDifference"),
    *("Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual", "LogicalAnd", "LogicalOr"),
    *("Atan2", "Xdivy", "Xlogy", "Xlog1py", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "LeftShift", "RightShift"),
    *("NextAfter", "Igamma", "Igammac", "Zeta", "Polygamma", "Complex"),
)
_WITH_SCALARS = {"RegexFullMatch": 1, "RegexReplace": 1, "FakeQuantWithMinMaxVars": 1}
"""operations whose further inputs are scalars that all elements share"""
_BY_THEMSELVES = {"Mul", "FloorDiv", "Sub", "AddV2", "Add", "Maximum", "Minimum", "Equal", "NotEqual", "LogicalAnd"}
REFUSING_NUMBERS = {"Div", "FloorDiv", "TruncateDiv", "Mod", "FloorMod", "TruncateMod", "Pow"}
"""binary operations that can refuse even single numbers"""


@rule(*(set(UNARY) - _MAY_REFUSE), is_total=True)
def _unary(node: Node, inputs: Sequence[Value]) -> Outputs:
    found = tensor(inputs[0])
    return found if isinstance(found, Rows) else Fixed(found.shape)


@rule(*_MAY_REFUSE)
def _unary_that_may_refuse(node: Node, inputs: Sequence[Value]) -> Outputs:
    return _unary(node, inputs)


@rule("Identity", "Snapshot", takes_coupled=True, is_total=True)
def _identity(node: Node, inputs: Sequence[Value]) -> Outputs:
    return inputs[0]


@rule("IdentityN", takes_coupled=True, is_total=True)
def _identities(node: Node, inputs: Sequence[Value]) -> Outputs:
    return list(inputs)


@rule("Cast", takes_coupled=True, is_total=True)
def _cast(node: Node, inputs: Sequence[Value]) -> Outputs:
    value = inputs[0]
    target = dtype_of(node.data_type("DstT"))
    if isinstance(value, Coupled):
        is_integer = target is not None and target.kind in "iu"
        return replace(value, holds_for_all=False) if is_integer else Coupled(value.origin, value.is_scalar)
    if isinstance(value, Sizes) and target in (np.int32, np.int64):
        return value
    found = tensor(value)
    return found if isinstance(found, Rows) else Fixed(found.shape)


@rule(*_WITH_SCALARS)
def _with_scalars(node: Node, inputs: Sequence[Value]) -> Outputs:
    if any(fixed(each).shape != () for each in inputs[1:]):
        raise NotProven
    return tensor(inputs[0])


@rule(*(set(BINARY) - _BY_THEMSELVES))
def _binary(node: Node, inputs: Sequence[Value]) -> Outputs:
    return with_shape(broadcast([shape_of(tensor(each)) for each in inputs]))


@rule("SelectV2", "ClipByValue", "Betainc")
def _ternary(node: Node, inputs: Sequence[Value]) -> Outputs:
    return _binary(node, inputs)


@rule("AddN", "ApproximateEqual", "StringJoin")
def _of_one_shape(node: Node, inputs: Sequence[Value]) -> Outputs:
    return _binary(node, inputs)


@rule("Select")
def _select(node: Node, inputs: Sequence[Value]) -> Outputs:
    condition, *choices = (shape_of(tensor(each)) for each in inputs)
    chosen = broadcast(choices)
    if len(condition) == 1 and len(chosen) > 1:  # it chooses along the first dimension
        return with_shape(broadcast([condition + ((),) * (len(chosen) - 1), chosen]))
    return with_shape(broadcast([condition, chosen]))


@rule("Mul", "FloorDiv", "Sub", "AddV2", "Add")
def _arithmetic(node: Node, inputs: Sequence[Value]) -> Outputs:
    one, other = inputs
    if isinstance(one, Sizes) and isinstance(other, Sizes):
        return _of_sizes(node.operation, one, other)
    return _binary(node, inputs)


def _of_sizes(operation: str, one: Sizes, other: Sizes) -> Value:
    pairs = _pairs(one, other)
    return Sizes(tuple(_of_two(operation, *pair) for pair in pairs), one.is_scalar and other.is_scalar)


def _pairs(one: Sizes, other: Sizes) -> list[tuple[Dim | None, Dim | None]]:
    count = max(len(one.elements), len(other.elements))
    if any(len(each.elements) not in (1, count) for each in (one, other)):
        raise NotProven
    spread = [each.elements * (count if len(each.elements) == 1 else 1) for each in (one, other)]
    return list(zip(*spread, strict=True))


def _of_two(operation: str, one: Dim | None, other: Dim | None) -> Dim | None:
    if one is None or other is None:
        _refuse_batch(one, other)
        return None
    if operation == "Mul":
        return product([one, other])
    if operation == "FloorDiv" and (has_batch(one) or has_batch(other)):
        return quotient(one, other)
    numbers = number(one), number(other)
    if numbers[0] is None or numbers[1] is None or (operation == "FloorDiv" and not numbers[1]):
        _refuse_batch(one, other)
        return None
    first, second = numbers[0], numbers[1]
    return dim({"Sub": first - second, "FloorDiv": first // (second or 1)}.get(operation, first + second))


def _refuse_batch(*sizes: Dim | None) -> None:
    if any(has_batch(size) for size in sizes if size is not None):
        raise NotProven


@rule("Maximum", "Minimum", takes_coupled=True)
def _bound(node: Node, inputs: Sequence[Value]) -> Outputs:
    coupled = [each for each in inputs if isinstance(each, Coupled)]
    if not coupled:
        return _binary(node, inputs)
    bound = next((each.integers[0] for each in inputs if isinstance(each, Sizes) and each.integers), None)
    if bound is None:
        raise NotProven
    found = coupled[0]
    if node.operation == "Maximum":
        return Coupled(found.origin, all(map(is_scalar, inputs)), at_least=bound)
    at_least = None if found.at_least is None else min(found.at_least, bound)
    return Coupled(found.origin, all(map(is_scalar, inputs)), at_least=at_least, at_most=bound)


@rule("Equal", "NotEqual")
def _equality(node: Node, inputs: Sequence[Value]) -> Outputs:
    if not node.boolean("incompatible_shape_error", True):  # one answer where the shapes do not fit
        raise NotProven
    return _binary(node, inputs)


@rule("LogicalAnd", takes_coupled=True)
def _and(node: Node, inputs: Sequence[Value]) -> Outputs:
    coupled = [each for each in inputs if isinstance(each, Coupled)]
    if not coupled:
        return _binary(node, inputs)
    if all(each.holds_for_all if isinstance(each, Coupled) else fixed(each).shape == () for each in inputs):
        return coupled[0]
    raise NotProven


@rule("Assert", takes_coupled=True)
def _assert(node: Node, inputs: Sequence[Value]) -> Outputs:
    """
    It may fail for the run of several requests exactly if it does for one of them: then each runs by itself.

    What else it is given appears in its message only.
    """
    condition = inputs[0]
    if not (is_fixed(condition) or (isinstance(condition, Coupled) and condition.holds_for_all)):
        raise NotProven
    return []
