"""Calls, branches and loops: what functions make of what they are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from serving.runtime.row_independence.dims import NotProven
from serving.runtime.row_independence.rules import Node, Result
from serving.runtime.row_independence.values import Coupled, Fixed, Origin, Value, is_fixed, joined

_MAX_ROUNDS = 6


class Functions(Protocol):
    """Those of a graph."""

    def call(self, name: str, arguments: Sequence[Value]) -> Result:
        """What a function makes of its arguments, as a list."""

    def asserts(self, name: str, argument: int) -> bool:
        """Whether a function fails where this argument is false."""


Flow = Callable[[Functions, Node, Sequence[Value]], Result]


def _call(functions: Functions, node: Node, inputs: Sequence[Value]) -> Result:
    return functions.call(node.functions("f")[0], inputs)


def _if(functions: Functions, node: Node, inputs: Sequence[Value]) -> Result:
    condition, *arguments = inputs
    then, otherwise = (node.functions(name)[0] for name in ("then_branch", "else_branch"))
    if _is_guard(functions, node, condition, otherwise):
        return functions.call(then, arguments)
    _check_fixed(condition)
    known = condition.constant if isinstance(condition, Fixed) else None
    if known is not None and known.size == 1:
        return functions.call(then if known.all() else otherwise, arguments)
    return _either([functions.call(name, arguments) for name in (then, otherwise)])


def _is_guard(functions: Functions, node: Node, condition: Value, otherwise: str) -> bool:
    """Whether it fails unless something holds for every row, which is how TensorFlow writes its assertions."""
    if not (isinstance(condition, Coupled) and condition.holds_for_all):
        return False
    places = [place for place, name in enumerate(node.inputs[1:]) if name == node.inputs[0]]
    return any(functions.asserts(otherwise, place) for place in places)


def _case(functions: Functions, node: Node, inputs: Sequence[Value]) -> Result:
    _check_fixed(inputs[0])
    return _either([functions.call(name, inputs[1:]) for name in node.functions("branches")])


def _either(results: Sequence[Result]) -> Result:
    refusal = next((result.refusal for result in results if result.refusal is not None), None)
    first, *others = [result.outputs if isinstance(result.outputs, list) else [result.outputs] for result in results]
    for other in others:
        first = [joined(one, another) for one, another in zip(first, other, strict=True)]
    return Result(first, refusal)


def _while(functions: Functions, node: Node, inputs: Sequence[Value]) -> Result:
    """What is known before a turn must say enough after it too."""
    condition, body = node.functions("cond")[0], node.functions("body")[0]
    state = list(inputs)
    for number in range(_MAX_ROUNDS):
        asked = functions.call(condition, state)
        _check_fixed(asked.output(0))
        turn = functions.call(body, state)
        after = [_widened(*pair, node.origin, number) for pair in zip(state, _listed(turn), strict=True)]
        if all(one is other for one, other in zip(after, state, strict=True)):
            return Result(list[Value](state), asked.refusal or turn.refusal)
        state = after
    raise NotProven


def _listed(result: Result) -> list[Value]:
    return result.outputs if isinstance(result.outputs, list) else [result.outputs]


def _widened(before: Value, after: Value, origin: Origin, number: int) -> Value:
    try:
        found = joined(before, after)
    except NotProven:
        return Coupled(origin)
    return Fixed() if number and found is not before and isinstance(found, Fixed) else found


def _check_fixed(condition: Value) -> None:
    if isinstance(condition, Coupled):
        raise Stopped(condition.origin)
    if not is_fixed(condition):
        raise NotProven


class Stopped(NotProven):
    """The reason is another operation than the one being looked at."""

    def __init__(self, origin: Origin) -> None:
        super().__init__()
        self.origin = origin


FLOW: dict[str, Flow] = {
    **dict.fromkeys(("PartitionedCall", "StatefulPartitionedCall"), _call),
    **dict.fromkeys(("If", "StatelessIf"), _if),
    **dict.fromkeys(("Case", "StatelessCase"), _case),
    **dict.fromkeys(("While", "StatelessWhile"), _while),
}
