"""Facts about the outputs of If, Loop and Scan, from the facts about the outputs of their bodies.

A symbol made inside a Loop or Scan body stands for a different number in every iteration, so it must not leave the
body. A carried value is either its initial value or what the last iteration gave: only what both agree on is kept, and
the initial value knows no symbol of the body. A stacked output keeps plain integers and the model's own named dims.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from graphopt.analysis.shape_rules.call import UNKNOWN, Call, Fact, Shape, Undetermined

if TYPE_CHECKING:
    from graphopt.analysis.dims import Dim

__all__ = ["RULES", "bodies"]

_GRAPH = ir.AttributeType.GRAPH


def bodies(node: ir.Node) -> list[ir.Graph]:
    """The graphs in the node's attributes."""
    return [
        attribute.value for attribute in node.attributes.data.values() if attribute.type == _GRAPH and attribute.value
    ]


def join(call: Call, a: Fact, b: Fact) -> Fact:
    """What holds of a value that is one or the other."""
    dtype = a[0] if a[0] == b[0] else None
    shape: Shape | None = None
    if a[1] is not None and b[1] is not None and len(a[1]) == len(b[1]):
        shape = tuple([x if x == y else call.fresh() for x, y in zip(a[1], b[1], strict=True)])
    return dtype, shape, a[2] if a[2] == b[2] else None


def _if(call: Call) -> list[Fact]:
    branches = [call.attr("then_branch"), call.attr("else_branch")]
    if not all(isinstance(branch, ir.Graph) for branch in branches):
        raise Undetermined
    taken = call.data(0)
    if taken in ((0,), (1,)):
        return [call.fact(value) for value in branches[1 - taken[0]].outputs]
    ours, theirs = [[call.fact(value) for value in branch.outputs] for branch in branches]
    return [join(call, a, b) for a, b in zip(ours, theirs, strict=True)]


def _exported(call: Call, dim: Dim) -> Dim:
    """``dim`` where it means the same outside the body, else a new symbol."""
    if isinstance(dim, int) or all(atom.kind == "name" and atom.isprintable() for atom in dim.atoms):
        return dim
    return call.fresh()


def _stacked(call: Call, body: Fact, extent: Dim, axis: int) -> Fact:
    dtype, shape, _ = body
    if shape is None:
        return dtype, None, None
    place = axis + len(shape) + 1 if axis < 0 else axis
    dims = [_exported(call, dim) for dim in shape]
    return dtype, (*dims[:place], extent, *dims[place:]), None


def _initial(call: Call, index: int) -> Fact:
    value = call.input(index)
    return UNKNOWN if value is None else call.fact(value)


def _loop(call: Call) -> list[Fact]:
    body = call.attr("body")
    if not isinstance(body, ir.Graph):
        raise Undetermined
    results = [call.fact(value) for value in body.outputs[1:]]
    carried = len(body.inputs) - 2
    facts = [join(call, _initial(call, 2 + index), fact) for index, fact in enumerate(results[:carried])]
    return facts + [_stacked(call, fact, call.fresh(), 0) for fact in results[carried:]]


def _at(values: Sequence[int] | None, index: int) -> int:
    return values[index] if values else 0


def _scan(call: Call) -> list[Fact]:
    body = call.attr("body")
    count = call.integer("num_scan_inputs", 0)
    if not isinstance(body, ir.Graph) or call.opset < 9:  # Scan-8 has a batch axis of its own
        raise Undetermined
    results = [call.fact(value) for value in body.outputs]
    carried = len(body.inputs) - count
    facts = [join(call, _initial(call, index), fact) for index, fact in enumerate(results[:carried])]
    length: Dim | None = None
    scanned = call.maybe_shape(carried) if count else None
    if scanned is not None:
        length = scanned[_at(call.integers("scan_input_axes"), 0)]
    axes = call.integers("scan_output_axes")
    for index, fact in enumerate(results[carried:]):
        facts.append(_stacked(call, fact, call.fresh() if length is None else length, _at(axes, index)))
    return facts


RULES: dict[str, Callable[[Call], list[Fact]]] = {"If": _if, "Loop": _loop, "Scan": _scan}
