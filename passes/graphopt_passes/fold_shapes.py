"""Replaces shape arithmetic whose result is known by constants."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphopt.analysis.dims import Dim, Sym, lower_bound
from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt.rewrite import edit
from graphopt.rewrite.match import Miss
from graphopt_passes._shape_ops import numbers

__all__ = ["FoldShapes"]

_ARITHMETIC = frozenset(
    {
        "Shape", "Size", "Gather", "Concat", "Slice", "Split", "Squeeze", "Unsqueeze", "Reshape", "Cast", "Add", "Sub",
        "Mul", "Div", "Mod", "Min", "Max", "Neg", "Abs", "ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin", "Range",
        "ConstantOfShape", "Where", "Identity", "Expand", "Tile", "Flatten", "Equal", "Greater", "GreaterOrEqual",
        "Less", "LessOrEqual", "And", "Or", "Not", "Clip", "Sum",
    }
)  # fmt: skip
_SOURCES = frozenset({"Shape", "Size"})
_TARGETS = frozenset({"Reshape", "Expand"})


@dataclasses.dataclass(frozen=True)
class FoldShapes(GraphPass):
    """Replaces shape arithmetic whose result is known by constants.

    What it does:
        Follows the contents of small integer tensors, symbolic dims included, through Shape, Gather, Concat and
        arithmetic. Results that are plain numbers become constants. The target of a Reshape becomes a constant if
        each unknown entry is the input's own dim at that place (``0``) or the only one left (``-1``; one that was
        there becomes the extent that it gives); that of an Expand if each is the input's own dim (``1``). What
        computed them then dies.

    Before:
        ``s = Shape(x); n = Gather(s, 0); t = Concat(n, 12, 64); y = Reshape(x, t)`` with ``x: [N, 768]``

    After:
        ``y = Reshape(x, [-1, 12, 64])`` or, where the dim stays in its place, ``[0, 12, 64]``

    Does not apply when:
        - a needed dim is unknown, or an entry of the target is a computed ``0``;
        - a ``-1`` would come to stand beside a dim that may be zero at run time: an empty batch works now and would
          fail then. (It never worked where another Reshape has a ``-1`` beside the same dim.)

    Safety:
        Exact. Nothing is assumed about symbolic dims but that equal names are equal.
    """

    name = "fold-shapes"
    safety = Safety.EXACT

    def run(self, model: ir.Model, context: Context) -> Outcome:
        touched: list[ir.Node] = []
        count = 0
        seen: set[ir.Value] = set()
        never_zero: frozenset[Dim] | None = None
        for scope in context.scopes():
            targets = [node for node in scope.graph if node.op_type in _TARGETS and _is_open(node, context)]
            if targets and never_zero is None:
                never_zero = _never_zero(model.graph, context)
            known = _known_contents(scope.graph, seen, context)
            for node in targets:
                changed = _fix_target(node, never_zero or frozenset(), context)
                touched += changed
                count += bool(changed)
            for value, contents in known.items():
                changed = _replace(value, contents, known, context)
                touched += changed
                count += bool(changed)
        return Outcome(count, touched)


def _known_contents(graph: ir.Graph, seen: set[ir.Value], context: Context) -> dict[ir.Value, tuple[int, ...]]:
    """Values of ``graph`` computed from shapes whose contents are plain numbers.

    Only what descends from a Shape or Size is looked at; ``seen`` collects it, so that subgraphs can go on from it.
    """
    known: dict[ir.Value, tuple[int, ...]] = {}
    for node in graph:
        if node.op_type not in _ARITHMETIC or node.domain:
            continue
        if node.op_type not in _SOURCES and not _descends(node, seen, context):
            continue
        seen.update(node.outputs)
        for value in node.outputs:
            contents = context.shapes.data(value)
            if contents is not None and all(isinstance(entry, int) for entry in contents):
                known[value] = tuple(entry for entry in contents if isinstance(entry, int))
    return known


def _descends(node: ir.Node, seen: set[ir.Value], context: Context) -> bool:
    return any(value in seen for value in node.inputs) and all(
        value is None or value in seen or context.constant(value) is not None for value in node.inputs
    )


def _replace(
    value: ir.Value, contents: tuple[int, ...], known: dict[ir.Value, tuple[int, ...]], context: Context
) -> list[ir.Node]:
    """Replaces ``value`` by a constant if anything but further known arithmetic needs it."""
    producer, dtype, shape = value.producer(), context.shapes.dtype(value), context.shapes.of(value)
    assert producer is not None
    assert dtype is not None
    if producer.graph is None or shape is None:
        return []
    inner = all(output in known for use in value.uses() for output in use.node.outputs)
    if inner and not value.is_graph_output():
        return []
    array = np.array(contents, dtype.numpy()).reshape([dim for dim in shape if isinstance(dim, int)])
    readers = edit.redirect(value, context.new_constant(producer, array, value.name, as_node=value.is_graph_output()))
    _, weakened = edit.erase_if_dead([producer])
    return readers + weakened or [producer]


def _is_open(node: ir.Node, context: Context) -> bool:
    """Whether the target is computed."""
    return not node.domain and len(node.inputs) > 1 and context.constant(node.inputs[1]) is None


def _never_zero(graph: ir.Graph, context: Context) -> frozenset[Dim]:
    """Dims without which the model fails: a Reshape cannot find out its ``-1`` where another extent is 0."""
    found: set[Dim] = set()
    for node in graph:
        x = node.inputs[0] if node.op_type == "Reshape" and not node.domain and node.outputs[0].uses() else None
        target = numbers(node.inputs[1], context) if x is not None and len(node.inputs) > 1 else None
        if x is None or target is None or -1 not in target:
            continue
        shape = context.shapes.of(x) or ()
        copied = [shape[at] for at, entry in enumerate(target) if entry == 0 and at < len(shape)]
        found.update(dim for dim in (*target, *copied) if isinstance(dim, Sym))
    return frozenset(found)


def _fix_target(node: ir.Node, never_zero: frozenset[Dim], context: Context) -> list[ir.Node]:
    target = node.inputs[1]
    if target is None:
        return []
    contents, shape = context.shapes.data(target), context.shapes.of(node.inputs[0]) if node.inputs[0] else None
    if contents is None or shape is None or all(isinstance(entry, int) for entry in contents):
        return []
    if node.op_type == "Reshape":
        solved = _reshape_target(contents, shape, context.shapes.of(node.outputs[0]), never_zero)
    else:
        solved = _expand_target(contents, shape)
    if isinstance(solved, str):
        context.note(FoldShapes.name, Miss(solved, node))
        return []
    constant = context.new_constant(node, np.array(solved, np.int64), target.name)
    node.replace_input_with(1, constant)
    if "allowzero" in node.attributes:
        node.attributes.pop("allowzero")
    producer = target.producer()
    weakened = edit.erase_if_dead([producer])[1] if producer is not None else []
    return [node, *weakened]


def _reshape_target(
    contents: Sequence[Dim], shape: Sequence[Dim], result: Sequence[Dim] | None, never_zero: frozenset[Dim]
) -> list[int] | str:
    solved: list[int] = []
    for index, entry in enumerate(contents):
        if isinstance(entry, int):
            if entry == 0:
                return "a computed entry of the Reshape's target is 0"
            solved.append(_inferred(index, result) if entry == -1 else entry)
        elif index < len(shape) and shape[index] == entry:
            solved.append(0)
        else:
            solved.append(-1)
    if solved.count(-1) > 1:
        return "two dims of the Reshape's target are unknown"
    copied = [shape[at] for at, size in enumerate(solved) if size == 0]
    # A target that had its -1 before never worked on an empty input.
    if -1 in solved and -1 not in contents and any(_may_be_empty(dim, never_zero) for dim in copied):
        return "an empty input would no longer work"
    return solved


def _inferred(index: int, result: Sequence[Dim] | None) -> int:
    """What stands for the ``-1`` at ``index``: the extent that it gives, if that is known."""
    size = result[index] if result is not None else -1
    return size if isinstance(size, int) and size > 0 else -1


def _may_be_empty(dim: Dim, never_zero: frozenset[Dim]) -> bool:
    return (lower_bound(dim) or 0) < 1 and dim not in never_zero


def _expand_target(contents: Sequence[Dim], shape: Sequence[Dim]) -> list[int] | str:
    solved: list[int] = []
    offset = len(contents) - len(shape)
    for index, entry in enumerate(contents):
        if isinstance(entry, int):
            solved.append(entry)
        elif index >= offset and shape[index - offset] == entry:
            solved.append(1)
        else:
            return "a dim of the Expand's target is unknown"
    return solved
