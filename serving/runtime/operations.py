"""
What do the operations of a graph do, as far as their names tell?

Source: tensorflow/core/common_runtime/single_threaded_executor.cc for what can run in order
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from tensorflow.python.framework import op_def_registry

AS_LONG_AS_VALUES_SAY = {
    *("While", "StatelessWhile", "Enter", "RefEnter", "For", "MapDefun", "PyFunc", "PyFuncStateless", "EagerPyFunc"),
    *("Fill", "Range", "LinSpace", "Tile", "BroadcastTo", "ReadFile"),
}
"""The operations that take longer for some values than for others of the same shape."""

_STATE_READING = {
    *("VarHandleOp", "ReadVariableOp", "ResourceGather", "ResourceGatherNd"),
    *("HashTableV2", "LookupTableFindV2", "LookupTableSizeV2", "StatefulPartitionedCall"),
}
_CONTROL_FLOW = {
    *("Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond"),
    *("If", "StatelessIf", "Case", "StatelessCase", "While", "StatelessWhile", "For"),
}
_MAX_KNOWN = 1024
_DENSE_LAYER = {"ReadVariableOp", "MatMul", "BiasAdd"}
_BESIDES_DENSE_LAYERS = {
    *("Const", "Identity", "IdentityN", "NoOp", "Placeholder", "PlaceholderWithDefault", "StopGradient"),
    *("VarHandleOp", "PartitionedCall", "StatefulPartitionedCall"),
    *("ConcatV2", "ExpandDims", "Pack", "Reshape", "Shape", "Squeeze", "StridedSlice"),
    *("Sub", "Mul", "RealDiv", "Neg", "Sqrt", "Rsqrt", "Maximum", "Minimum"),
    *("Relu", "Relu6", "LeakyRelu", "Selu", "Softplus", "Softmax"),
}


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

    def run_in_order(self, fetches: Iterable[str]) -> bool:
        """Can these tensors be computed one operation after the other, in a session that shares no state?"""
        return all(map(_runs_in_order, self.behind(fetches)))

    def may_be_left_unfused(self, fetches: Iterable[str]) -> bool:
        """
        Are these tensors the same to the digit whether TensorFlow makes one operation of several, or not?

        What dense layers consist of is. NaN alone makes a difference: one by one all operations pass it on, while a
        ReLU that is part of a matrix product makes it 0. A sum would be rounded once less as part of a product.
        """
        return _DENSE_LAYER <= self.behind(fetches) <= _DENSE_LAYER | _BESIDES_DENSE_LAYERS


def node_name(tensor: str) -> str:
    return tensor.lstrip("^").partition(":")[0]


@lru_cache(_MAX_KNOWN)
def _runs_in_order(operation: str) -> bool:
    definition = op_def_registry.get(operation)
    return (
        definition is not None
        and operation not in _CONTROL_FLOW
        and (operation in _STATE_READING or not definition.is_stateful)
        and not any(output.is_ref for output in definition.output_arg)
    )


def _called_functions(node: Any) -> list[str]:
    called = [node.op]
    for attribute in node.attr.values():
        if attribute.WhichOneof("value") == "func":
            called.append(attribute.func.name)
        elif attribute.WhichOneof("value") == "list":
            called += [function.name for function in attribute.list.func]
    return called
