"""What constant folding would do to a model, without doing it."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from graphopt import walk
from graphopt.analysis import dims
from graphopt.analysis.constness import NEVER_FOLDED, constant_values
from graphopt.analysis.parameters import tensor_bytes

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphopt.analysis.shapes import Shapes

__all__ = ["Folding", "would_fold"]


@dataclasses.dataclass(frozen=True, slots=True)
class Folding:
    """The nodes whose results never change.

    Attributes:
        nodes: How many would go. Random operators, overridable initializers and DequantizeLinear stay.
        operators: The same by operator.
        bytes_before: Constants that only those nodes read, and that would go with them.
        bytes_after: Results that the rest of the model reads, and that would be stored.
        unsized: Results of unknown size, missing from ``bytes_after``.
    """

    nodes: int
    operators: Mapping[str, int]
    bytes_before: int
    bytes_after: int
    unsized: int


def would_fold(model: ir.Model, shapes: Shapes) -> Folding:
    """Find the nodes whose inputs are all constant, and the Shape and Size of what has a fixed shape."""
    known = constant_values(model, barriers=NEVER_FOLDED, known=lambda node: _static_shape(node, shapes))
    folded = {
        node
        for node in walk.nodes(model)
        if not _is_source(node) and node.outputs and all(value in known for value in node.outputs)
    }
    before = after = unsized = 0
    for value in known:
        producer = value.producer()
        dies = not value.is_graph_output() and all(user in folded for user, _ in value.uses())
        if producer not in folded:
            before += (_size(value, shapes) or 0) if dies and value.uses() else 0
        elif not dies:
            size = _size(value, shapes)
            after += size or 0
            unsized += size is None
    operators = collections.Counter(node.op_type for node in folded)
    return Folding(len(folded), dict(operators.most_common()), before, after, unsized)


def _is_source(node: ir.Node) -> bool:
    return node.op_type == "Constant" and not node.domain


def _static_shape(node: ir.Node, shapes: Shapes) -> bool:
    if node.domain or node.op_type not in ("Shape", "Size") or node.inputs[0] is None:
        return False
    shape = shapes.of(node.inputs[0])
    return shape is not None and all(isinstance(dim, int) for dim in shape)


def _size(value: ir.Value, shapes: Shapes) -> int | None:
    if value.const_value is not None:
        return value.const_value.nbytes
    shape = shapes.of(value)
    sizes = None if shape is None else [dims.evaluate(dim, {}) for dim in shape]
    if sizes is None or None in sizes:
        return None
    return tensor_bytes([size for size in sizes if size is not None], shapes.dtype(value))
