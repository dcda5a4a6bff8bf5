"""fold-if."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from harness import apply, calls, fires, lines, parse, run, unchanged

NAME = "fold-if"

TEXT = """agraph (float[N] x) => (float[N] y) {
    t = If (c) <
        then_branch = g1 () => (float[N] a) { u = Relu (x)
            a = Neg (u) },
        else_branch = g2 () => (float[N] b) { u = Exp (x)
            b = Abs (u) }
    >
    y = Identity (t)
}"""


@pytest.mark.parametrize(
    ("condition", "expected"),
    [(True, ["u_1 = Relu(x)", "a = Neg(u_1)"]), (False, ["u_1 = Exp(x)", "b = Abs(u_1)"])],
)
def test_the_branch_taken_moves_up(condition: bool, expected: list[str]) -> None:
    last = expected[-1].partition(" ")[0]
    fires(NAME, parse(TEXT, {"c": np.array(condition)}), [*expected, f"y = Identity({last})"])


def test_graph_output_keeps_its_name() -> None:
    text = TEXT.replace("t = If", "y = If").replace("y = Identity (t)", "")
    fires(NAME, parse(text, {"c": np.array(True)}), ["u_1 = Relu(x)", "y = Neg(u_1)"])


def test_branch_that_returns_an_outer_value_or_its_own_constant() -> None:
    text = """agraph (float[2] x) => (float[2] y, float[2] z) {
        y, z = If (c) <
            then_branch = g1 () => (float[2] a, float[2] k) <float[2] k = {1, 2}> { a = Identity (x) },
            else_branch = g2 () => (float[2] b, float[2] d) { b = Neg (x)
                d = Exp (x) }
        >
    }"""
    fires(NAME, parse(text, {"c": np.array(True)}), ["y = Identity(x)", "z = Identity(k_1)"])


def test_nested_ifs_fold_in_one_run() -> None:
    text = """agraph (float[N] x, bool d) => (float[N] y) {
        y = If (c) <
            then_branch = g1 () => (float[N] a) {
                a = If (c) <
                    then_branch = g3 () => (float[N] e) { e = If (d) <
                        then_branch = g5 () => (float[N] h) { h = Relu (x) },
                        else_branch = g6 () => (float[N] i) { i = Neg (x) } > },
                    else_branch = g4 () => (float[N] f) { f = Exp (x) }
                > },
            else_branch = g2 () => (float[N] b) { b = Abs (x) }
        >
    }"""
    result = fires(NAME, parse(text, {"c": np.array(True)}), ["y = If(d)"], count=2)
    assert lines(result.graph[0].attributes["then_branch"].as_graph()) == ["h = Relu(x)"]


def test_condition_of_one_element_in_any_rank() -> None:
    fires(NAME, parse(TEXT, {"c": np.array([True])}), count=1)


def test_condition_that_is_computed_or_overridable() -> None:
    unchanged(NAME, parse(TEXT.replace("(float[N] x)", "(float[N] x, bool c)")))
    unchanged(NAME, parse(TEXT.replace("(float[N] x)", "(float[N] x, bool c)"), {"c": np.array(True)}))


def test_inside_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N] x) => (float[N] y) { y = own.f (x) }
    <domain: "own", opset_import: ["" : 21]>
    f (v) => (w) { c = Constant <value = bool {1}> ()
        w = If (c) <
            then_branch = g1 () => (a) { a = Relu (v) },
            else_branch = g2 () => (b) { b = Neg (v) }
        > }"""
    result = fires(NAME, parse(text))
    assert lines(next(iter(result.functions.values()))) == ["w = Relu(v)"]


def test_branch_with_another_number_of_results() -> None:
    branches = TEXT.replace("=> (float[N] a)", "=> (float[N] a, float[N] u)")
    unchanged(NAME, parse(branches, {"c": np.array(True)}))


SQUEEZE = """agraph (float[N,4,D] x) => (float[R,S] y) {{
    s = Shape <start = 2, end = 3> (x)
    c = Equal (s, one)
    t = If (c) <
        then_branch = g1 () => (float[N,4] a) {{ a = Squeeze (x, two) }},
        else_branch = g2 () => (float[N,4,D] b) {{ b = Identity (x) }}
    >
    {rest}
}}"""
WEIGHTS = {
    "one": np.array([1], np.int64),
    "two": np.array([2], np.int64),
    "w": np.linspace(-1, 1, 12).astype(np.float32).reshape(4, 3),
}


def squeezed(rest: str) -> ir.Model:
    return parse(SQUEEZE.format(rest=rest), {name: one for name, one in WEIGHTS.items() if name != "w" or "w" in rest})


def test_a_branch_after_which_the_model_could_not_run() -> None:
    result = fires(NAME, squeezed("r = Relu (t) y = Gemm (r, w)"), count=1, sizes={"D": 1})
    assert lines(result)[-3:] == ["a = Squeeze(x, two)", "r = Relu(a)", "y = Gemm(r, w)"]


def test_what_is_known_then_decides_more() -> None:
    rest = """k = Shape (t)
    z = Size (k)
    e = Equal (z, axes)
    u = If (e) <
        then_branch = g3 () => (float[A,B] d) { d = Identity (t) },
        else_branch = g4 () => (float[A,B] f) { f = Unsqueeze (t, two) }
    >
    y = Gemm (u, w)"""
    model = parse(SQUEEZE.format(rest=rest), WEIGHTS | {"axes": np.array(2, np.int64)})
    result, _, _ = apply(model, "fold-shapes", NAME, "eliminate-identity")
    assert "If" not in {node.op_type for node in result.graph}
    inputs = {"x": np.arange(8, dtype=np.float32).reshape(2, 4, 1)}
    assert [np.array_equal(*pair) for pair in zip(run(model, inputs), run(result, inputs), strict=True)] == [True]


@pytest.mark.parametrize(
    "rest",
    [
        "y = Relu (t)",  # takes any number of axes
        "g = Gemm (t, w) y = Relu (t)",  # nobody needs it, so it need not run
        """q = ReduceMean <keepdims = 0> (t)
        o = CastLike (q, c)
        y = If (o) <
            then_branch = g3 () => (float[P,Q] d) { d = Gemm (t, w) },
            else_branch = g4 () => (float[A,B] f) { f = Relu (t) }
        >""",  # it may not run
        "m = ReduceMean <keepdims = 0> (t) n = Unsqueeze (m, zero_one) y = Gemm (n, w)",  # of any number of axes
        "r = Flatten (t) y = Gemm (r, w)",
    ],
)
def test_both_branches_may_be_meant(rest: str) -> None:
    extra = {"zero_one": np.array([0, 1], np.int64)} if "zero_one" in rest else {}
    weights = {name: one for name, one in WEIGHTS.items() if name != "w" or "w)" in rest}
    unchanged(NAME, parse(SQUEEZE.format(rest=rest), weights | extra))


def test_an_if_that_only_a_lost_branch_read() -> None:
    text = """agraph (float[N] x, bool d) => (float[N] y) {
        u = If (d) <
            then_branch = g1 () => (float[N] a) { a = Relu (x) },
            else_branch = g2 () => (float[N] b) { b = Neg (x) }
        >
        y = If (c) <
            then_branch = g3 () => (float[N] e) { e = Exp (x) },
            else_branch = g4 () => (float[N] f) { f = Abs (u) }
        >
    }"""
    fires(NAME, parse(text, {"c": np.array(True)}), ["y = Exp(x)"], count=1)
    fires(NAME, parse(text.replace("If (d)", "If (c)"), {"c": np.array(True)}), ["y = Exp(x)"], count=2)


def test_work_is_linear() -> None:
    def work(count: int) -> int:
        steps = "".join(
            f"""t{k + 1} = If (c) <
                then_branch = g{k} () => (float[N,4] a{k}) {{ a{k} = Neg (t{k}) }},
                else_branch = h{k} () => (float[N,4,1] b{k}) {{ b{k} = Unsqueeze (t{k}, two) }}
            >"""
            for k in range(count)
        )
        text = f"agraph (float[N,4] t0, bool c) => (float[A,B] y) {{ {steps} q = Exp (t{count}) y = Gemm (t0, q) }}"
        model = parse(text, {"two": np.array([2], np.int64)})
        return calls(lambda: apply(model, NAME))

    assert work(400) < 15 * work(40)  # 100 times if it were quadratic
