"""The traversal and fresh names."""

from __future__ import annotations

from harness import parse

from graphopt import walk
from graphopt.names import Names

TEXT = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
agraph (bool c, float[N] x) => (float[N] y) {
    y = If (c) <
        then_branch = g1 () => (float[N] a) {
            a = If (c) <
                then_branch = g3 () => (float[N] d) { d = Relu (x) },
                else_branch = g4 () => (float[N] e) { e = own.f (x) }
            > },
        else_branch = g2 () => (float[N] b) { b = Neg (x) }
    >
}
<domain: "own", opset_import: ["" : 18]>
f (v) => (w) { w = Exp (v) }"""


def test_scopes_are_visited_outside_in_and_know_where_they_are() -> None:
    model = parse(TEXT)
    scopes = list(walk.scopes(model))
    assert [scope.graph.name for scope in scopes] == ["agraph", "g1", "g3", "g4", "g2", ""]
    assert [scope.opset[""] for scope in scopes] == [21, 21, 21, 21, 21, 18]
    assert [scope.owner.op_type if scope.owner else None for scope in scopes] == [None, "If", "If", "If", "If", None]
    assert [scope.function is not None for scope in scopes] == [False] * 5 + [True]
    assert sorted(node.op_type for node in walk.nodes(model)) == ["Exp", "If", "If", "Neg", "Relu", "f"]


def test_captures_are_the_outer_values_read_inside() -> None:
    model = parse(TEXT)
    outer = model.graph[0].attributes["then_branch"].as_graph()
    assert [value.name for value in walk.captures(outer)] == ["c", "x"]


def test_fresh_names_collide_with_nothing_in_any_scope() -> None:
    names = Names(parse(TEXT))
    assert [names.fresh("z"), names.fresh("z"), names.fresh("d"), names.fresh("x"), names.fresh(None)] == [
        "z", "z_1", "d_1", "x_1", "value",
    ]  # fmt: skip
