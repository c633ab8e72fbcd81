"""
Proves that row i of every output depends on row i of every input alone, or says which operation stands in the way.

The graph is run once with what is known of its tensors instead of tensors: see `values`. What no rule proves is
coupled, and so is all that is made of it. How likely it is that rows meet does not matter here.

A run may also fail where the requests in it would not, and then each of them runs by itself; but it must not succeed
where one of them would have failed. So whatever is executed must be proven, whether its result is fetched or not,
unless it cannot fail.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from serving.runtime.row_independence import elementwise, holding, layers, reducing, selecting, shaping
from serving.runtime.row_independence.dims import BATCH, NotProven, size_of
from serving.runtime.row_independence.flow import FLOW, Stopped
from serving.runtime.row_independence.rules import RULES, TAKING_COUPLED, TOTAL, Node, Outputs, Result
from serving.runtime.row_independence.values import Coupled, Fixed, Origin, Rows, Value, is_fixed, is_scalar
from serving.runtime.tf_session import operation_definition

ROOMS = (elementwise, holding, layers, reducing, selecting, shaping)
"""the modules with rules"""

INPUT, OUTPUT = "input", "output"
"""stand for the operation of an input or an output that is no batch"""

_MAX_STEPS = 20_000
_MAX_DEPTH = 40
_CYCLIC = {"Merge", "RefMerge", "NextIteration", "RefNextIteration"}
_NOT_SAID_TO_BE_STATEFUL = {"PyFuncStateless", "Batch", "Unbatch", "BatchFunction"}
_SCALAR_WISE = set(elementwise.UNARY) | set(elementwise.BINARY) - elementwise.REFUSING_NUMBERS
# What a rule raises in a graph that none of TensorFlow's tools has made.
_MALFORMED = (NotProven, ArithmeticError, LookupError, ValueError, TypeError, AttributeError)


class Analysis:
    """One graph, with its functions."""

    def __init__(self, graph_def: Any) -> None:
        self._nodes = {node.name: node for node in graph_def.node}
        self._functions = {function.signature.name: function for function in graph_def.library.function}
        self._steps = 0

    def obstacles(
        self, inputs: Mapping[str, Sequence[int] | None], fetches: Collection[str]
    ) -> dict[str, Origin | None]:
        """
        What stands in the way of running several requests as one, by fetched tensor; None where nothing does.

        Args:
            inputs: The shapes of the fed tensors, which a request must keep to; the first dimension is the batch. None
                for what is no batch.
        """
        self._steps = 0
        given: dict[str, Value] = {}
        for name, shape in inputs.items():
            if not name or shape is None or self._is_of_one_size(name):
                return dict.fromkeys(fetches, Origin(name, INPUT))
            given[_canonical(name)] = Rows(((BATCH,), *map(size_of, shape[1:])))
        scope = _Scope(self, self._nodes, given, _graph_index)
        return {fetch: scope.obstacle(_canonical(fetch)) if fetch else Origin(fetch, OUTPUT) for fetch in fetches}

    def _is_of_one_size(self, fed: str) -> bool:
        """Whether the graph says that this batch has one size; then TensorFlow may make a constant of it."""
        definition = self._nodes.get(_node(fed))
        if definition is None or "shape" not in definition.attr:
            return False
        sizes = definition.attr["shape"].shape.dim
        return bool(sizes) and sizes[0].size >= 0

    def clear(self) -> None:
        """Forget the graph."""
        self._nodes.clear()
        self._functions.clear()

    def apply(self, definition: Any, inputs: Sequence[Value], depth: int) -> Result:
        """What a node makes of what is known of its inputs."""
        self._steps += 1
        node = Node(definition)
        coupled = next((each for each in inputs if isinstance(each, Coupled)), None)
        origin = node.origin if coupled is None else coupled.origin
        try:
            if node.operation in FLOW or node.operation in self._functions:
                return self._flow(node, inputs, depth)
            if coupled is None or node.operation in TAKING_COUPLED:
                return Result(self._outputs(node, inputs))
        except Stopped as exc:
            origin = exc.origin
        except _MALFORMED:
            pass
        scalars = node.operation in _SCALAR_WISE and all(map(is_scalar, inputs))
        cannot_fail = scalars or (node.operation in TOTAL and all(map(is_fixed, inputs[1:])))
        return Result(Coupled(origin, is_scalar=scalars), None if cannot_fail else origin)

    def _outputs(self, node: Node, inputs: Sequence[Value]) -> Outputs:
        try:
            return RULES[node.operation](node, inputs)
        except _MALFORMED:
            if all(map(is_fixed, inputs)) and _is_function_of_inputs(node.operation):
                return Fixed()
            raise

    def _flow(self, node: Node, inputs: Sequence[Value], depth: int) -> Result:
        if depth > _MAX_DEPTH or self._steps > _MAX_STEPS:
            raise NotProven
        functions = _Functions(self, depth + 1)
        if node.operation in self._functions:
            return functions.call(node.operation, inputs)
        return FLOW[node.operation](functions, node, inputs)

    def call(self, name: str, arguments: Sequence[Value], depth: int) -> Result:
        """What a function makes of what is known of its arguments."""
        function = self._functions[name]
        declared = function.signature.input_arg
        if any(arg.number_attr or arg.type_list_attr for arg in declared):
            raise NotProven
        given = {arg.name: value for arg, value in zip(declared, arguments, strict=True)}
        scope = _Scope(self, {node.name: node for node in function.node_def}, given, self._function_index, depth)
        effects = [node.name for node in function.node_def if self._is_stateful(node.op)]
        scope.execute([*effects, *function.control_ret.values()])
        outputs = [scope.value(function.ret[arg.name]) for arg in function.signature.output_arg]
        return Result(outputs, scope.refusal)

    def asserts(self, name: str, argument: int) -> bool:
        """Whether a function fails where this argument is false."""
        function = self._functions[name]
        condition = function.signature.input_arg[argument].name
        return any(node.op == "Assert" and node.input[0] == condition for node in function.node_def)

    def _is_stateful(self, operation: str) -> bool:
        if operation in self._functions:
            return bool(self._functions[operation].signature.is_stateful)
        return _is_stateful(operation)

    def _function_index(self, definition: Any, reference: str) -> int:
        """Which of a node's outputs ``name:argument:index`` is, in a function."""
        _, argument, index = reference.split(":")
        function = self._functions.get(definition.op)
        declared = function.signature.output_arg if function is not None else _definition(definition.op).output_arg
        before = 0
        for each in declared:
            if each.name == argument:
                return before + int(index)
            before += _length(definition, each)
        raise NotProven


class _Functions:
    """The functions of a graph, called from some depth of calls."""

    def __init__(self, analysis: Analysis, depth: int) -> None:
        self._analysis = analysis
        self._depth = depth

    def call(self, name: str, arguments: Sequence[Value]) -> Result:
        return self._analysis.call(name, arguments, self._depth)

    def asserts(self, name: str, argument: int) -> bool:
        return self._analysis.asserts(name, argument)


class _Scope:
    """The nodes of a graph or a function, and what has been found out about them."""

    def __init__(
        self,
        analysis: Analysis,
        nodes: Mapping[str, Any],
        given: Mapping[str, Value],
        index: Callable[[Any, str], int],
        depth: int = 0,
    ) -> None:
        self._analysis = analysis
        self._nodes = nodes
        self._given = given
        self._index = index
        self._depth = depth
        self._results: dict[str, Result] = {}

    @property
    def refusal(self) -> Origin | None:
        """The first operation that makes execution unproven, of all that were executed."""
        return next((result.refusal for result in self._results.values() if result.refusal is not None), None)

    def obstacle(self, fetch: str) -> Origin | None:
        """What stands in the way of running several requests as one for this tensor."""
        try:
            value = self.value(fetch)
        except _MALFORMED:
            return self._origin(_node(fetch))
        if fetch not in self._given and (refusal := self._results[_node(fetch)].refusal) is not None:
            return refusal
        if isinstance(value, Coupled):
            return value.origin
        is_batch = isinstance(value, Rows) and value.shape[0] == (BATCH,)
        return None if is_batch else Origin(fetch, OUTPUT)

    def execute(self, names: Iterable[str]) -> None:
        """Find out about these nodes."""
        for name in names:
            self._evaluate(name)

    def value(self, reference: str) -> Value:
        """What is known of an output of a node, or of what has been given."""
        if not self._is_given(reference):
            self._evaluate(_node(reference))
        return self._ready(reference)

    def _is_given(self, reference: str) -> bool:
        return reference in self._given or _canonical(reference) in self._given

    def _ready(self, reference: str) -> Value:
        for name in (reference, _canonical(reference)):
            if name in self._given:
                return self._given[name]
        result = self._results[_node(reference)]
        several = isinstance(result.outputs, list)
        return result.output(self._index(self._nodes[_node(reference)], reference) if several else 0)

    def _evaluate(self, name: str) -> None:
        """Inputs first; by a list of what is to be done, as graphs are deeper than Python's stack."""
        pending, entered = [name], set[str]()
        while pending:
            current = pending[-1]
            if current in self._results:
                pending.pop()
                continue
            definition = self._nodes.get(current)
            needed = [] if definition is None or definition.op in _CYCLIC else self._needed(definition)
            waiting = [each for each in needed if each not in self._results]
            if waiting and current not in entered:
                entered.add(current)
                pending += waiting
                continue
            is_cyclic = bool(waiting) or definition is None or definition.op in _CYCLIC
            self._results[current] = self._unproven(current) if is_cyclic else self._result(definition, needed)
            pending.pop()

    def _needed(self, definition: Any) -> list[str]:
        return [_node(name) for name in definition.input if not self._is_given(name)]

    def _result(self, definition: Any, needed: Sequence[str]) -> Result:
        refusals = (self._results[name].refusal for name in needed)
        refusal = next((each for each in refusals if each is not None), None)
        try:
            inputs = [self._ready(name) for name in definition.input if not name.startswith("^")]
        except _MALFORMED:
            return self._unproven(definition.name)
        found = self._analysis.apply(definition, inputs, self._depth)
        return Result(found.outputs, refusal or found.refusal)

    def _unproven(self, name: str) -> Result:
        origin = self._origin(name)
        return Result(Coupled(origin), origin)

    def _origin(self, name: str) -> Origin:
        definition = self._nodes.get(name)
        return Origin(name, definition.op if definition is not None else "")


def _canonical(tensor: str) -> str:
    return tensor if ":" in tensor or tensor.startswith("^") else f"{tensor}:0"


def _node(reference: str) -> str:
    return reference.removeprefix("^").partition(":")[0]


def _graph_index(definition: Any, reference: str) -> int:
    return int(reference.partition(":")[2] or 0)


def _length(definition: Any, argument: Any) -> int:
    """How many tensors an argument of an operation stands for."""
    if argument.number_attr:
        return int(definition.attr[argument.number_attr].i)
    return len(definition.attr[argument.type_list_attr].list.type) if argument.type_list_attr else 1


_definition = lru_cache(1024)(operation_definition)


@lru_cache(1024)
def _is_stateful(operation: str) -> bool:
    definition = _definition(operation)
    return definition is None or bool(definition.is_stateful)


def _is_function_of_inputs(operation: str) -> bool:
    """Whether it surely gives the same for the same inputs; what calls functions does not, as these may be anything."""
    if _is_stateful(operation) or operation in _NOT_SAID_TO_BE_STATEFUL:
        return False
    return not any("func" in attribute.type for attribute in _definition(operation).attr)
