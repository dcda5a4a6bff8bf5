"""fold-constants."""

from __future__ import annotations

import numpy as np
import pytest
from harness import apply, fires, lines, parse, unchanged

NAME = "fold-constants"


def weight(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def test_chain_of_constants_becomes_one() -> None:
    text = """agraph (float[N,4] x) => (float[N,6] y) {
        t = Transpose (w)
        m = Mul (t, w2)
        y = MatMul (x, m)
    }"""
    fires(NAME, parse(text, {"w": weight(6, 4), "w2": weight(4, 6)}), ["y = MatMul(x, m_1)"], count=2)


def test_constant_nodes_count_as_constants() -> None:
    text = """agraph (float[3] x) => (float[3] y) {
        a = Constant <value = float[3] {1, 2, 3}> ()
        b = Exp (a)
        y = Add (x, b)
    }"""
    result = fires(NAME, parse(text))
    assert [node.op_type for node in result.graph if node.op_type != "Constant"] == ["Add"]


def test_foldable_graph_output_becomes_a_constant_node() -> None:
    text = "agraph (float[N] x) => (float[4] y, float[N] z) { y = Exp (w)\n z = Exp (x) }"
    fires(NAME, parse(text, {"w": weight(4)}), ["y = Constant()", "z = Exp(x)"])


def test_value_that_is_read_inside_too_stays_available() -> None:
    text = """agraph (float[4] x) => (float[4] y, float[4] z) {
        a = Exp (w)
        b = Neg (a)
        y = Add (x, a)
        z = Add (x, b)
    }"""
    fires(NAME, parse(text, {"w": weight(4)}), ["y = Add(x, a_1)", "z = Add(x, b_1)"], count=2)


def test_inside_a_branch_with_captured_constants() -> None:
    text = """agraph (bool c, float[4] x) => (float[4] y) {
        e = Exp (w)
        y = If (c) <
            then_branch = g1 () => (float[4] a) { k = Neg (e)
                a = Add (x, k) },
            else_branch = g2 () => (float[4] b) { b = Sub (x, w) }
        >
    }"""
    result = fires(NAME, parse(text, {"w": weight(4)}))
    branch = next(node for node in result.graph if node.op_type == "If").attributes["then_branch"].as_graph()
    assert [node.op_type for node in branch] == ["Add"]
    assert not [node for node in result.graph if node.op_type == "Exp"]


def test_function_bodies_get_constant_nodes() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[2] x) => (float[2] y) { y = own.f (x) }
    <domain: "own", opset_import: ["" : 21]>
    f (v) => (w) { c = Constant <value = float[2] {1, 2}> ()
        d = Exp (c)
        w = Add (v, d) }"""
    result = fires(NAME, parse(text))
    body = next(iter(result.functions.values()))
    assert [node.op_type for node in body] == ["Constant", "Add"]


@pytest.mark.parametrize("op", ["RandomNormalLike (w)", "Bernoulli (w)", "RandomUniform <shape = [4]> ()"])
def test_random_results_never_fold(op: str) -> None:
    unchanged(NAME, parse(f"agraph (float[4] x) => (float[4] y) {{ r = {op}\n y = Add (x, r) }}", {"w": weight(4)}))


def test_overridable_initializer_never_folds() -> None:
    unchanged(
        NAME,
        parse("agraph (float[4] x, float[4] w) => (float[4] y) { e = Exp (w)\n y = Add (x, e) }", {"w": weight(4)}),
    )


def test_dequantized_weight_stays_small() -> None:
    text = "agraph (float[N,4] x) => (float[N,4] y) { d = DequantizeLinear (q, s)\n y = MatMul (x, d) }"
    unchanged(NAME, parse(text, {"q": np.ones((4, 4), np.int8), "s": np.array(0.1, np.float32)}))


@pytest.mark.parametrize(
    "bomb",
    [
        "e = ConstantOfShape (s)",
        "e = Expand (one, s)",
        "e = Tile (ones, s)",
        "b = ConstantOfShape (s)\n e = ReduceSum <keepdims = 0> (b)",
    ],
)
def test_bombs_are_left_alone(bomb: str) -> None:
    text = f"agraph (float[N] x) => (float[M] y) {{ {bomb}\n y = Add (x, e) }}"
    weights = {
        "s": np.array([10**6, 10**6], np.int64),
        "one": np.ones(1, np.float32),
        "ones": np.ones((1, 1), np.float32),
    }
    model = parse(text, weights)
    result, stats, _ = apply(model, NAME)
    assert not stats.counts
    assert lines(result) == lines(model)


@pytest.mark.parametrize(
    ("slow", "shape"),
    [
        ("e = AveragePool <kernel_shape = [300, 300], pads = [150, 150, 150, 150]> (w)", (1, 1, 500, 500)),
        ('e = Einsum <equation = "abcd,efgh->"> (w, w)', (1, 1, 500, 500)),
        ("e = Det (w)", (1, 1, 500, 500)),
    ],
)
def test_what_takes_too_long_is_left_alone(slow: str, shape: tuple[int, ...]) -> None:
    text = f"agraph (float x) => (float z) {{ {slow}\n m = ReduceMax <keepdims = 0> (e)\n z = Add (x, m) }}"
    unchanged(NAME, parse(text, {"w": np.ones(shape, np.float32)}))


def test_what_takes_too_much_memory_together_is_left_alone() -> None:
    big = "\n".join(f"b{n} = ConstantOfShape <value = float {{{n}}}> (s)" for n in range(20))
    text = f"""agraph (float x) => (float z) {{
        {big}
        e = Sum ({", ".join(f"b{n}" for n in range(20))})
        m = ReduceMax <keepdims = 0> (e)
        z = Add (x, m)
    }}"""
    unchanged(NAME, parse(text, {"s": np.array([4000, 4000], np.int64)}))


@pytest.mark.parametrize("op", ["Div", "Mod"])
@pytest.mark.parametrize("divisor", ["b", "c"])
def test_division_that_kills_the_process_is_left_alone(op: str, divisor: str) -> None:
    text = f"agraph (int64[1] x) => (int64[1] z) {{ c = Neg (one)\n e = {op} (a, {divisor})\n z = Add (x, e) }}"
    smallest, one = np.array([-(2**63)], np.int64), np.ones(1, np.int64)
    result, _, _ = apply(parse(text, {"a": smallest, "b": -one, "one": one}), NAME)
    assert op in [node.op_type for node in result.graph]


def test_division_by_a_computed_constant_folds() -> None:
    text = "agraph (int64[1] x) => (int64[1] z) { c = Neg (b)\n e = Div (a, c)\n z = Add (x, e) }"
    weights = {"a": np.array([7], np.int64), "b": np.array([-2], np.int64)}
    fires(NAME, parse(text, weights), ["z = Add(x, e_1)"])


def test_growth_beyond_the_budget_is_left_alone_and_the_rest_folds() -> None:
    text = """agraph (float[64,64] x) => (float[64,64] y, float[4] z) {
        big = ConstantOfShape (s)
        y = Add (x, big)
        small = Exp (w)
        z = Neg (small)
    }"""
    weights = {"s": np.array([64, 64], np.int64), "w": weight(4)}
    fires(
        f"{NAME}:max-bytes=1000",
        parse(text, weights),
        ["big = ConstantOfShape(s)", "y = Add(x, big)", "z = Constant()"],
    )
    fires(f"{NAME}:max-bytes=20000", parse(text, weights), ["y = Add(x, big_1)", "z = Constant()"])


def test_dying_weights_count_in_favour() -> None:
    text = "agraph (float[N,64] x) => (float[N,64] y) { t = Transpose (w)\n y = MatMul (x, t) }"
    fires(f"{NAME}:max-bytes=0", parse(text, {"w": weight(64, 64)}), ["y = MatMul(x, t_1)"])


def test_shared_weight_that_stays_counts_against() -> None:
    text = """agraph (float[N,64] x) => (float[N,64] y, float[N,64] z) {
        t = Transpose (w)
        y = MatMul (x, t)
        z = MatMul (x, w)
    }"""
    unchanged(f"{NAME}:max-bytes=1000", parse(text, {"w": weight(64, 64)}))


def test_part_that_fits_folds_although_its_end_does_not() -> None:
    text = """agraph (float[100,100] x) => (float[100,100] y) {
        a = Add (s, s)
        b = Expand (one, a)
        y = Add (x, b)
    }"""
    weights = {"s": np.array([50, 50], np.int64), "one": np.ones((1, 1), np.float32)}
    fires(f"{NAME}:max-bytes=100", parse(text, weights), ["b = Expand(one, a_1)", "y = Add(x, b)"])


def test_what_onnx_runtime_cannot_compute_does_not_stop_the_rest() -> None:
    text = """agraph (float[2,2] x) => (float[2,2] y, float[2,2] z) {
        bad = Reshape (w, s)
        y = Add (x, bad)
        good = Exp (w)
        z = Add (x, good)
    }"""
    model = parse(text, {"w": weight(2, 2), "s": np.array([-7, 2], np.int64)})
    result, _, _ = apply(model, NAME)
    assert "z = Add(x, good_1)" in lines(result)
    assert "y = Add(x, bad)" in lines(result)


def test_half_precision_and_integers_keep_their_type() -> None:
    text = """agraph (float16[3] x, int8[3] i) => (float16[3] y, int8[3] j) {
        e = Exp (h)
        y = Add (x, e)
        k = Add (w, w)
        j = Add (i, k)
    }"""
    fires(
        NAME,
        parse(text, {"h": np.ones(3, np.float16), "w": np.ones(3, np.int8)}),
        ["y = Add(x, e_1)", "j = Add(i, k_1)"],
    )
