"""Two linear layers in a row are one: ``W2 (W1 x + b1) + b2 = (W2 W1) x + (W2 b1 + b2)``.

Dropping what stood between two layers leaves such pairs. A pair is merged where that takes fewer multiplications; a
bottleneck, which is a pair on purpose, takes more merged.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.analysis import constants
from graphopt.analysis.constants import FLOAT_TYPES
from graphopt.analysis.shapes import Shapes
from graphopt.names import Names, label, operator
from graphopt.rewrite import edit

__all__ = ["merge_linears"]

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, slots=True)
class _Linear:
    """A linear layer with weights of its own, which are not read before it is merged.

    Attributes:
        nodes: The layer, and the Add of its bias if that is a node.
        source: What it reads.
        output: What it gives.
        weight: The tensor that holds its matrix.
        shape: Of the matrix, ``(out, in, ...)``; a kernel's further axes follow.
        transposed: Whether the tensor holds ``(in, out)``.
        bias: The tensor of its bias.
        scales: What the matrix and the bias are multiplied by.
    """

    nodes: tuple[ir.Node, ...]
    source: ir.Value
    output: ir.Value
    weight: ir.TensorProtocol
    shape: tuple[int, ...]
    transposed: bool = False
    bias: ir.TensorProtocol | None = None
    scales: tuple[float, float] = (1.0, 1.0)

    @property
    def node(self) -> ir.Node:
        return self.nodes[0]

    @property
    def kind(self) -> str:
        return self.node.op_type

    def matrix(self) -> Array:
        contents = self.weight.numpy().astype(np.float64) * self.scales[0]
        return contents.T if self.transposed else contents

    def vector(self) -> Array:
        if self.bias is None:
            return np.zeros(self.shape[0])
        contents: Array = self.bias.numpy().astype(np.float64).reshape(-1) * self.scales[1]
        return contents


def merge_linears(model: ir.Model) -> int:
    """Merges pairs of MatMul, Gemm or Conv in the main graph of ``model``, in place, where that takes less work.

    The second of two Convs has a kernel of ones. Weights are constants that nothing else reads, and nothing else
    reads what lies between. Results differ by rounding.

    Returns:
        How many pairs became one.
    """
    shapes, names = Shapes(model), Names(model)
    count = 0
    pending = [node for node in model.graph if operator(node) in _READERS]
    while pending:
        node = pending.pop(0)
        if node.graph is None:
            continue
        second = _linear(node, shapes)
        below = None if second is None else second.source.producer()
        if second is None or below is None or below.graph is not node.graph:
            continue
        first = _linear(_root(below), shapes)
        if first is None or first.output is not second.source or not _fits(first, second):
            continue
        pending.insert(0, _merge(first, second, names))
        count += 1
    return count


def _root(node: ir.Node) -> ir.Node:
    """The MatMul under the Add of its bias; else the node itself."""
    if operator(node) == "Add":
        for value in node.inputs:
            below = value.producer() if value is not None else None
            if below is not None and operator(below) == "MatMul" and below.graph is node.graph:
                return below
    return node


def _linear(node: ir.Node, shapes: Shapes) -> _Linear | None:
    read = _READERS.get(operator(node))
    if read is None or len(node.inputs) < 2 or any(attribute.is_ref() for attribute in node.attributes.values()):
        return None
    source, weight = node.inputs[:2]
    tensor = constants.constant(weight)
    if source is None or weight is None or tensor is None or tensor.dtype not in FLOAT_TYPES:
        return None
    if not _is_read_once(weight) or len(tensor.shape) < 2 or (shapes.rank(source) or 0) < 2:
        return None
    return read(node, source, tensor)


def _matmul(node: ir.Node, source: ir.Value, weight: ir.TensorProtocol) -> _Linear | None:
    if len(weight.shape) != 2:
        return None
    shape = tuple(reversed(weight.shape.numpy()))
    layer = _Linear((node,), source, node.outputs[0], weight, shape, transposed=True)
    if not _is_read_once(node.outputs[0]):
        return layer
    (use,) = node.outputs[0].uses()
    if operator(use.node) != "Add" or use.node.graph is not node.graph:
        return layer
    other = use.node.inputs[1 - use.idx]
    added = constants.constant(other)
    if other is None or added is None or not _is_read_once(other) or tuple(added.shape.numpy()) != shape[:1]:
        return layer
    return dataclasses.replace(layer, nodes=(node, use.node), output=use.node.outputs[0], bias=added)


def _gemm(node: ir.Node, source: ir.Value, weight: ir.TensorProtocol) -> _Linear | None:
    attributes = node.attributes
    if attributes.get_int("transA", False):
        return None
    transposed = not attributes.get_int("transB", False)
    shape = tuple(reversed(weight.shape.numpy())) if transposed else tuple(weight.shape.numpy())
    scales = attributes.get_float("alpha", 1.0), attributes.get_float("beta", 1.0)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    held = constants.constant(bias)
    if bias is not None and (held is None or tuple(held.shape.numpy()) not in (shape[:1], (1, *shape[:1]))):
        return None
    return _Linear((node,), source, node.outputs[0], weight, shape, transposed, held, scales)


def _conv(node: ir.Node, source: ir.Value, weight: ir.TensorProtocol) -> _Linear | None:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    held = constants.constant(bias)
    if node.attributes.get_int("group", 1) != 1 or (bias is not None and held is None):
        return None
    return _Linear((node,), source, node.outputs[0], weight, tuple(weight.shape.numpy()), bias=held)


_READERS = {"MatMul": _matmul, "Gemm": _gemm, "Conv": _conv}


def _is_read_once(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _fits(first: _Linear, second: _Linear) -> bool:
    """Whether the two can be one, and the one does less."""
    if not _is_read_once(first.output) or (first.kind == "Conv") != (second.kind == "Conv"):
        return False
    if first.weight.dtype != second.weight.dtype or first.shape[0] != second.shape[1]:
        return False
    step = 1
    if second.kind == "Conv":
        step = math.prod(_strides(second))
        same = first.node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME")
        if not _is_pointwise(second) or (same and step > 1):  # such padding depends on the step
            return False
    kernel = math.prod(first.shape[2:])
    # for each position of the second's output
    apart = step * kernel * first.shape[0] * first.shape[1] + second.shape[0] * second.shape[1]
    return kernel * second.shape[0] * first.shape[1] < apart


def _is_pointwise(layer: _Linear) -> bool:
    return set(layer.shape[2:]) == {1} and not any(layer.node.attributes.get_ints("pads", [0]))


def _strides(layer: _Linear) -> Sequence[int]:
    return layer.node.attributes.get_ints("strides", [1] * (len(layer.shape) - 2))


def _merge(first: _Linear, second: _Linear, names: Names) -> ir.Node:
    """Puts one layer in the place of both; the node that multiplies."""
    kind = "Conv" if first.kind == "Conv" else "Gemm" if "Gemm" in (first.kind, second.kind) else "MatMul"
    outer = second.matrix().reshape(second.shape[:2])
    matrix = np.tensordot(outer, first.matrix(), axes=(1, 0))
    last = second.nodes[-1]
    graph = last.graph
    assert isinstance(graph, ir.Graph)

    def constant(contents: Array, suffix: str) -> ir.Value:
        name = names.fresh(f"{label(second.node)}_{suffix}")
        value = edit.constant_value(name, constants.tensor(contents.astype(first.weight.dtype.numpy()), name))
        graph.register_initializer(value)
        return value

    inputs = [first.source, constant(matrix if kind == "Conv" else matrix.T, "weight")]
    added = None
    if first.bias is not None or second.bias is not None:
        added = constant(outer @ first.vector() + second.vector(), "bias")
        inputs += [added] if kind != "MatMul" else []
    merged = ir.node(kind, inputs, _combined(first, second) if kind == "Conv" else {}, name=second.node.name)
    made = [merged]
    if added is not None and kind == "MatMul":
        merged.outputs[0].name = names.fresh(f"{label(second.node)}_product")
        made.append(ir.node("Add", [merged.outputs[0], added], name=last.name))
    for node in made:
        graph.insert_before(last, node)
    merged.metadata_props.update(second.node.metadata_props)
    output = made[-1].outputs[0]
    output.type, output.shape, name = second.output.type, second.output.shape, second.output.name
    if not second.output.is_graph_output():  # where it is one, redirecting takes care of the name
        second.output.name = None
        output.name = name
    edit.redirect(second.output, output)
    _erase([*reversed(second.nodes), *reversed(first.nodes)], graph)
    return merged


def _combined(first: _Linear, second: _Linear) -> dict[str, Any]:
    attributes: dict[str, Any] = {name: one.value for name, one in first.node.attributes.items()}
    strides = [a * b for a, b in zip(_strides(first), _strides(second), strict=True)]
    return {**attributes, "strides": strides}


def _erase(nodes: Sequence[ir.Node], graph: ir.Graph) -> None:
    for node in nodes:
        for value in edit.erase(node):
            if value.is_initializer() and not value.uses() and value.name is not None:
                graph.initializers.pop(value.name, None)
            producer = value.producer()
            if producer is not None and producer.op_type == "Constant" and edit.is_dead(producer):
                edit.erase(producer)
