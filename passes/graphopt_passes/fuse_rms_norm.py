"""Puts the pieces of a root-mean-square normalization together."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._algebra import Expansion, equal, expand, is_closed, monomial, upstream
from graphopt_passes._floats import AT_MOST_SINGLE, HALF_TYPES

__all__ = ["FuseRMSNorm"]


@dataclasses.dataclass(frozen=True)
class FuseRMSNorm(RulePass):
    """Puts the pieces of a root-mean-square normalization together.

    What it does:
        ``x / sqrt(mean(x**2) + epsilon) * scale`` becomes an RMSNormalization, in whichever order and with whichever
        operators it is computed (Zhang and Sennrich, arXiv:1910.07467). From opset 23 on ONNX Runtime does not do so
        itself, and takes 0.95 times as long for it. So does one of half precision that is computed in float32, but
        for the scale: RMSNormalization widens its operand itself.

    Before:
        ``q = Pow(x, 2); v = ReduceMean(q); a = Add(v, 1e-6); s = Sqrt(a); r = Reciprocal(s); n = Mul(x, r);
        y = Mul(w, n)``

    After:
        ``y = RMSNormalization <axis=-1, epsilon=1e-6> (x, w)``

    Does not apply when:
        - the operator set is older than 23, which brought RMSNormalization;
        - the mean is not over the last axes, or does not keep them (``keepdims``);
        - there is no scale, or it does not have just the normalized axes;
        - epsilon is added to the root and not to the mean, or is missing;
        - an inner result is read elsewhere, or is a graph output;
        - the type is not known to be float32 or of half precision.

    Safety:
        Numeric: rounding. In half precision the mean becomes more exact; where it was widened, one rounding less.
    """

    name = "fuse-rms-norm"
    safety = Safety.NUMERIC
    ops = ("Div", "Mul")
    reach = 10
    needs = frozenset({"ReduceMean"})

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        if context.opset(node) < 23:
            return None
        mean = _mean(node, context)
        if mean is None:
            return _widened(node, context)
        kept = (mean.x, mean.radicand)
        whole = expand(context, node.outputs[0], lambda value: value in kept)
        if whole is None or len(whole.polynomial) != 1:
            return None
        ((term, factor),) = whole.polynomial.items()
        rest = term - monomial(mean.x) - {(mean.radicand, -0.5)}
        if len(rest) != len(term) - 2 or len(rest) != 1 or factor != 1:
            return None
        ((scale, power),) = rest
        if power != 1:
            return None
        refusal = _refusal(node, context, mean, whole, scale)
        if refusal is not None:
            return Miss(refusal, node)
        return _match(node, mean, scale)


def _widened(node: ir.Node, context: Context) -> Match | Miss | None:
    """A scale of half precision times a norm that is computed in float32."""
    for value, scale in (node.inputs, reversed(node.inputs)) if node.op_type == "Mul" else ():
        found = _norm_of_cast(value, context)
        if found is None or scale is None:
            continue
        mean, whole = found
        refusal = _refusal(node, context, mean, dataclasses.replace(whole, nodes=whole.nodes | {node}), scale)
        return Miss(refusal, node) if refusal is not None else _match(node, mean, scale)
    return None


def _norm_of_cast(value: ir.Value | None, context: Context) -> tuple[_Mean, Expansion] | None:
    """The mean, of ``x``, and all of ``Cast(norm(Cast(x)))``."""
    back = context.producer(value, "Cast")
    last = context.producer(back.inputs[0], "Mul", "Div") if back is not None else None
    mean = _mean(last, context) if last is not None else None
    widening = context.producer(mean.x, "Cast") if mean is not None else None
    x = widening.inputs[0] if widening is not None else None
    if back is None or last is None or mean is None or x is None:
        return None
    if context.shapes.dtype(x) not in HALF_TYPES or context.shapes.dtype(mean.x) is not ir.DataType.FLOAT:
        return None
    kept = (mean.x, mean.radicand)
    whole = expand(context, last.outputs[0], lambda value: value in kept)
    if whole is None or whole.polynomial != {monomial(mean.x) | {(mean.radicand, -0.5)}: 1.0}:
        return None
    return mean._replace(x=x), dataclasses.replace(whole, nodes=whole.nodes | {back})


def _match(node: ir.Node, mean: _Mean, scale: ir.Value) -> Match:
    attributes = {"axis": -mean.axes, "epsilon": mean.epsilon}
    return Match(node, build=lambda builder: [builder.op("RMSNormalization", [mean.x, scale], attributes)])


class _Mean(NamedTuple):
    """The mean of squares that a normalization rests on.

    Attributes:
        x: The operand.
        radicand: The mean and epsilon.
        epsilon: The latter.
        axes: How many last axes it is over; 0 if it is over others.
        nodes: All between the operand and the radicand.
        rank: The most axes that a number among them has.
    """

    x: ir.Value
    radicand: ir.Value
    epsilon: float
    axes: int
    nodes: frozenset[ir.Node]
    rank: int


def _mean(node: ir.Node, context: Context) -> _Mean | None:
    root = next((one for one in upstream(context, node, 8) if _is_root(one, context)), None)
    radicand = root.inputs[0] if root is not None else None
    spread = expand(context, radicand, lambda _: False)
    if spread is None or radicand is None or len(spread.polynomial) != 2:
        return None
    mean = spread.symbol
    average = context.producer(mean, "ReduceMean")
    epsilon = spread.polynomial.get(monomial(), 0.0)
    if mean is None or average is None or spread.polynomial.get(monomial(mean)) != 1.0:
        return None
    argument = average.inputs[0]
    squares = expand(context, argument, lambda value: value is not argument and len(value.uses()) > 1)
    x = squares.symbol if squares is not None else None
    if squares is None or x is None or not equal(squares.polynomial, {monomial(x, x): 1.0}, ir.DataType.FLOAT):
        return None
    nodes = spread.nodes | squares.nodes | {average}
    return _Mean(x, radicand, epsilon, _last_axes(average, x, context), nodes, max(spread.rank, squares.rank))


def _is_root(node: ir.Node, context: Context) -> bool:
    return node.op_type == "Sqrt" or (node.op_type == "Pow" and context.scalar(node.inputs[1]) in (0.5, -0.5))


def _last_axes(node: ir.Node, x: ir.Value, context: Context) -> int:
    """How many last axes the mean is over; 0 if it is over others, or does not keep them."""
    rank = context.shapes.rank(x)
    attribute = node.attributes.get("axes")
    axes = attribute.as_ints() if attribute is not None else context.ints(node.inputs[1] if node.inputs[1:] else None)
    if not rank or not axes or not node.attributes.get_int("keepdims", 1):
        return 0
    return len(axes) if sorted(axis % rank for axis in axes) == list(range(rank - len(axes), rank)) else 0


def _refusal(node: ir.Node, context: Context, mean: _Mean, whole: Expansion, scale: ir.Value) -> str | None:
    shapes = context.shapes
    if shapes.dtype(mean.x) not in AT_MOST_SINGLE or shapes.dtype(scale) is not shapes.dtype(mean.x):
        return "the type is not known to be float32 or of half precision"
    if not is_closed(whole.nodes | mean.nodes, node):
        return "an inner result is read elsewhere"
    if not mean.axes:
        return "the mean is not over the last axes, kept"
    if tuple(shapes.of(scale) or ()) != tuple(shapes.of(mean.x) or ())[-mean.axes :]:
        return "the scale does not have just the normalized axes"
    if max(whole.rank, mean.rank) > (shapes.rank(mean.x) or 0):
        return "a number may give the result more axes"
    return None
