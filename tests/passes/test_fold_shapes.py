"""fold-shapes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from harness import apply, fires, lines, misses, parse, unchanged

NAME = "fold-shapes"
INDEX = {
    "i0": np.array(0),
    "i1": np.array(1),
    "i2": np.array(2),
    "u0": np.array([0]),
    "twelve": np.array([12]),
    "sixtyfour": np.array([64]),
    "minus": np.array([-1]),
}


def held(model: ir.Model, name: str) -> list[int]:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    contents: list[int] = tensor.numpy().tolist()
    return contents


def test_static_shape_becomes_a_constant() -> None:
    text = """agraph (float[2,6] x) => (float[2,6] y) {
        s = Shape (x)
        y = Reshape (x, s)
    }"""
    fires(NAME, parse(text), ["y = Reshape(x, s_1)"])


def test_heads_are_split_with_batch_and_length_unknown() -> None:
    text = """agraph (float[N,S,768] x) => (float[N,S,12,64] y) {
        s = Shape (x)
        n = Gather (s, i0)
        l = Gather (s, i1)
        n1 = Unsqueeze (n, u0)
        l1 = Unsqueeze (l, u0)
        t = Concat <axis = 0> (n1, l1, twelve, sixtyfour)
        y = Reshape (x, t)
    }"""
    result = fires(NAME, parse(text, INDEX), ["y = Reshape(x, t_1)"], sizes={"N": 2, "S": 3})
    assert held(result, "t_1") == [0, 0, 12, 64]


def test_single_moved_dim_is_inferred() -> None:
    text = """agraph (float[1,N,6] x) => (float[N,6] y) {
        s = Shape (x)
        n = Slice (s, one, two)
        t = Concat <axis = 0> (n, six)
        y = Reshape (x, t)
    }"""
    weights = {"one": np.array([1]), "two": np.array([2]), "six": np.array([6])}
    result = fires(NAME, parse(text, weights), ["y = Reshape(x, t_1)"])
    assert held(result, "t_1") == [-1, 6]


def test_expand_to_the_inputs_own_dims() -> None:
    text = """agraph (float[N,1,4] x) => (float[N,3,4] y) {
        s = Shape (x)
        n = Slice (s, u0, one)
        t = Concat <axis = 0> (n, three, four)
        y = Expand (x, t)
    }"""
    weights = {"u0": np.array([0]), "one": np.array([1]), "three": np.array([3]), "four": np.array([4])}
    result = fires(NAME, parse(text, weights), ["y = Expand(x, t_1)"])
    assert held(result, "t_1") == [1, 3, 4]


def test_inference_beside_a_dim_that_may_be_zero_is_refused() -> None:
    text = """agraph (float[N,2,H,W] x) => (float[N,2,L] y) {
        s = Shape (x)
        n = Slice (s, zero, one)
        h = Slice (s, two, three)
        w = Slice (s, three, four)
        l = Mul (h, w)
        t = Concat <axis = 0> (n, two, l)
        y = Reshape (x, t)
    }"""
    weights = {
        name: np.array([value]) for name, value in {"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4}.items()
    }
    assert misses(NAME, parse(text, weights)) == ["an empty input would no longer work"]


HEADS = """agraph (float[N,S,768] x) => (float[N,S,D,64] y) {
    s = Shape (x)
    nl = Slice (s, u0, two)
    t = Concat <axis = 0> (nl, minus, sixtyfour)
    y = Reshape <allowzero = ZERO> (x, t)
}"""


@pytest.mark.parametrize("allowzero", ["0", "1"])
def test_inferred_entry_becomes_the_extent_that_it_gives(allowzero: str) -> None:
    model = parse(HEADS.replace("ZERO", allowzero), {**INDEX, "two": np.array([2])})
    result = fires(NAME, model, ["y = Reshape(x, t_1)"], sizes={"N": 2, "S": 3})
    assert held(result, "t_1") == [0, 0, 12, 64]


def test_an_inferred_entry_that_was_there_may_stand_beside_copied_ones() -> None:
    text = """agraph (float[N,H,W,4] x) => (float[N,L,4] y) {
        s = Shape (x)
        n = Slice (s, u0, one)
        t = Concat <axis = 0> (n, minus, four)
        y = Reshape (x, t)
    }"""
    result = fires(NAME, parse(text, {**INDEX, "one": np.array([1]), "four": np.array([4])}), ["y = Reshape(x, t_1)"])
    assert held(result, "t_1") == [0, -1, 4]


def test_inference_beside_a_dim_that_is_never_zero() -> None:
    text = """agraph (float[N,2,H,W] x) => (float[M,2,L] y) {
        p = Pad (x, pads)
        s = Shape (p)
        n = Slice (s, zero, one)
        h = Slice (s, two, three)
        w = Slice (s, three, four)
        l = Mul (h, w)
        t = Concat <axis = 0> (n, two, l)
        y = Reshape (p, t)
    }"""
    numbers = {"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4}
    weights = {name: np.array([value]) for name, value in numbers.items()}
    result = fires(NAME, parse(text, {**weights, "pads": np.array([1, 0, 0, 0, 0, 0, 0, 0])}), count=1)
    assert lines(result)[-1] == "y = Reshape(p, t_1)"
    assert held(result, "t_1") == [0, 2, -1]


BESIDE = """agraph (float[N,2,H,W] x) => (float[N,2,L] y, float[N,K] z) {
    s = Shape (x)
    n = Slice (s, zero, one)
    h = Slice (s, two, three)
    w = Slice (s, three, four)
    l = Mul (h, w)
    t = Concat <axis = 0> (n, two, l)
    y = Reshape (x, t)
    f = Reshape (x, TARGET)
    z = Relu (f)
}"""
NUMBERS = {name: np.array([value]) for name, value in {"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4}.items()}


@pytest.mark.parametrize("target", ["flat", "computed"])
def test_inference_beside_a_dim_without_which_the_model_fails(target: str) -> None:
    text = BESIDE.replace("TARGET", target)
    if target == "computed":
        text = text.replace("f = Resh", "computed = Concat <axis = 0> (n, minus) f = Resh")
    weights = {**NUMBERS, "flat": np.array([0, -1]), "minus": np.array([-1])}
    result = fires(NAME, parse(text, weights))
    assert "y = Reshape(x, t_1)" in lines(result)
    assert held(result, "t_1") == [0, 2, -1]


@pytest.mark.parametrize("flat", [[-1, 8], [-1]])
def test_inference_where_an_empty_input_may_still_work(flat: list[int]) -> None:
    text = BESIDE.replace("TARGET", "flat").replace("float[N,K] z", f"float[{'A,B' if len(flat) == 2 else 'A'}] z")
    assert misses(NAME, parse(text, {**NUMBERS, "flat": np.array(flat)})) == ["an empty input would no longer work"]


def test_dead_code_proves_nothing() -> None:
    text = (
        BESIDE.replace("TARGET", "flat")
        .replace("z = Relu (f)", "z = Relu (x)")
        .replace("float[N,K] z", "float[A,B,C,D] z")
    )
    assert misses(NAME, parse(text, {**NUMBERS, "flat": np.array([0, -1])})) == ["an empty input would no longer work"]


def test_two_unknown_dims_are_refused() -> None:
    text = """agraph (float[N,M] x) => (float[M,N] y) {
        s = Shape (x)
        n = Slice (s, u0, one)
        m = Slice (s, one, two)
        t = Concat <axis = 0> (m, n)
        y = Reshape (x, t)
    }"""
    weights = {"u0": np.array([0]), "one": np.array([1]), "two": np.array([2])}
    assert misses(NAME, parse(text, weights)) == ["two dims of the Reshape's target are unknown"]


def test_known_entry_that_the_graph_returns() -> None:
    text = "agraph (float[N,6] x) => (int64 c) { s = Shape (x)\n c = Gather (s, i1) }"
    result = fires(NAME, parse(text, INDEX))
    assert lines(result) == ["c = Constant()"]


def test_unknown_entry_that_the_graph_returns_stays() -> None:
    unchanged(NAME, parse("agraph (float[N,6] x) => (int64 c) { s = Shape (x)\n c = Gather (s, i0) }", INDEX))


def test_int32_arithmetic_keeps_its_type() -> None:
    text = """agraph (float[2,6] x, int32[N] k) => (int32[N] y) {
        s = Shape (x)
        c = Cast <to = 6> (s)
        d = Gather (c, i1)
        y = Add (k, d)
    }"""
    fires(NAME, parse(text, INDEX), ["y = Add(k, d_1)"])


def test_shape_used_in_a_branch() -> None:
    text = """agraph (bool c, float[2,6] x) => (float[M] y) {
        s = Shape (x)
        y = If (c) <
            then_branch = g1 () => (float[M] a) { p = ReduceProd <keepdims = 1> (s)
                a = Reshape (x, p) },
            else_branch = g2 () => (float[M] b) { q = Slice (s, u0, one)
                z = ReduceSum <keepdims = 0> (x)
                b = Expand (z, q) }
        >
    }"""
    result = fires(NAME, parse(text, {"u0": np.array([0]), "one": np.array([1])}))
    assert [node.op_type for node in result.graph] == ["If"]


@pytest.mark.parametrize("start_end", ["<start = 1>", "<start = -1>", "<end = 1>"])
def test_shape_of_a_range_of_axes(start_end: str) -> None:
    text = f"agraph (float[2,6] x, int64[L] k) => (int64[L] y) {{ s = Shape {start_end} (x)\n y = Add (k, s) }}"
    fires(NAME, parse(text), sizes={"L": 1})


@pytest.mark.parametrize("question", ["Equal (n, i1)", "Less (n, i2)", "GreaterOrEqual (i1, n)"])
def test_branch_that_a_shape_decides(question: str) -> None:
    text = f"""agraph (float[1,N] x) => (float[1,N] y) {{
        s = Shape (x)
        n = Gather (s, i0)
        c = {question}
        y = If (c) <then_branch = g1 () => (float[1,N] a) {{ a = Relu (x) }},
                    else_branch = g2 () => (float[1,N] b) {{ b = Neg (x) }}>
    }}"""
    model, _, _ = apply(parse(text, INDEX), NAME, "fold-if")
    assert lines(model) == ["y = Relu(x)"]
    fires(NAME, parse(text, INDEX))
