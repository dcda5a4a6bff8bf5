"""What chains of arithmetic compute, as polynomials: one form for all the ways in which exporters spell a formula.

``x * 0.5 * (1 + t)``, ``x * (t + 1) / 2`` and ``0.5 * x + 0.5 * x * t`` all are ``{x: 0.5, x t: 0.5}``. The symbols are
values of the graph, with powers that may be negative or halves; one-element constants are numbers. Shapes play no part
here: who uses this sees to it that broadcasting keeps the shape of the result.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import onnx_ir as ir

from graphopt.pipeline.base import Context

__all__ = ["Expansion", "Monomial", "Polynomial", "equal", "expand", "is_closed", "monomial", "upstream"]

Monomial: TypeAlias = frozenset[tuple[ir.Value, float]]
"""Values and their powers; the empty one is 1."""
Polynomial: TypeAlias = Mapping[Monomial, float]
"""Coefficients."""

_ONE: Final[Monomial] = frozenset()
_MOST_NODES: Final = 24
_MOST_TERMS: Final = 8
_TOLERANCE: Final = {
    ir.DataType.FLOAT16: 2e-3,
    ir.DataType.BFLOAT16: 2e-2,
    ir.DataType.FLOAT: 1e-5,
    ir.DataType.DOUBLE: 1e-12,
}


@dataclasses.dataclass(frozen=True)
class Expansion:
    """What a value is in terms of others.

    Attributes:
        polynomial: The formula.
        nodes: What computes it.
        rank: The most axes that a number in it has.
    """

    polynomial: Polynomial
    nodes: frozenset[ir.Node] = frozenset()
    rank: int = 0

    @property
    def symbol(self) -> ir.Value | None:
        """The only value that it is of, if there is just one."""
        symbols = {value for term in self.polynomial for value, _ in term}
        return symbols.pop() if len(symbols) == 1 else None


def monomial(*values: ir.Value) -> Monomial:
    """The product of values."""
    if len(values) == 1:
        return frozenset([(values[0], 1.0)])
    return frozenset((value, float(count)) for value, count in collections.Counter(values).items())


def equal(one: Polynomial, other: Polynomial, dtype: ir.DataType) -> bool:
    """Whether all coefficients are the same but for rounding in a type."""
    return one.keys() == other.keys() and all(
        math.isclose(one[term], other[term], rel_tol=_TOLERANCE[dtype]) for term in one
    )


def upstream(context: Context, root: ir.Node, limit: int = _MOST_NODES) -> Iterator[ir.Node]:
    """What ``root`` rests on by arithmetic in its own graph, and what that begins with; the nearest first."""
    waiting = collections.deque([root])
    seen = {root}
    while waiting and len(seen) <= limit:
        node = waiting.popleft()
        for value in node.inputs:
            found = context.producer(value)
            if found is None or found in seen or found.graph is not root.graph:
                continue
            seen.add(found)
            yield found
            if found.op_type in _FORMULAS:
                waiting.append(found)


def is_closed(nodes: frozenset[ir.Node], root: ir.Node) -> bool:
    """Whether nobody but ``nodes`` themselves reads what they compute; ``root``'s result is for everyone."""
    inner = [value for node in nodes if node is not root for value in node.outputs]
    return all(not value.is_graph_output() and nodes.issuperset(value.consumers()) for value in inner)


def expand(context: Context, value: ir.Value | None, is_symbol: Callable[[ir.Value], bool]) -> Expansion | None:
    """The formula of a value.

    Args:
        context: The model.
        value: The value.
        is_symbol: Which values are not looked into. Constants of several elements, what is no arithmetic, and what
            another graph computes never are.

    Returns:
        ``None`` if it is no polynomial, or too large a one.
    """
    producer = value.producer() if value is not None else None
    return _expand(context, value, is_symbol, producer.graph if producer is not None else None, {})


def _expand(
    context: Context,
    value: ir.Value | None,
    is_symbol: Callable[[ir.Value], bool],
    graph: ir.Graph | ir.Function | None,
    known: dict[ir.Value, Expansion | None],
) -> Expansion | None:
    if value is None or len(known) > _MOST_NODES:
        return None
    if value in known:
        return known[value]
    tensor = context.constant(value)
    number = None if tensor is None or tensor.size != 1 else context.scalar(value)
    node = None if is_symbol(value) else context.producer(value, *_FORMULAS)
    if number is not None and tensor is not None:
        known[value] = Expansion({_ONE: float(number)}, rank=len(tensor.shape))
    elif node is None or node.graph is not graph:
        known[value] = Expansion({monomial(value): 1.0})
    else:
        known[value] = _compose(node, [_expand(context, one, is_symbol, graph, known) for one in node.inputs])
    return known[value]


def _compose(node: ir.Node, parts: Sequence[Expansion | None]) -> Expansion | None:
    given = [part for part in parts if part is not None]
    if len(given) < len(parts):
        return None
    polynomial = _FORMULAS[node.op_type](*(part.polynomial for part in given))
    if polynomial is None or len(polynomial) > _MOST_TERMS:
        return None
    nodes = frozenset([node]).union(*(part.nodes for part in given))
    return Expansion(polynomial, nodes, max(part.rank for part in given))


def _sum(one: Polynomial, other: Polynomial, sign: float = 1.0) -> Polynomial:
    total = dict(one)
    for term, factor in other.items():
        total[term] = total.get(term, 0.0) + sign * factor
    return {term: factor for term, factor in total.items() if factor}


def _product(one: Polynomial, other: Polynomial) -> Polynomial:
    total: dict[Monomial, float] = {}
    for (left, a), (right, b) in itertools.product(one.items(), other.items()):
        powers: dict[ir.Value, float] = collections.defaultdict(float, left)
        for value, power in right:
            powers[value] += power
        term = frozenset((value, power) for value, power in powers.items() if power)
        total[term] = total.get(term, 0.0) + a * b
    return {term: factor for term, factor in total.items() if factor}


def _power(base: Polynomial, exponent: Polynomial) -> Polynomial | None:
    """Whole powers of anything; negative ones and roots of a single symbol, of which other powers say too little."""
    if set(exponent) - {_ONE}:
        return None
    power = exponent.get(_ONE, 0.0)
    if power in (1, 2, 3):
        return functools.reduce(_product, [base] * int(power))
    if len(base) != 1:
        return None
    ((term, factor),) = base.items()
    if power == -1:
        return {frozenset((value, -one) for value, one in term): 1 / factor}
    if abs(power) != 0.5 or factor != 1 or len(term) != 1 or {one for _, one in term} != {1.0}:
        return None
    return {frozenset((value, power) for value, _ in term): 1.0}


def _number(number: float) -> Polynomial:
    return {_ONE: number}


def _quotient(one: Polynomial, other: Polynomial) -> Polynomial | None:
    inverse = _power(other, _number(-1.0))
    return None if inverse is None else _product(one, inverse)


_FORMULAS: Final[Mapping[str, Callable[..., Polynomial | None]]] = {
    "Add": _sum,
    "Sub": lambda one, other: _sum(one, other, -1.0),
    "Mul": _product,
    "Div": _quotient,
    "Neg": lambda one: _product(one, _number(-1.0)),
    "Pow": _power,
    "Reciprocal": lambda one: _power(one, _number(-1.0)),
    "Sqrt": lambda one: _power(one, _number(0.5)),
}
