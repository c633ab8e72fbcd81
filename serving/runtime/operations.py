"""Walks a graph: finds the nodes behind its tensors, and those of the functions that they call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

TIME_DEPENDS_ON_VALUES = {
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

    def nodes(self, tensors: Iterable[str]) -> Iterator[Any]:
        """The nodes that computing these tensors may run, with all nodes of the functions that they call."""
        waiting, seen = list(map(node_name, tensors)), set()
        called: dict[str, None] = {}
        while waiting:
            name = waiting.pop()
            if name in seen or name not in self._nodes:
                continue
            seen.add(name)
            node = self._nodes[name]
            yield node
            waiting += map(node_name, node.input)
            called |= dict.fromkeys(_called_functions(node))
        functions = list(called)
        for function in functions:
            # A function may run a node with an effect although nothing asks for its value, so all of them count.
            for node in self._functions.get(function, ()):
                yield node
                new = [each for each in _called_functions(node) if each not in called]
                called |= dict.fromkeys(new)
                functions += new

    def behind(self, tensors: Iterable[str]) -> set[str]:
        """The names of the operations that computing these tensors may run."""
        return {node.op for node in self.nodes(tensors)} - self._functions.keys()

    def does_nothing(self, operation: str) -> bool:
        """Whether it is there, and has neither work nor inputs of its own."""
        node = self._nodes.get(operation)
        return node is not None and node.op == "NoOp" and not node.input


def node_name(tensor: str) -> str:
    """``^name``, ``name`` and ``name:1`` are all of the node `name`."""
    return tensor.lstrip("^").partition(":")[0]


def _called_functions(node: Any) -> list[str]:
    """The functions that a node may call: by its operation, which can be a function's name, or by an attribute."""
    called = [node.op]
    for attribute in node.attr.values():
        called += [function.name for function in (attribute.func, *attribute.list.func) if function.name]
    return called
