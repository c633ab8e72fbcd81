"""
The rules by which the rows of an operation's outputs are independent of one another.

A rule takes a node and what is known of its inputs, and gives what is known of its outputs: a list, or one value for
all of them. It raises `NotProven` where its attributes, axes or constant operands do not rule out that rows meet.
Inputs that are `Coupled` reach only the rules that ask for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from serving.runtime.row_independence.values import Origin, Value

Outputs = list[Value] | Value
Rule = Callable[["Node", Sequence[Value]], Outputs]

RULES: dict[str, Rule] = {}
TAKING_COUPLED: set[str] = set()
"""the operations whose rules take `Coupled` inputs too"""
TOTAL: set[str] = set()
"""those that refuse nothing: a coupled output of theirs that nobody reads does no harm"""


class Node:
    """One operation of a graph or a function, with its attributes; those with default values may have been left out."""

    __slots__ = ("_attributes", "inputs", "name", "operation")

    def __init__(self, definition: Any) -> None:
        self.name: str = definition.name
        self.operation: str = definition.op
        self.inputs: list[str] = [name for name in definition.input if not name.startswith("^")]
        self._attributes = definition.attr

    @property
    def origin(self) -> Origin:
        return Origin(self.name, self.operation)

    def boolean(self, name: str, default: bool = False) -> bool:
        return bool(self._attributes[name].b) if name in self._attributes else default

    def integer(self, name: str, default: int = 0) -> int:
        return int(self._attributes[name].i) if name in self._attributes else default

    def integers(self, name: str) -> tuple[int, ...]:
        return tuple(self._attributes[name].list.i) if name in self._attributes else ()

    def text(self, name: str, default: str = "") -> str:
        return str(self._attributes[name].s.decode()) if name in self._attributes else default

    def data_type(self, name: str) -> int:
        return int(self._attributes[name].type) if name in self._attributes else 0

    def message(self, name: str) -> Any:
        """An attribute as the message that it is; None where it is left out."""
        return self._attributes.get(name)

    def functions(self, name: str) -> list[str]:
        """The functions that an attribute names."""
        if name not in self._attributes:
            return []
        attribute = self._attributes[name]
        return [each.name for each in attribute.list.func] or [attribute.func.name]


def rule(*operations: str, takes_coupled: bool = False, is_total: bool = False) -> Callable[[Rule], Rule]:
    """Make a function the rule of these operations."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operations, function))
        if takes_coupled:
            TAKING_COUPLED.update(operations)
        if is_total:
            TOTAL.update(operations)
        return function

    return register


class Result:
    """What is known of a node's outputs, and which operation makes its execution unproven, if any does."""

    __slots__ = ("outputs", "refusal")

    def __init__(self, outputs: Outputs, refusal: Origin | None = None) -> None:
        self.outputs = outputs
        self.refusal = refusal

    def output(self, index: int) -> Value:
        return self.outputs[index] if isinstance(self.outputs, list) else self.outputs
