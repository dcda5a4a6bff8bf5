"""Runs nodes that depend on constants alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from graphopt import runtime
from graphopt.analysis.constants import tensor
from graphopt.errors import ModelError
from graphopt.pipeline.base import Context
from graphopt.rewrite import edit

__all__ = ["evaluate"]


def evaluate(
    nodes: Sequence[ir.Node], wanted: Sequence[ir.Value], opset: Mapping[str, int], context: Context
) -> list[ir.TensorProtocol]:
    """Computes values in one ONNX Runtime session, with its own rewriting off.

    Args:
        nodes: Nodes of any scopes, in execution order; what they read is constant or computed by one before.
        wanted: The values to return, all computed by ``nodes``.
        opset: The operator sets that the nodes are of.
        context: Tells what is constant, and types and shapes.

    Raises:
        ModelError: ONNX Runtime refuses or fails; it does not say which node is to blame.
    """
    model = _as_model(nodes, wanted, opset, context)
    try:
        arrays = runtime.open_session(model, optimization="off", threads=1).run(None, {})
    except runtime.ort_errors() as error:
        raise ModelError(f"constants cannot be computed: {runtime.trim(error)}") from error
    return [tensor(array) for array in arrays]


def _as_model(
    nodes: Sequence[ir.Node], wanted: Sequence[ir.Value], opset: Mapping[str, int], context: Context
) -> ir.Model:
    copies: dict[ir.Value, ir.Value] = {}
    initializers: list[ir.Value] = []

    def copy(value: ir.Value | None) -> ir.Value | None:
        if value is None or value in copies:
            return value if value is None else copies[value]
        held = context.constant(value)
        assert held is not None
        copies[value] = edit.constant_value(f"v{len(copies)}", held)
        initializers.append(copies[value])
        return copies[value]

    twins = []
    for node in nodes:
        inputs = [copy(value) for value in node.inputs]
        twin = ir.Node("", node.op_type, inputs, node.attributes.values(), num_outputs=len(node.outputs))
        for value, output in zip(node.outputs, twin.outputs, strict=True):
            output.name = f"v{len(copies)}" if value.name else ""
            copies[value] = output
        twins.append(twin)
    results = [copies[value] for value in wanted]
    for value, result in zip(wanted, results, strict=True):
        dtype, shape = context.shapes.dtype(value), context.shapes.of(value)
        result.type = ir.TensorType(dtype) if dtype is not None else None
        result.shape = ir.Shape([dim if isinstance(dim, int) else None for dim in shape]) if shape is not None else None
    graph = ir.Graph([], results, nodes=twins, initializers=initializers, opset_imports=dict(opset), name="fold")
    return ir.Model(graph, ir_version=context.model.ir_version)
