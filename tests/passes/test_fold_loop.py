"""fold-loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from harness import apply, feeds, fires, lines, misses, parse, run, unchanged

NAME = "fold-loop"
FIXED: dict[str, Any] = {
    "one": np.array(1),
    "two": np.array(2),
    "three": np.array(3),
    "on": np.array(True),
    "off": np.array(False),
}
SCALE = np.array([2, 3, 4, 5], np.float32)


def loop(
    body: str,
    *,
    results: str = "w",
    outputs: str = "y",
    inputs: str = "three, on, x",
    declared: str = "float[N,4] y",
    arguments: str = "int64 i, bool c, float[N,4] v",
    opset: int = 21,
    more: str = "",
) -> ir.Model:
    text = f"""<ir_version: 7, opset_import: ["" : {opset}]>
    agraph (float[N,4] x{more}) => ({declared}) {{
        {outputs} = Loop ({inputs}) <body = g ({arguments}) => ({results}) {{ {body} }}>
    }}"""
    return parse(text, {**FIXED, "s": SCALE})


CARRY: dict[str, Any] = {"body": "d = Identity (c) w = Mul (v, s)", "results": "bool d, float[N,4] w"}


@pytest.mark.parametrize("opset", [11, 13, 21])
@pytest.mark.parametrize("inputs", ["three, on, x", "three, , x"])
def test_carried_value(inputs: str, opset: int) -> None:
    result, stats, _ = apply(loop(**CARRY, inputs=inputs, opset=opset), NAME, "eliminate-dead-nodes")
    assert stats.counts[NAME] == 1
    assert [node.op_type for node in result.graph] == ["Mul", "Mul", "Mul"]
    assert result.graph.outputs[0].name == "y"
    fires(NAME, loop(**CARRY, inputs=inputs, opset=opset), count=1)


@pytest.mark.parametrize("opset", [11, 13, 21])
def test_what_each_round_gives_and_its_number(opset: int) -> None:
    body = "d = Identity (c) f = Cast <to = 1> (i) w = Add (v, f) k = Mul (w, s)"
    model = loop(
        body,
        results="bool d, float[N,4] w, float[N,4] k",
        outputs="y, z",
        declared="float[N,4] y, float[T,N,4] z",
        opset=opset,
    )
    result = fires(NAME, model, count=1)
    assert [value.name for value in result.graph.outputs] == ["y", "z"]
    assert [node.op_type for node in result.graph].count("Unsqueeze") == 3


def test_one_round_and_unused_results() -> None:
    body = "d = Identity (c) w = Mul (v, s) k = Exp (w)"
    model = loop(
        body,
        results="bool d, float[N,4] w, float[N,4] k",
        outputs="y, z",
        inputs="one, on, x",
    )
    result = fires(NAME, model, count=1)
    assert "Concat" not in [node.op_type for node in result.graph]


def test_values_that_change_places() -> None:
    model = loop(
        "d = Identity (c)",
        results="bool d, float[N,4] u, float[N,4] v",
        arguments="int64 i, bool c, float[N,4] v, float[N,4] u",
        outputs="y, z",
        declared="float[N,4] y, float[N,4] z",
        inputs="three, on, x, t",
        more=", float[N,4] t",
    )
    fires(NAME, model, count=1)


def test_number_of_the_round_and_condition_put_out_as_they_are() -> None:
    model = loop(
        "w = Mul (v, s)",
        results="bool c, float[N,4] w, int64 i",
        outputs="y, z",
        declared="float[N,4] y, int64[T] z",
    )
    # not compared: ONNX Runtime lets a round see the number of the last one if the body puts it out as it is
    result, _, _ = apply(model, NAME)
    assert sorted(node.op_type for node in result.graph) == ["Concat", *["Mul"] * 3, *["Unsqueeze"] * 3]
    _, numbers = run(result, feeds(model))
    assert numbers.tolist() == [0, 1, 2]


def test_condition_that_is_a_constant_of_the_body() -> None:
    body = "d = Constant <value = bool {1}> () w = Mul (v, s)"
    fires(NAME, loop(body, results=CARRY["results"]), count=1)


def test_branch_in_the_body_and_captured_values() -> None:
    body = """d = Identity (c)
        w = If (b) <then_branch = g1 () => (float[N,4] p) { p = Mul (v, x) },
                    else_branch = g2 () => (float[N,4] q) { q = Add (v, s) }>"""
    model = loop(body, results=CARRY["results"], more=", bool b")
    result = fires(NAME, model, count=1)
    assert [node.op_type for node in result.graph if node.op_type == "If"] == ["If"] * 3


def test_nodes_have_names_of_their_own() -> None:
    body = """d = Identity (c)
        w = If (b) <then_branch = g1 () => (float[N,4] p) { p = Mul (v, x) },
                    else_branch = g2 () => (float[N,4] q) { q = Add (v, s) }>"""
    model = loop(body, results=CARRY["results"], more=", bool b")
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        node.name = f"n_{node.outputs[0].name}"
    result = fires(NAME, model, count=1)
    names = [node.name for node in ir.traversal.RecursiveGraphIterator(result.graph)]
    assert len(names) == len(set(names)) == 9


def test_loop_in_a_loop() -> None:
    body = """d = Identity (c)
        w = Loop (two, on, v) <body = h (int64 j, bool e, float[N,4] p) => (bool f, float[N,4] q) {
            f = Identity (e)  q = Mul (p, s) }>"""
    result = fires(NAME, loop(body, results=CARRY["results"]))
    kinds = [node.op_type for node in result.graph]
    assert "Loop" not in kinds
    assert kinds.count("Mul") == 6


def test_inside_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[4] x) => (float[4] y) { y = local.block (x) }
    <domain: "local", opset_import: ["" : 21]>
    block (x) => (y) {
        t = Constant <value_int = 2> ()
        y = Loop (t, , x) <body = g (int64 i, bool c, float[4] v) => (bool d, float[4] w) {
            d = Identity (c)  w = Neg (v) }>
    }"""
    result = fires(NAME, parse(text), count=1)
    assert "Loop" not in [node.op_type for node in next(iter(result.functions.values()))]


def test_too_many_nodes_and_the_option() -> None:
    assert misses(f"{NAME}:max-nodes=5", loop(**CARRY)) == ["it would become too many nodes"]
    fires(f"{NAME}:max-nodes=6", loop(**CARRY), count=1)


@pytest.mark.parametrize(
    ("inputs", "more", "reason"),
    [
        ("m, on, x", ", int64 m", "the number of rounds is not known, or 0"),
        (", on, x", "", "the number of rounds is not known, or 0"),
        ("three, off, x", "", "the condition does not start as true"),
        ("three, b, x", ", bool b", "the condition does not start as true"),
    ],
)
def test_rounds_that_are_not_known(inputs: str, more: str, reason: str) -> None:
    assert misses(NAME, loop(**CARRY, inputs=inputs, more=more)) == [reason]


def test_body_that_may_end_it() -> None:
    body = "k = ReduceSum <keepdims = 0> (v) d = Less (k, h) w = Mul (v, s)"
    model = parse(
        f"""agraph (float[N,4] x, float h) => (float[N,4] y) {{
            y = Loop (three, on, x) <body = g (int64 i, bool c, float[N,4] v) => (bool d, float[N,4] w) {{ {body} }}>
        }}""",
        {**FIXED, "s": SCALE},
    )
    assert misses(NAME, model) == ["the body may end it"]


def test_rounds_of_the_caller() -> None:
    text = """agraph (float[N,4] x, int64 three) => (float[N,4] y) {
        y = Loop (three, , x) <body = g (int64 i, bool c, float[N,4] v) => (bool d, float[N,4] w) {
            d = Identity (c)  w = Neg (v) }>
    }"""
    assert misses(NAME, parse(text, {"three": np.array(3)})) == ["the number of rounds is not known, or 0"]
    unchanged(NAME, parse(text))
    assert lines(parse(text, {"three": np.array(3)}))[0].startswith("y = Loop")
