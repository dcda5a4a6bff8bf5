"""Puts the pieces of a Gelu together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Final

import onnx_ir as ir

from graphopt.pipeline.base import Context, RulePass, Safety
from graphopt.rewrite.match import Match, Miss
from graphopt_passes._algebra import Expansion, Polynomial, equal, expand, is_closed, monomial, upstream
from graphopt_passes._floats import AT_MOST_SINGLE

__all__ = ["FuseGelu"]

_TANH: Final = math.sqrt(2 / math.pi)
_GATES: Final[Mapping[str, tuple[Mapping[int, float], str]]] = {
    "Erf": ({1: math.sqrt(0.5)}, "none"),
    "Tanh": ({1: _TANH, 3: 0.044715 * _TANH}, "tanh"),
}
"""What the gate is of, by powers of x, and what ONNX calls this."""
_SINCE = 20
"""Operator set that brought Gelu."""


@dataclasses.dataclass(frozen=True)
class FuseGelu(RulePass):
    """Puts the pieces of a Gelu together.

    What it does:
        ``0.5 * x * (1 + erf(x / sqrt(2)))`` becomes ``Gelu(x)``, and its approximation
        ``0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))`` a Gelu with ``approximate="tanh"``, in whichever
        order and with whichever operators it is computed. ONNX Runtime does the first itself; what gains is training in
        torch: a step keeps one tensor instead of five.

    Before:
        ``d = Div(x, 1.4142135); e = Erf(d); a = Add(e, 1); m = Mul(x, a); y = Mul(m, 0.5)``

    After:
        ``y = Gelu(x)``

    Does not apply when:
        - the operator set is older than 20, which brought Gelu;
        - an inner result is read elsewhere, or is a graph output;
        - the numbers are others (1.702 makes another approximation), or one has more axes than ``x``, which would give
          the result more;
        - the type is not known to be float32 or of half precision: in float64 the numbers inside Gelu, as ONNX defines
          it, are those of float32.

    Safety:
        Numeric: rounding.
    """

    name = "fuse-gelu"
    safety = Safety.NUMERIC
    ops = ("Add", "Div", "Mul")
    reach = 10
    needs = frozenset(_GATES)

    def match(self, node: ir.Node, context: Context) -> Match | Miss | None:
        if context.opset(node) < _SINCE and not context.explain:
            return None  # nobody asks why
        gate = next((one for one in upstream(context, node) if one.op_type in _GATES), None)
        if gate is None:
            return None
        (result,) = gate.outputs
        inner = expand(context, gate.inputs[0], lambda value: len(value.uses()) > 1)  # all read a Gelu's operand twice
        x = inner.symbol if inner is not None else None
        if inner is None or x is None:
            return None
        whole = expand(context, node.outputs[0], lambda value: value is x or value is result)
        if whole is None or not equal(
            whole.polynomial, {monomial(x): 0.5, monomial(x, result): 0.5}, ir.DataType.FLOAT
        ):
            return None
        powers, approximate = _GATES[gate.op_type]
        refusal = _refusal(node, context, x, _of(x, powers), whole, inner, gate)
        if refusal is not None:
            return Miss(refusal, node)
        attributes = {"approximate": approximate} if approximate != "none" else {}
        return Match(node, build=lambda builder: [builder.op("Gelu", [x], attributes)])


def _of(x: ir.Value, powers: Mapping[int, float]) -> Polynomial:
    return {monomial(*[x] * power): factor for power, factor in powers.items()}


def _refusal(
    node: ir.Node,
    context: Context,
    x: ir.Value,
    wanted: Polynomial,
    whole: Expansion,
    inner: Expansion,
    gate: ir.Node,
) -> str | None:
    dtype = context.shapes.dtype(x)
    if dtype not in AT_MOST_SINGLE:
        return "the type is not known to be float32 or of half precision"
    if not equal(inner.polynomial, wanted, dtype):
        return "the numbers are not those of a Gelu"
    if context.opset(node) < _SINCE:
        return "Gelu came with opset 20"
    if not is_closed(whole.nodes | inner.nodes | {gate}, node):
        return "an inner result is read elsewhere"
    if max(whole.rank, inner.rank) > (context.shapes.rank(x) or 0):
        return "a number may give the result more axes"
    return None
