"""Replaces shape arithmetic whose result is known by constants."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt.rewrite import edit
from graphopt.rewrite.match import Miss

__all__ = ["FoldShapes"]

_ARITHMETIC = frozenset(
    {
        "Shape", "Size", "Gather", "Concat", "Slice", "Split", "Squeeze", "Unsqueeze", "Reshape", "Cast", "Add", "Sub",
        "Mul", "Div", "Mod", "Min", "Max", "Neg", "Abs", "ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin", "Range",
        "ConstantOfShape", "Where", "Identity", "Expand", "Tile", "Flatten",
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
        each unknown entry is the input's own dim at that place (``0``) or the only one left (``-1``); that of an
        Expand if each is the input's own dim (``1``). What computed them then dies.

    Before:
        ``s = Shape(x); n = Gather(s, 0); t = Concat(n, 12, 64); y = Reshape(x, t)`` with ``x: [N, 768]``

    After:
        ``y = Reshape(x, [-1, 12, 64])`` or, where the dim stays in its place, ``[0, 12, 64]``

    Does not apply when:
        - a needed dim is unknown, or an entry of the target is a computed ``0``;
        - a ``-1`` would stand beside a dim that may be zero at run time: an empty batch works now and would fail then.

    Safety:
        Exact. Nothing is assumed about symbolic dims but that equal names are equal.
    """

    name = "fold-shapes"
    safety = Safety.EXACT

    def run(self, model: ir.Model, context: Context) -> Outcome:
        touched: list[ir.Node] = []
        count = 0
        seen: set[ir.Value] = set()
        for scope in context.scopes():
            targets = [node for node in scope.graph if node.op_type in _TARGETS and not node.domain]
            known = _known_contents(scope.graph, seen, context)
            for node in targets:
                changed = _fix_target(node, context)
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


def _fix_target(node: ir.Node, context: Context) -> list[ir.Node]:
    target = node.inputs[1] if len(node.inputs) > 1 else None
    if target is None or context.constant(target) is not None:
        return []
    contents, shape = context.shapes.data(target), context.shapes.of(node.inputs[0]) if node.inputs[0] else None
    if contents is None or shape is None or all(isinstance(entry, int) for entry in contents):
        return []
    solve = _reshape_target if node.op_type == "Reshape" else _expand_target
    solved = solve(contents, shape)
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


def _reshape_target(contents: Sequence[object], shape: Sequence[object]) -> list[int] | str:
    solved: list[int] = []
    for index, entry in enumerate(contents):
        if isinstance(entry, int):
            if entry == 0:
                return "a computed entry of the Reshape's target is 0"
            solved.append(entry)
        elif index < len(shape) and shape[index] == entry:
            solved.append(0)
        elif -1 in solved or -1 in contents:
            return "two dims of the Reshape's target are unknown"
        else:
            solved.append(-1)
    if -1 in solved and 0 in solved:
        return "an empty input would no longer work"
    return solved


def _expand_target(contents: Sequence[object], shape: Sequence[object]) -> list[int] | str:
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
