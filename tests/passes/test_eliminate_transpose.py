"""eliminate-transpose."""

from __future__ import annotations

import numpy as np
import pytest
from harness import apply, fires, lines, misses, parse, unchanged

NAME = "eliminate-transpose"


def test_identity_permutation() -> None:
    text = "agraph (float[N,3,4] x) => (float[N,3,4] y) { t = Transpose<perm = [0,1,2]>(x)  y = Relu(t) }"
    fires(NAME, parse(text), ["y = Relu(x)"])


def test_rank_unknown_but_permutation_given() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "other" : 1]>
    agraph (float[N,3] x) => (float[N,3] y) { a = other.Mystery(x)  t = Transpose<perm = [0,1]>(a)  y = Relu(t) }"""
    assert lines(apply(parse(text), NAME)[0]) == ["a = other::Mystery(x)", "y = Relu(a)"]


@pytest.mark.parametrize("shape", ["[N]", "[4]", ""])
def test_default_permutation_of_a_vector_or_scalar(shape: str) -> None:
    text = f"agraph (float{shape} x) => (float{shape} y) {{ t = Transpose(x)  y = Relu(t) }}"
    fires(NAME, parse(text), ["y = Relu(x)"])


@pytest.mark.parametrize("kind", ["int4", "string", "float8e4m3fn", "bfloat16"])
def test_any_element_type(kind: str) -> None:
    text = f"agraph ({kind}[N,3] x) => ({kind}[N,3] y) {{ t = Transpose<perm = [0,1]>(x)  y = Transpose(t) }}"
    assert lines(apply(parse(text), NAME)[0]) == ["y = Transpose(x)"]


@pytest.mark.parametrize("shape", ["[1,N,4]", "[4,4,4]"])
def test_moves_that_look_like_none(shape: str) -> None:
    text = f"agraph (float{shape} x) => (float[A,B,C] y) {{ y = Transpose<perm = [1,0,2]>(x) }}"
    unchanged(NAME, parse(text))


def test_default_permutation_of_a_matrix_or_an_unknown() -> None:
    unchanged(NAME, parse("agraph (float[4,4] x) => (float[4,4] y) { y = Transpose(x) }"))
    text = """<ir_version: 10, opset_import: ["" : 21, "other" : 1]>
    agraph (float[N] x) => (float[N] y) { a = other.Mystery(x)  t = Transpose(a)  y = Relu(t) }"""
    unchanged(NAME, parse(text))


def test_interface_needs_the_node() -> None:
    text = "agraph (float[N,4] x) => (float[N,4] y) { y = Transpose<perm = [0,1]>(x) }"
    assert misses(NAME, parse(text)) == ["it computes a graph output that cannot be renamed away"]


def test_two_outputs_of_one_value() -> None:
    text = """agraph (float[N,4] x) => (float[N,4] y, float[N,4] z) {
        y = Relu(x)
        z = Transpose<perm = [0,1]>(y)
    }"""
    assert misses(NAME, parse(text)) == ["it computes a graph output that cannot be renamed away"]


def test_inside_a_loop_body() -> None:
    text = """agraph (float[N,4] x, int64 n, bool k) => (float[N,4] y) {
        y = Loop (n, k, x) <body = b (int64 i, bool c, float[N,4] a) => (bool d, float[N,4] e) {
            d = Identity(c)
            t = Transpose<perm = [0,1]>(a)
            e = Neg(t)
        }>
    }"""
    result = fires(NAME, parse(text), count=1)
    assert lines(result.graph[0].attributes["body"].as_graph()) == ["d = Identity(c)", "e = Neg(a)"]


def test_inside_a_function() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
    agraph (float[N,4] x) => (float[N,4] y) { y = own.f<p = [1,0]>(x) }
    <domain: "own", opset_import: ["" : 21]>
    f <p> (a) => (b) {
        s = Transpose<perm: ints = @p>(a)
        t = Transpose<perm = [0,1]>(s)
        b = Transpose(t)
    }"""
    result = fires(NAME, parse(text), count=1)
    (function,) = result.functions.values()
    assert lines(function) == ["s = Transpose<perm=@p>(a)", "b = Transpose(s)"]


def test_rank_that_an_expand_does_not_tell() -> None:
    text = """agraph (float[N,2] x, int64[K] s) => (float[A,B] y) { r = Reshape (x, s)  e = Expand (r, t)
        y = Transpose (e) }"""
    unchanged(NAME, parse(text, {"t": np.array([2])}))
