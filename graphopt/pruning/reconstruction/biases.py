"""Where the bias of a layer lies."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.analysis import constants
from graphopt.pruning.layers import Layer

__all__ = ["adds_more", "beta", "bias_of", "bias_on_top", "bias_sum", "has_bias"]

Array = npt.NDArray[Any]


def bias_of(layer: Layer) -> ir.Value | None:
    """What holds the bias of a layer."""
    if layer.node.op_type == "MatMul":
        found = bias_sum(layer.node)
        return None if found is None else found[0].inputs[found[1]]
    return layer.node.inputs[2] if len(layer.node.inputs) > 2 else None


def has_bias(layer: Layer, new: bool) -> bool:
    """Whether there is a bias, or there may be a ``new`` one."""
    if layer.node.op_type == "MatMul":
        return bias_sum(layer.node) is not None
    if not new and (len(layer.node.inputs) < 3 or layer.node.inputs[2] is None):
        return False
    return bool(beta(layer.node)) and not adds_more(layer)


def beta(node: ir.Node) -> float:
    return node.attributes.get_float("beta", 1.0) if node.op_type == "Gemm" else 1.0


def adds_more(layer: Layer) -> bool:
    """Whether the node adds something that is no bias: computed, or another number for each row."""
    added = layer.node.inputs[2] if layer.node.op_type != "MatMul" and len(layer.node.inputs) > 2 else None
    if added is None or not beta(layer.node):
        return False
    tensor = constants.constant(added)
    if tensor is None:
        return True
    return tensor.size != 1 and (tensor.size != layer.groups * layer.outputs or tensor.shape.numpy()[-1] != tensor.size)


def bias_sum(node: ir.Node) -> tuple[ir.Node, int] | None:
    """The Add that gives a MatMul its bias, and the number of its input that holds it."""
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output():
        return None
    add, index = uses[0].node, 1 - uses[0].idx
    tensor = constants.constant(add.inputs[index]) if add.op_type == "Add" and not add.domain else None
    weight = constants.constant(node.inputs[1])
    if tensor is None or weight is None or tensor.size != weight.shape.numpy()[1] or tensor.shape.numpy()[-1] == 1:
        return None
    return add, index


def bias_on_top(layer: Layer) -> Array:
    """The bias that an Add after a MatMul has already, which what is fitted comes on top of; else 0."""
    found = bias_sum(layer.node) if layer.node.op_type == "MatMul" else None
    array = None if found is None else constants.array(found[0].inputs[found[1]])
    return np.zeros(1, np.float32) if array is None else array.reshape(-1).astype(np.float32)
