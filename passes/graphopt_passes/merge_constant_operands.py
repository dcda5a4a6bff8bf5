"""Merges the constants of two products, or sums, in a row into one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss

__all__ = ["MergeConstantOperands"]

_Floats: TypeAlias = npt.NDArray[np.float64]

_MAX_ELEMENTS: Final = 1 << 16
_FAR_FROM_OVERFLOW: Final = 1024.0
_TYPES: Final = (ir.DataType.FLOAT, ir.DataType.DOUBLE)


def _product(one: _Floats, other: _Floats) -> _Floats | str:
    for numbers in (one, other):
        sizes = np.abs(numbers)
        if not np.all((sizes <= _FAR_FROM_OVERFLOW) & ((sizes >= 1 / _FAR_FROM_OVERFLOW) | (sizes == 0))):
            return "a factor is so large or small that one product could overflow and the other not"
    return one * other


def _sum(one: _Floats, other: _Floats) -> _Floats | str:
    total = one + other
    if not np.all(np.abs(total) >= np.maximum(np.abs(one), np.abs(other)) / 2):  # NaN and infinity too
        return "the summands cancel, and what was rounded away in between would come back"
    return total


_MERGED: Final[Mapping[str, Callable[[_Floats, _Floats], _Floats | str]]] = {"Mul": _product, "Add": _sum}


@dataclasses.dataclass(frozen=True)
class MergeConstantOperands(RulePass):
    """Merges the constants of two Muls, or two Adds, in a row into one.

    What it does:
        ``(x * p) * q`` becomes ``x * (p * q)``, and ``(x + p) + q`` becomes ``x + (p + q)``. The constants may be
        tensors; theirs is computed in float64.

    Before:
        ``m = Mul(x, 3); y = Mul(0.7, m)``

    After:
        ``y = Mul(x, 2.1)``

    Does not apply when:
        - anything else reads the first result, or it is a graph output;
        - the constant of both would have more elements than the larger of the two, or one has more than 65,536;
        - a factor is below 1/1024 or above 1024: what overflows, or vanishes, in between might not do so then;
        - summands cancel: what was rounded away in between would come back;
        - the type is not float32 or float64, or the operator set is older than 7.

    Safety:
        Numeric: one rounding less.
    """

    name = "merge-constant-operands"
    safety = Safety.NUMERIC
    ops = tuple(_MERGED)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        outer = _operands(node, context)
        inner = context.producer(outer[0], node.op_type) if outer is not None else None
        first = _operands(inner, context) if inner is not None else None
        if outer is None or inner is None or first is None:
            return None
        if inner.graph is not node.graph or not context.only_reader(inner.outputs[0], node):
            return Miss("the first result is read elsewhere", node)
        if context.opset(node) < 7:
            return Miss("before opset 7, arithmetic broadcasts by attributes", node)
        x, one = first
        other = outer[1]
        merged = _MERGED[node.op_type](one.astype(np.float64), other.astype(np.float64))
        if isinstance(merged, str):
            return Miss(merged, node)
        if merged.size > max(one.size, other.size):
            return Miss("the constant of both would be larger", node)
        with np.errstate(over="ignore"):
            constant = merged.astype(one.dtype)
        if not np.all(np.isfinite(constant)):
            return Miss("the constant of both is not finite", node)
        return Match(node, build=lambda builder: [builder.op(node.op_type, [x, builder.constant(constant)])])


def _operands(node: ir.Node, context: Context) -> tuple[ir.Value, npt.NDArray[Any]] | None:
    """What varies, and the constant."""
    for value, other in (node.inputs, reversed(node.inputs)):
        tensor = context.constant(other)
        if value is None or tensor is None or tensor.dtype not in _TYPES or context.constant(value) is not None:
            continue
        contents = context.array(other, _MAX_ELEMENTS)
        return None if contents is None else (value, contents)
    return None
