"""Finds the operations behind the tensors of a graph, those in functions included."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

AS_LONG_AS_VALUES_SAY = {
    *("While", "StatelessWhile", "Enter", "RefEnter", "For", "MapDefun", "PyFunc", "PyFuncStateless", "EagerPyFunc"),
    *("Fill", "Range", "LinSpace", "Tile", "BroadcastTo", "ReadFile"),
}
"""The operations that take longer for some values than for others of the same shape."""


class Operations:
    """Those of a graph, and of its functions."""

    def __init__(self, graph_def: Any) -> None:
        self._functions = {function.signature.name: function.node_def for function in graph_def.library.function}
        self._nodes = {node.name: node for node in graph_def.node}

    def clear(self) -> None:
        """Forget them."""
        self._nodes.clear()
        self._functions.clear()

    def behind(self, fetches: Iterable[str]) -> set[str]:
        """The names of all operations that computing these tensors may run, those in functions included."""
        found: set[str] = set()
        seen: set[str] = set()
        called: set[str] = set()
        pending = [self._nodes.get(node_name(fetch)) for fetch in fetches]
        while pending:
            node = pending.pop()
            if node is None or (node.name and node.name in seen):
                continue
            seen.add(node.name)
            found.add(node.op)
            pending += [self._nodes.get(node_name(name)) for name in node.input]
            called.update(_called_functions(node))
        functions = list(called)
        while functions:
            for node in self._functions.get(functions.pop(), ()):
                found.add(node.op)
                new = set(_called_functions(node)) - called
                called |= new
                functions += new
        return found - self._functions.keys()

    def does_nothing(self, operation: str) -> bool:
        """Is it there, and has neither work nor inputs of its own?"""
        node = self._nodes.get(operation)
        return node is not None and node.op == "NoOp" and not node.input


def node_name(tensor: str) -> str:
    return tensor.lstrip("^").partition(":")[0]


def _called_functions(node: Any) -> list[str]:
    called = [node.op]
    for attribute in node.attr.values():
        if attribute.WhichOneof("value") == "func":
            called.append(attribute.func.name)
        elif attribute.WhichOneof("value") == "list":
            called += [function.name for function in attribute.list.func]
    return called
