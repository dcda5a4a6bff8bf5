"""The dim algebra: what is equal compares equal, and every form evaluates to what plain integers would give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.analysis.dims import (
    Dim,
    Sym,
    broadcast,
    ceildiv,
    evaluate,
    exact_div,
    floordiv,
    is_multiple,
    is_one,
    lower_bound,
    maximum,
    minimum,
    product,
    symbol,
    upper_bound,
)

B, S, H = symbol("B"), symbol("S"), symbol("H")
V = symbol("v", low=None)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((H - 1) // 2 + 1, (H + 1) // 2),
        (((H + 1) // 2 + 1) // 2, (H + 3) // 4),
        ((4 * H + 2) // 4, H),
        ((2 * H + 1) // 4, H // 2),
        (ceildiv(H, 2), (H + 1) // 2),
        ((B + 1) * (S + 2) - B * S, 2 * B + S + 2),
        (12 * B * S // (4 * S), 3 * B),
        (exact_div((B + S) * (B - S), B + S), B - S),
        (B * S * H // (H * B), S),
        (H % 1, 0),
        (4 * H % 2, 0),
        (B - B, 0),
        (B + S - S - B + 7, 7),
        (maximum(H + 3, H), H + 3),
        (maximum(0, H), H),
        (minimum(H, 0), 0),
        (maximum(maximum(B, S), H), maximum(B, maximum(H, S))),
        (broadcast(B, broadcast(S, B)), broadcast(S, B)),
        (broadcast(1, S), S),
        (broadcast(S, 7), 7),
        (broadcast(S, 0), 0),
        (broadcast(S, minimum(S, 512)), S),
        (product([B, 4, S]), 4 * S * B),
    ],
)
def test_equal_computations_are_equal_objects(left: Dim, right: Dim) -> None:
    assert left == right
    assert hash(left) == hash(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (H // 2 + H // 2, H),
        (2 * (H // 2), H),
        (maximum(H - 1, 0), H - 1),
        (minimum(H, 512), H),
        (broadcast(B, S), B),
        (broadcast(S, minimum(S, 1)), S),
        (symbol("a"), symbol("b")),
        (B * S, B + S),
    ],
)
def test_what_may_differ_is_not_equal(left: Dim, right: Dim) -> None:
    assert left != right


def test_bounds() -> None:
    assert lower_bound(H + 3) == 3
    assert lower_bound(H - 1) == -1
    assert lower_bound(-H) is None
    assert upper_bound(5 - H) == 5
    assert lower_bound(V) is None
    assert lower_bound(V * H) is None
    assert lower_bound((H + 1) // 2) == 0
    assert lower_bound(maximum(H - 5, 0)) == 0
    assert lower_bound(broadcast(B + 1, S + 1)) == 1


def test_predicates() -> None:
    assert is_one(1)
    assert not is_one(H)
    assert not is_one(2)
    assert is_multiple(12 * B, 4)
    assert not is_multiple(B, 2)
    assert not is_multiple(B, 0)
    assert exact_div(7, 2) is None
    assert exact_div(B * S + 1, B) is None
    with pytest.raises(ZeroDivisionError):
        floordiv(H, 0)


def test_messages_are_readable() -> None:
    assert str(B * S - 3) == "B*S - 3"
    assert str((H + 1) // 2) == "(H + 1)//(2)"
    assert str(maximum(H - 1, 0)) == "max(H - 1, 0)"
    assert str(2 * H + 1) == "2*H + 1"
    assert str(-H) == "-H"


_BINARY: list[Callable[[Any, Any], Any]] = [
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a * b,
    maximum,
    minimum,
]
_DIVISORS = [-3, -2, 1, 2, 3, 4, 6]
_NAMES = ("a", "b", "c")


@st.composite
def _expressions(draw: st.DrawFn, depth: int = 4) -> Callable[[Callable[[str], Any]], Any]:
    """A computation over three unknowns, runnable on symbols and on integers alike."""
    kind = draw(st.integers(0, 3)) if depth else 0
    if kind == 0:
        if draw(st.booleans()):
            number = draw(st.integers(-5, 9))
            return lambda read: number
        name = draw(st.sampled_from(_NAMES))
        return lambda read: read(name)
    if kind == 1:
        inner, divisor = draw(_expressions(depth - 1)), draw(st.sampled_from(_DIVISORS))
        operation = draw(st.sampled_from([floordiv, lambda a, b: a % b]))
        return lambda read: operation(inner(read), divisor)
    function = draw(st.sampled_from(_BINARY))
    left, right = draw(_expressions(depth - 1)), draw(_expressions(depth - 1))
    return lambda read: function(left(read), right(read))


@settings(max_examples=600, deadline=None)
@given(_expressions(), st.lists(st.integers(0, 40), min_size=3, max_size=3))
def test_a_form_evaluates_to_what_integers_give(
    expression: Callable[[Callable[[str], Any]], Any], values: list[int]
) -> None:
    bindings = dict(zip(_NAMES, values, strict=True))
    form: Dim = expression(symbol)
    expected = expression(bindings.__getitem__)
    assert evaluate(form, bindings) == expected
    low, high = lower_bound(form), upper_bound(form)
    assert low is None or low <= expected
    assert high is None or high >= expected
    twice = exact_div(form * 6, 2)
    assert twice is not None
    assert evaluate(twice, bindings) == 3 * expected


@settings(max_examples=300, deadline=None)
@given(_expressions(), _expressions(), st.lists(st.integers(0, 12), min_size=3, max_size=3))
def test_division_and_broadcasting_by_forms(
    left: Callable[[Callable[[str], Any]], Any], right: Callable[[Callable[[str], Any]], Any], values: list[int]
) -> None:
    bindings = dict(zip(_NAMES, values, strict=True))
    a, b = left(bindings.__getitem__), right(bindings.__getitem__)
    form_a, form_b = left(symbol), right(symbol)
    if b:
        assert evaluate(floordiv(form_a, form_b), bindings) == a // b
        assert evaluate(exact_div(form_a * form_b, form_b) or 0, bindings) in (a, 0)
    if a == b or 1 in (a, b):
        assert evaluate(broadcast(form_a, form_b), bindings) == (b if a == 1 else a)


def test_size_and_depth_stay_bounded() -> None:
    total: Dim = 0
    nested: Dim = H
    power: Dim = B + S + H + 1
    for index in range(3000):
        total = total + symbol(f"d{index}")
        nested = maximum(0, nested - 1) * 2 + 1
        power = power * (B + index)
    assert isinstance(total, Sym)
    assert isinstance(nested, Sym)
    assert isinstance(power, Sym)
    assert max(len(dim.terms) for dim in (total, nested, power)) <= 32
    assert len(str(nested)) < 10_000
    assert lower_bound(total) == 0


def test_evaluation_needs_every_symbol() -> None:
    assert evaluate(B * S, {"B": 2}) is None
    assert evaluate(B * S, {"B": 2, "S": 5}) == 10
    assert evaluate(maximum(B, S - 1), {"B": 2, "S": 5}) == 4
