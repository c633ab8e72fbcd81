"""
What does an operation of a graph do, as far as its name tells?

Source: tensorflow/core/common_runtime/single_threaded_executor.cc for what can run in order
"""

from __future__ import annotations

from tensorflow.python.framework import op_def_registry

AS_LONG_AS_VALUES_SAY = {
    *("While", "StatelessWhile", "Enter", "RefEnter", "For", "MapDefun", "PyFunc", "PyFuncStateless", "EagerPyFunc"),
    *("Fill", "Range", "LinSpace", "Tile", "BroadcastTo", "ReadFile"),
}
"""The operations that take longer for some values than for others of the same shape."""

_STATE_CHANGING = ("Assign", "Scatter", "Resource", "LookupTableInsert", "LookupTableRemove", "LookupTableImport")
_HARMLESS = {"ResourceGather", "ResourceGatherNd", "ScatterNd", "ScatterNdNonAliasingAdd"}
_STATE_READING = {
    *("VarHandleOp", "ReadVariableOp", "ResourceGather", "ResourceGatherNd"),
    *("HashTableV2", "LookupTableFindV2", "LookupTableSizeV2", "StatefulPartitionedCall"),
}
_CONTROL_FLOW = {
    *("Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond"),
    *("If", "StatelessIf", "Case", "StatelessCase", "While", "StatelessWhile", "For"),
}


def changes_state(operation: str) -> bool:
    """Does it write to a variable or a table? Then every request must run by itself."""
    return operation.startswith(_STATE_CHANGING) and operation not in _HARMLESS


def runs_in_order(operation: str) -> bool:
    """Can it run one after the other with others, in a session that shares no state with another?"""
    definition = op_def_registry.get(operation)
    return (
        definition is not None
        and operation not in _CONTROL_FLOW
        and (operation in _STATE_READING or not definition.is_stateful)
        and not any(output.is_ref for output in definition.output_arg)
    )
