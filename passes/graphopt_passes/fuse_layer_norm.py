"""Puts the pieces of a layer normalization together."""

from __future__ import annotations

import dataclasses
from typing import Any, Final, NamedTuple

import numpy as np
import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._algebra import Expansion, Polynomial, equal, expand, is_closed, monomial, upstream
from graphopt_passes._floats import AT_MOST_SINGLE

__all__ = ["FuseLayerNorm"]

_SINCE: Final = 17
"""Operator set that brought LayerNormalization."""


@dataclasses.dataclass(frozen=True)
class FuseLayerNorm(RulePass):
    """Puts the pieces of a layer normalization together.

    What it does:
        ``(x - mean(x)) / sqrt(mean((x - mean(x))**2) + epsilon) * scale + bias`` becomes a LayerNormalization, in
        whichever order and with whichever operators it is computed: ``x * s + (bias - mean(x) * s)`` with
        ``s = scale / sqrt(...)``, as TensorFlow has it, too. Scale and bias may be missing; ones stand for a scale
        then. ONNX Runtime does most of this itself; what gains is training in torch.

    Before:
        ``m = ReduceMean(x); d = Sub(x, m); q = Pow(d, 2); v = ReduceMean(q); a = Add(v, 1e-5); s = Sqrt(a);
        n = Div(d, s); h = Mul(n, w); y = Add(h, b)``

    After:
        ``y = LayerNormalization <axis=-1, epsilon=1e-5> (x, w, b)``

    Does not apply when:
        - the operator set is older than 17, which brought LayerNormalization;
        - the means are not both over the last axes, the same ones, or do not keep them (``keepdims``);
        - scale or bias does not have just the normalized axes: one number a channel normalized over space, say;
        - epsilon is added to the root and not to the variance, or is missing;
        - an inner result is read elsewhere, or is a graph output;
        - the type is not known to be float32 or of half precision: of float64, too, a LayerNormalization takes the
          statistics in float32.

    Safety:
        Numeric: rounding. In half precision the statistics become more exact.
    """

    name = "fuse-layer-norm"
    safety = Safety.NUMERIC
    ops = ("Add", "Div", "Mul", "Sub")
    reach = 12
    needs = frozenset({"ReduceMean"})

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        if context.opset(node) < _SINCE and not context.explain:
            return None  # nobody asks why
        found = _find(node, context)
        if found is None or isinstance(found, Miss):
            return found
        if (larger := _only_reader(node)) is not None and isinstance(_find(larger, context), _Norm):
            return None  # with a scale or bias; its turn comes
        return Match(node, build=lambda builder: [_build(builder, found)])


class _Statistics(NamedTuple):
    """What a normalization rests on.

    Attributes:
        x: The operand.
        mean: Its mean.
        radicand: Its variance and epsilon.
        epsilon: The latter.
        means: The two nodes over axes: that of the mean and that of the variance.
        nodes: They, and all between the operand and the radicand.
        rank: The most axes that a number among them has.
    """

    x: ir.Value
    mean: ir.Value
    radicand: ir.Value
    epsilon: float
    means: tuple[ir.Node, ir.Node]
    nodes: frozenset[ir.Node]
    rank: int


class _Norm(NamedTuple):
    """A normalization that may be put together; ``shape`` is that of the normalized axes."""

    x: ir.Value
    scale: ir.Value | None
    bias: ir.Value | None
    epsilon: float
    shape: tuple[Any, ...]


def _find(node: ir.Node, context: Context) -> _Norm | Miss | None:
    statistics = _statistics(node, context)
    if statistics is None:
        return None
    kept = (statistics.x, statistics.mean, statistics.radicand)
    whole = expand(context, node.outputs[0], lambda value: value in kept)
    dtype = context.shapes.dtype(statistics.x)
    if whole is None or (affine := _affine(whole.polynomial, statistics)) is None:
        return None
    refusal = _refusal(node, context, whole, statistics)
    if refusal is not None:
        return Miss(refusal, node)
    axes = _trailing(statistics, context)
    if axes is None:
        return Miss("the means are not both over the last axes, kept", node)
    if dtype not in AT_MOST_SINGLE:
        return Miss("the type is not known to be float32 or of half precision", node)
    shape = tuple(context.shapes.of(statistics.x) or ())[-axes:]
    scale, bias = affine
    given = [value for value in affine if value is not None]
    if any(tuple(context.shapes.of(value) or ()) != shape for value in given):
        return Miss("scale or bias does not have just the normalized axes", node)
    if scale is None and not all(isinstance(size, int) for size in shape):
        return Miss("there is no scale, and how many ones would stand for it is not known", node)
    return _Norm(statistics.x, scale, bias, statistics.epsilon, shape)


def _statistics(node: ir.Node, context: Context) -> _Statistics | None:
    """Finds them above a root, if they are those of a layer normalization."""
    root = next((one for one in upstream(context, node) if _is_root_of(one, context)), None)
    radicand = root.inputs[0] if root is not None else None
    spread = expand(context, radicand, lambda _: False)
    if spread is None or radicand is None:
        return None
    variance = spread.symbol
    squares = context.producer(variance, "ReduceMean")
    if variance is None or squares is None or spread.polynomial.get(monomial(variance)) != 1.0:
        return None
    mean = next((one for one in upstream(context, squares) if one.op_type == "ReduceMean"), None)
    if mean is None or mean.inputs[0] is None or len(spread.polynomial) != 2:
        return None
    x, centre = mean.inputs[0], mean.outputs[0]
    deviation = expand(context, squares.inputs[0], lambda value: value is x or value is centre)
    square = {monomial(x, x): 1.0, monomial(x, centre): -2.0, monomial(centre, centre): 1.0}
    if deviation is None or not equal(deviation.polynomial, square, ir.DataType.FLOAT):
        return None
    nodes = spread.nodes | deviation.nodes | {mean, squares}
    epsilon = spread.polynomial.get(monomial(), 0.0)
    return _Statistics(x, centre, radicand, epsilon, (mean, squares), nodes, max(spread.rank, deviation.rank))


def _is_root_of(node: ir.Node, context: Context) -> bool:
    if node.op_type == "Pow":
        return context.scalar(node.inputs[1]) in (0.5, -0.5)
    return node.op_type == "Sqrt"


def _affine(polynomial: Polynomial, statistics: _Statistics) -> tuple[ir.Value | None, ir.Value | None] | None:
    """Scale and bias of ``(x - mean) / root * scale + bias``; ``None`` if the formula is another one."""
    fixed = {statistics.x, statistics.mean, statistics.radicand}
    factors = {value for term in polynomial for value, _ in term if len(term) > 1} - fixed
    terms = {value for term in polynomial for value, _ in term if len(term) == 1} - fixed
    if len(factors) > 1 or len(terms) > 1:
        return None
    scale, bias = next(iter(factors), None), next(iter(terms), None)
    divisor = frozenset([(statistics.radicand, -0.5)]) | monomial(*factors)
    wanted = {divisor | monomial(statistics.x): 1.0, divisor | monomial(statistics.mean): -1.0}
    if bias is not None:
        wanted[monomial(bias)] = 1.0
    return (scale, bias) if equal(polynomial, wanted, ir.DataType.FLOAT) else None


def _refusal(node: ir.Node, context: Context, whole: Expansion, statistics: _Statistics) -> str | None:
    if context.opset(node) < _SINCE:
        return f"LayerNormalization came with opset {_SINCE}"
    if not is_closed(whole.nodes | statistics.nodes, node):
        return "an inner result is read elsewhere"
    if max(whole.rank, statistics.rank) > (context.shapes.rank(statistics.x) or 0):
        return "a number may give the result more axes"
    return None


def _trailing(statistics: _Statistics, context: Context) -> int | None:
    """How many last axes both means are over; ``None`` if they are over others, or do not keep them."""
    rank = context.shapes.rank(statistics.x)
    found = {_axes(node, rank, context) for node in statistics.means}
    axes = found.pop()
    if found or axes is None or rank is None or axes != tuple(range(rank - len(axes), rank)):
        return None
    return len(axes)


def _axes(node: ir.Node, rank: int | None, context: Context) -> tuple[int, ...] | None:
    attribute = node.attributes.get("axes")
    axes = attribute.as_ints() if attribute is not None else context.ints(node.inputs[1] if node.inputs[1:] else None)
    keepdims = node.attributes.get("keepdims")
    if not axes or rank is None or (keepdims is not None and not keepdims.as_int()):
        return None
    return tuple(sorted(axis % rank for axis in axes))


def _only_reader(node: ir.Node) -> ir.Node | None:
    """Who alone reads the result, if it is in the same graph and of a kind that can end a normalization."""
    (value,) = node.outputs
    uses = value.uses()
    if value.is_graph_output() or len(uses) != 1:
        return None
    reader = next(iter(uses)).node
    fits = reader.graph is node.graph and not reader.domain and reader.op_type in FuseLayerNorm.ops
    return reader if fits else None


def _build(builder: Builder, norm: _Norm) -> ir.Value:
    scale = norm.scale
    if scale is None:
        dtype = builder.context.shapes.dtype(norm.x)
        assert dtype is not None
        scale = builder.constant(np.ones(norm.shape, dtype.numpy()), "scale")
    operands = [norm.x, scale] if norm.bias is None else [norm.x, scale, norm.bias]
    attributes = {"axis": -len(norm.shape), "epsilon": norm.epsilon}
    return builder.op("LayerNormalization", operands, attributes)
