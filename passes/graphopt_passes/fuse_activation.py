"""Puts the pieces of activation functions together: HardSigmoid, HardSwish, Mish."""

from __future__ import annotations

import dataclasses
import math
from typing import Final, NamedTuple

import numpy as np
import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.builder import Builder
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._algebra import Expansion, Monomial, equal, expand, is_closed, monomial, upstream
from graphopt_passes._floats import AT_MOST_SINGLE

__all__ = ["FuseActivation"]

_NEAR: Final = 6
_HARD_SWISH: Final = (1 / 6, 0.5)
_GATES: Final = frozenset({"Clip", "HardSigmoid"})


@dataclasses.dataclass(frozen=True)
class FuseActivation(RulePass):
    """Puts the pieces of activation functions together: HardSigmoid, HardSwish, Mish.

    What it does:
        - ``clip(x + 3, 0, 6) / 6``, or any ``clip(a * x + b, 0, 1 / c) * c``, becomes ``HardSigmoid(x)``;
        - ``x * HardSigmoid(x)`` with 1/6 and 1/2, in whichever order it is computed, ``HardSwish(x)`` (Mul and
          HardSigmoid before opset 14);
        - ``x * tanh(Softplus(x))``, or ``log(exp(x) + 1)`` in place of the Softplus, becomes ``Mish(x)`` (opset 18).

        ``log(exp(x) + 1)`` on its own stays: where ``exp(x)`` overflows it is infinite, and Softplus gives ``x``. (Its
        tanh is 1 either way.) ``x * Sigmoid(x)`` stays: ONNX Runtime computes a Swish (opset 24) with one more
        multiplication.

    Before:
        ``a = Add(x, 3); c = Clip(a, 0, 6); m = Mul(x, c); y = Div(m, 6)``

    After:
        ``y = HardSwish(x)``

    Does not apply when:
        - an inner result is read elsewhere, or is a graph output;
        - the numbers are others, or one has more axes than ``x``, which would give the result more;
        - the type is not known to be float32 or of half precision: runtimes have no such operators for float64.

    Safety:
        Numeric: rounding.
    """

    name = "fuse-activation"
    safety = Safety.NUMERIC
    ops = ("Mul", "Div", "Clip")
    reach = 5
    needs = frozenset({"Clip", "HardSigmoid", "Tanh"})

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        found = (_mish(node, context) if node.op_type == "Mul" else None) or _hard(node, context)
        if found is None:
            return None
        refusal = _refusal(node, found, context)
        return Miss(refusal, node) if refusal is not None else Match(node, build=lambda builder: [found.build(builder)])


class _Activation(NamedTuple):
    """What may be put together: an operator of ``x``, with the nodes that go and the most axes of their numbers.

    Attributes:
        factor: What the operator's result is still to be multiplied with.
    """

    op_type: str
    x: ir.Value
    nodes: frozenset[ir.Node]
    rank: int = 0
    alpha: float | None = None
    beta: float | None = None
    factor: ir.Value | None = None

    def build(self, builder: Builder) -> ir.Value:
        attributes = {} if self.alpha is None else {"alpha": self.alpha, "beta": self.beta}
        if self.factor is None:
            return builder.op(self.op_type, [self.x], attributes)
        return builder.op("Mul", [self.factor, builder.op(self.op_type, [self.x], attributes)])


def _refusal(node: ir.Node, found: _Activation, context: Context) -> str | None:
    if context.shapes.dtype(found.x) not in AT_MOST_SINGLE:
        return "the type is not known to be float32 or of half precision"
    if context.opset(node) < 7:
        return "before opset 7, arithmetic broadcasts by attributes"
    if not is_closed(found.nodes | {node}, node):
        return "an inner result is read elsewhere"
    if found.rank > (context.shapes.rank(found.x) or 0):
        return "a number may give the result more axes"
    return None


def _mish(node: ir.Node, context: Context) -> _Activation | None:
    if context.opset(node) < 18:
        return None
    for gate, x in (node.inputs, reversed(node.inputs)):
        tanh = context.producer(gate, "Tanh")
        found = _softplus(tanh.inputs[0], context) if tanh is not None else None
        if tanh is not None and found is not None and found.x is x:
            return found._replace(op_type="Mish", nodes=found.nodes | {tanh})
    return None


def _softplus(value: ir.Value | None, context: Context) -> _Activation | None:
    """``Softplus(x)`` or ``log(exp(x) + 1)``."""
    node = context.producer(value, "Softplus", "Log")
    if node is None or node.inputs[0] is None:
        return None
    if node.op_type == "Softplus":
        return _Activation("Softplus", node.inputs[0], frozenset([node]))
    total = context.producer(node.inputs[0], "Add")
    power = next((one for value in total.inputs if (one := context.producer(value, "Exp"))), None) if total else None
    if total is None or power is None or power.inputs[0] is None:
        return None
    summand = total.inputs[1 - list(total.inputs).index(power.outputs[0])]
    tensor = context.constant(summand)
    if tensor is None or context.scalar(summand) != 1:
        return None
    return _Activation("Softplus", power.inputs[0], frozenset([node, total, power]), len(tensor.shape))


def _hard(node: ir.Node, context: Context) -> _Activation | None:
    """``HardSigmoid(x)``, perhaps times ``x``."""
    gate = node if node.op_type == "Clip" else None
    gate = gate or next((one for one in upstream(context, node, _NEAR) if one.op_type in _GATES), None)
    if gate is None:
        return None
    line = _line(gate, context)
    if line is None:
        return None
    x, slope, offset, top, inner = line
    (result,) = gate.outputs
    whole = Expansion({monomial(result): 1.0})
    if gate is not node:
        expanded = expand(context, node.outputs[0], lambda value: value is x or value is result)
        if expanded is None or len(expanded.polynomial) != 1:
            return None
        whole = expanded
    ((term, factor),) = whole.polynomial.items()
    nodes, rank = whole.nodes | inner.nodes | {gate}, max(whole.rank, inner.rank)
    if not math.isclose(factor * top, 1, rel_tol=1e-5):
        return None
    alpha, beta = (float(np.float32(number * factor)) for number in (slope, offset))  # as the attributes are kept
    found = _Activation("HardSigmoid", x, nodes, rank, alpha, beta)
    return _hard_swish(found, term, result, context.opset(node)) if term != monomial(result) else found


def _hard_swish(found: _Activation, term: Monomial, gate: ir.Value, opset: int) -> _Activation | None:
    if term != monomial(found.x, gate):
        return None
    if opset < 14:
        # two operators as before if it is one already
        return found._replace(factor=found.x) if len(found.nodes) > 2 else None
    numbers = (found.alpha or 0, found.beta or 0)
    if not all(math.isclose(one, other, rel_tol=1e-5) for one, other in zip(numbers, _HARD_SWISH, strict=True)):
        return None
    return found._replace(op_type="HardSwish", alpha=None, beta=None)


def _line(gate: ir.Node, context: Context) -> tuple[ir.Value, float, float, float, Expansion] | None:
    """``x``, slope, offset and top of ``clip(slope * x + offset, 0, top)``, and what computes the line."""
    if gate.op_type == "HardSigmoid":
        (x,) = gate.inputs
        slope, offset = gate.attributes.get_float("alpha", 0.2), gate.attributes.get_float("beta", 0.5)
        return (x, slope, offset, 1.0, Expansion({})) if x is not None else None
    bottom, top = _bounds(gate, context)
    inner = expand(context, gate.inputs[0], lambda value: len(value.uses()) > 1) if bottom == 0 and top else None
    x = inner.symbol if inner is not None else None
    if inner is None or x is None or top is None:
        return None
    slope, offset = inner.polynomial.get(monomial(x), 0.0), inner.polynomial.get(monomial(), 0.0)
    if not offset or not equal(inner.polynomial, {monomial(x): slope, monomial(): offset}, ir.DataType.FLOAT):
        return None
    return x, slope, offset, top, inner


def _bounds(clip: ir.Node, context: Context) -> tuple[float | None, float | None]:
    if context.opset(clip) < 11:
        bounds = [clip.attributes.get(name) for name in ("min", "max")]
        low, high = (bound.as_float() if bound is not None else None for bound in bounds)
        return low, high
    low, high = (context.scalar(value) for value in [*clip.inputs[1:3], None, None][:2])
    return low, high
