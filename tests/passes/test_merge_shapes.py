"""merge-shapes."""

from __future__ import annotations

import numpy as np
import pytest
from harness import apply, fires, lines, parse, unchanged

NAME = "merge-shapes"
NUMBERS = {
    "i0": np.array(0),
    "i1": np.array(1),
    "u0": np.array([0]),
    "u1": np.array([1]),
    "u2": np.array([2]),
    "minus": np.array([-1]),
    "four": np.array([4]),
    "five": np.array([5]),
    "once": np.array([1, 1]),
    "unset": np.array([-1, -1]),
}
OLD = '<ir_version: 7, opset_import: ["" : 11]>\n'


def test_neighbours_in_a_concat_come_from_one_shape() -> None:
    text = """agraph (float[N,S,20] x) => (float[N,S,4,5] y) {
        s = Shape (x)
        n = Gather (s, i0)
        l = Gather (s, i1)
        a = Unsqueeze (n, u0)
        b = Unsqueeze (l, u0)
        t = Concat <axis = 0> (a, b, four, five)
        y = Reshape (x, t)
    }"""
    expected = ["x_dims_2 = Shape<end=2, start=0>(x)", "t = Concat<axis=0>(x_dims_2, four_1)", "y = Reshape(x, t)"]
    result = fires(NAME, parse(text, NUMBERS), expected)
    joined = result.graph.initializers["four_1"].const_value
    assert joined is not None
    assert joined.numpy().tolist() == [4, 5]


def test_before_opset_15_they_are_gathered() -> None:
    text = """agraph (float[N,S,4] x) => (float[N,S,4] y) {
        s = Shape (x)
        n = Gather (s, i0)
        l = Gather (s, i1)
        a = Unsqueeze <axes = [0]> (n)
        b = Unsqueeze <axes = [0]> (l)
        t = Concat <axis = 0> (a, b, four)
        y = Reshape (x, t)
    }"""
    expected = ["s = Shape(x)", "y = Reshape(x, s)"]
    fires(NAME, parse(OLD + text, NUMBERS), expected)
    other = parse(OLD + text.replace("(a, b, four)", "(a, b, minus)"), NUMBERS)
    expected = [
        "s = Shape(x)",
        "s_dims = Gather<axis=0>(s, s_axes)",
        "t = Concat<axis=0>(s_dims, minus)",
        "y = Reshape(x, t)",
    ]
    result, _, _ = apply(other, NAME)
    assert [line.split(" = ")[1].split("(")[0] for line in lines(result)] == [
        line.split(" = ")[1].split("(")[0] for line in expected
    ]
    fires(NAME, other)


def test_another_tensor_of_the_same_batch() -> None:
    text = """agraph (float[N,4] x, float[N,7] z) => (float[N,4] y, float[N,7] w) {
        s = Shape (x)
        n = Gather (s, u0)
        t = Concat <axis = 0> (n, minus)
        y = Reshape (x, t)
        r = Relu (z)
        p = Shape (r)
        m = Slice (p, u0, u1)
        q = Concat <axis = 0> (m, minus)
        w = Reshape (r, q)
    }"""
    expected = [
        "x_dims = Shape<end=1, start=0>(x)",
        "t = Concat<axis=0>(x_dims, minus)",
        "y = Reshape(x, t)",
        "r = Relu(z)",
        "w = Reshape(r, t)",
    ]
    fires(NAME, parse(text, NUMBERS), expected)


def test_what_expand_of_torch_leaves() -> None:
    """``Where(shape == -1, 1, shape)`` is the shape."""
    text = """agraph (float[1,4] x, float[N,4] z) => (float[N,4] y) {
        s = Shape (z)
        n = Gather (s, i0)
        a = Unsqueeze (n, u0)
        t = Concat <axis = 0> (a, four)
        e = Equal (t, unset)
        w = Where (e, once, t)
        y = Expand (x, w)
    }"""
    fires(NAME, parse(text, NUMBERS), ["z_dims_1 = Shape<end=2, start=0>(z)", "y = Expand(x, z_dims_1)"])


def test_equal_arithmetic() -> None:
    text = """agraph (float[N,M] x) => (float[L] y, float[K] z) {
        s = Shape (x)
        n = Gather (s, u0)
        m = Gather (s, u1)
        nm = Mul (n, m)
        mn = Mul (m, n)
        y = Reshape (x, nm)
        z = Reshape (x, mn)
    }"""
    result = fires(NAME, parse(text, NUMBERS))
    assert lines(result)[-2:] == ["y = Reshape(x, nm)", "z = Reshape(x, nm)"]


def test_scalars_and_vectors_are_not_mixed_up() -> None:
    text = """agraph (float[N,4] x) => (int64[N] y, float[N,4] z) {
        s = Shape (x)
        n = Gather (s, i0)
        y = Range (i0, n, i1)
        a = Unsqueeze (n, u0)
        t = Concat <axis = 0> (a, minus)
        z = Reshape (x, t)
    }"""
    result = fires(NAME, parse(text, NUMBERS), count=1)
    assert lines(result) == [
        "s = Shape(x)",
        "n = Gather(s, i0)",
        "y = Range(i0, n, i1)",
        "x_dims = Shape<end=1, start=0>(x)",
        "t = Concat<axis=0>(x_dims, minus)",
        "z = Reshape(x, t)",
    ]


def test_other_types_are_not_mixed_up() -> None:
    text = """agraph (float[N,4] x) => (int32[1] y, int64[1] z) {
        s = Shape (x)
        n = Gather (s, u0)
        c = Cast <to = 6> (n)
        y = Neg (c)
        z = Neg (n)
    }"""
    fires(NAME, parse(text, NUMBERS), ["x_dims = Shape<end=1, start=0>(x)", "c = Cast<to=6>(x_dims)", *
        ["y = Neg(c)", "z = Neg(x_dims)"]])  # fmt: skip


def test_metadata_survives() -> None:
    text = """agraph (float[N,S,4] x) => (float[N,S,4] y) {
        s = Shape (x)
        a = Gather (s, u0)
        b = Gather (s, u1)
        t = Concat <axis = 0> (a, b, minus)
        y = Reshape (x, t)
    }"""
    model = parse(text, NUMBERS)
    concat = model.graph[3]
    concat.name, concat.doc_string = "target", "kept"
    concat.metadata_props["key"] = "value"
    new = fires(NAME, model).graph[1]
    assert (new.op_type, new.name, new.doc_string, new.metadata_props["key"]) == ("Concat", "target", "kept", "value")


def test_inside_a_branch_and_a_loop() -> None:
    text = """agraph (bool c, float[N,S,4] x) => (float[N,S,4] y) {
        y = If (c) <
            then_branch = g1 () => (float[N,S,4] a) { s = Shape (x)
                p = Gather (s, u0)
                q = Gather (s, u1)
                t = Concat <axis = 0> (p, q, minus)
                a = Reshape (x, t) },
            else_branch = g2 () => (float[N,S,4] b) { b = Relu (x) }
        >
    }"""
    result = fires(NAME, parse(text, NUMBERS))
    branch = result.graph[0].attributes["then_branch"].as_graph()
    assert [line.split(" = ")[1] for line in lines(branch)] == [
        "Shape<end=2, start=0>(x)", "Concat<axis=0>(x_dims_2, minus)", "Reshape(x, t)"
    ]  # fmt: skip


def test_what_a_loop_carries_may_change_its_size() -> None:
    text = """agraph (float[N,4] x) => (int64[T,1] y) {
        t = Constant <value_int = 3> ()
        on = Constant <value = bool {1}> ()
        e, y = Loop (t, on, x) <
            body = g (int64 i, bool c, float[N,4] v) => (bool d, float[M,4] w, int64[1] k) {
                d = Identity (c)
                w = Concat <axis = 0> (v, v)
                s = Shape (v)
                n = Gather (s, u0)
                r = Shape (w)
                m = Gather (r, u0)
                k = Sub (m, n)
            }
        >
    }"""
    result, _, _ = apply(parse(text, NUMBERS), NAME)
    body = result.graph[-1].attributes["body"].as_graph()
    assert lines(body)[-1].startswith("k = Sub(w_dims, v_dims)")


STAYS = {
    "output": "agraph (float[N,4] x) => (int64[1] n) { s = Shape (x)  n = Gather (s, u0) }",
    "computed": "agraph (float[N,4] x, int64[1] k) => (int64[1] y) { s = Shape <end = 1> (x)  y = Add (s, k) }",
    "static": "agraph (float[2,4] x) => (int64[2] y) { s = Shape (x)  y = Neg (s) }",
    "other dim": """agraph (float[N,4] x, float[M,4] z) => (int64[1] y) {
        s = Shape <end = 1> (x)  r = Shape <end = 1> (z)  y = Sub (s, r) }""",
    "unnamed": """agraph (float[?,4] x, float[?,4] z) => (int64[1] y) {
        s = Shape <end = 1> (x)  r = Shape <end = 1> (z)  y = Sub (s, r) }""",
    "turned round": """agraph (float[N,S,4] x) => (int64[2] y, int64[3] t) {
        a = Shape <end = 1> (x)  b = Shape <start = 1, end = 2> (x)
        t = Concat <axis = 0> (a, b, minus)  y = Concat <axis = 0> (b, a) }""",
}


@pytest.mark.parametrize("text", STAYS.values(), ids=STAYS)
def test_stays(text: str) -> None:
    unchanged(NAME, parse(text, NUMBERS))


def test_function_bodies_know_no_shapes() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    agraph (float[N,4] x) => (float[N,4] y) { y = local.block (x) }
    <domain: "local", opset_import: ["" : 21]>
    block (x) => (y) {
        i = Constant <value_ints = [0]> ()
        m = Constant <value_ints = [-1]> ()
        s = Shape (x)
        n = Gather (s, i)
        t = Concat <axis = 0> (n, m)
        y = Reshape (x, t)
    }"""
    unchanged(NAME, parse(text))
