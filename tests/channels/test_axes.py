"""Axes: splitting into factors, uniting, freezing."""

from __future__ import annotations

from graphopt.analysis.dims import symbol
from graphopt.channels.axes import Axis, align, find, freeze, leaves, unite

N = symbol("N")


def sizes(axis: Axis) -> list[object]:
    return [leaf.size for leaf in leaves(axis)]


def test_a_reshape_splits_an_axis() -> None:
    hidden, heads, lanes = Axis(768), Axis(12), Axis(64)
    align([Axis(N), hidden], [Axis(N), heads, lanes], None)
    assert leaves(hidden) == [find(heads), find(lanes)]


def test_a_split_that_is_known_is_met_again() -> None:
    first, second = Axis(24), Axis(24)
    align([first], [Axis(4), Axis(6)], None)
    align([second], [Axis(2), Axis(12)], None)
    unite(first, second, None)
    assert sizes(first) == sizes(second) == [2, 2, 6]
    assert not any(leaf.frozen for leaf in leaves(first))


def test_symbolic_factors_come_along() -> None:
    rows, batch, heads = Axis(N * 4), Axis(N), Axis(4)
    align([batch, heads, Axis(7)], [rows, Axis(7)], None)
    assert leaves(rows) == [find(batch), find(heads)]


def test_what_is_left_in_the_middle_is_matched_from_the_end() -> None:
    unknown, last = Axis(symbol("a")), Axis(6)
    target = Axis(3)
    align([unknown, last], [Axis(symbol("b")), Axis(2), target], None)
    assert leaves(last)[-1] is find(target)
    assert find(last).frozen is None
    assert find(unknown).frozen is not None


def test_factors_that_cut_across_each_other_are_frozen() -> None:
    a, b = Axis(6), Axis(6)
    align([a], [Axis(2), Axis(3)], None)
    align([b], [Axis(3), Axis(2)], None)
    unite(a, b, None)
    assert all(leaf.frozen for leaf in leaves(a))


def test_sizes_that_differ_freeze_both() -> None:
    a, b = Axis(N), Axis(4)
    unite(a, b, None)
    assert find(a) is not find(b)
    assert a.frozen is not None
    assert b.frozen is not None


def test_frozen_stays_frozen_through_a_union_and_keeps_the_first_reason() -> None:
    a, b = Axis(4), Axis(4)
    freeze(b, None, "first")
    freeze(b, None, "second")
    unite(a, b, None)
    frozen = find(a).frozen
    assert frozen is not None
    assert frozen.reason == "first"
