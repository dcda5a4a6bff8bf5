"""Rows on shape arithmetic: what exporters compute at run time though it is known, or need not be known."""

from __future__ import annotations

from bench.micrographs.case import Spelling, row

__all__ = ["CASES"]

_GONE = "Shape Gather Concat Mul Div Unsqueeze Squeeze Slice Equal Where ConstantOfShape Cast"

CASES = [
    *row(
        "shape chain, static",
        head="(float[2,3,4] x) => (float[A,B] y)",
        gone=_GONE,
        gather="<int64 i = {0}, int64[1] z = {0}, int64[1] m = {-1}> { s = Shape (x) a = Gather (s, i)"
        "b = Unsqueeze (a, z) t = Concat <axis = 0> (b, m) y = Reshape (x, t) }",
        product="<int64 i = {0}, int64 j = {1}, int64[1] z = {0}, int64[1] m = {-1}> { s = Shape (x) a = Gather (s, i)"
        "b = Gather (s, j) c = Mul (a, b) d = Unsqueeze (c, z) t = Concat <axis = 0> (d, m) y = Reshape (x, t) }",
        slice="<int64[1] b = {1}, int64[1] e = {3}, int64[1] z = {0}, int64[1] m = {2}> { s = Shape (x)"
        "a = Slice (s, b, e, z) t = ReduceProd <keepdims = 1> (a) u = Concat <axis = 0> (m, t) y = Reshape (x, u) }",
    ),
    *row(
        "shape chain, (N, -1)",
        head="(float[N,3,4] x) => (float[A,B] y)",
        gone=_GONE,
        gather="<int64 i = {0}, int64[1] z = {0}, int64[1] m = {-1}> { s = Shape (x) a = Gather (s, i)"
        "b = Unsqueeze (a, z) t = Concat <axis = 0> (b, m) y = Reshape (x, t) }",
        shape_attributes="<int64[1] m = {-1}> { a = Shape <start = 0, end = 1> (x) t = Concat <axis = 0> (a, m)"
        "y = Reshape (x, t) }",
        slice="<int64[1] z = {0}, int64[1] e = {1}, int64[1] m = {12}> { s = Shape (x) a = Slice (s, z, e)"
        "t = Concat <axis = 0> (a, m) y = Reshape (x, t) }",
        cast_back="<int64 i = {0}, int64[1] z = {0}, int64[1] m = {-1}> { s = Shape (x) c = Cast <to = 6> (s)"
        "a = Gather (c, i) d = Cast <to = 7> (a) b = Unsqueeze (d, z) t = Concat <axis = 0> (b, m) y = Reshape "
        "(x, t) }",
        opset_11=Spelling(
            "<int64 i = {0}, int64[1] m = {-1}> { s = Shape (x) a = Gather (s, i)"
            "b = Unsqueeze <axes = [0]> (a) t = Concat <axis = 0> (b, m) y = Reshape (x, t) }",
            opset=11,
        ),
    ),
    *row(
        "shape chain, [0, 0, H, D]",
        head="(float[N,S,8] x) => (float[A,B,C,D] y)",
        gone=_GONE,
        gathers="<int64 i = {0}, int64 j = {1}, int64[1] z = {0}, int64[1] h = {2}, int64[1] d = {4}> { s = Shape (x)"
        "a = Gather (s, i) b = Gather (s, j) c = Unsqueeze (a, z) e = Unsqueeze (b, z)"
        "t = Concat <axis = 0> (c, e, h, d) y = Reshape (x, t) }",
        shape_attributes="<int64[1] h = {2}, int64[1] m = {-1}> { a = Shape <start = 0, end = 1> (x)"
        "b = Shape <start = 1, end = 2> (x) t = Concat <axis = 0> (a, b, h, m) y = Reshape (x, t) }",
        two_at_once="<int64[2] h = {2, 4}> { a = Shape <start = 0, end = 2> (x)"
        "t = Concat <axis = 0> (a, h) y = Reshape (x, t) }",
        of_another_value="<int64[1] h = {2}, int64[1] d = {4}, float[8,8] w> { p = MatMul (x, w)"
        "a = Shape <start = 0, end = 1> (x) b = Shape <start = 1, end = 2> (x)"
        "t = Concat <axis = 0> (a, b, h, d) y = Reshape (p, t) }",
        heads_back="(float[N,2,S,4] x) => (float[A,B,C] y) <int64[1] d = {8}> { p = Transpose <perm = [0, 2, 1, 3]> (x)"
        "a = Shape <start = 0, end = 1> (x) b = Shape <start = 2, end = 3> (x)"
        "t = Concat <axis = 0> (a, b, d) y = Reshape (p, t) }",
    ),
    *row(
        "shape chain, the product H x W",
        head="(float[N,4,H,W] x) => (float[A,B,C] y)",
        gone=_GONE,
        product="<int64 i = {0}, int64 j = {2}, int64 k = {3}, int64[1] z = {0}, int64[1] c = {4}> { s = Shape (x)"
        "n = Gather (s, i) h = Gather (s, j) w = Gather (s, k) p = Mul (h, w) a = Unsqueeze (n, z) b = Unsqueeze (p, z)"
        "t = Concat <axis = 0> (a, c, b) y = Reshape (x, t) }",
        vectors="<int64[1] c = {4}> { n = Shape <start = 0, end = 1> (x) h = Shape <start = 2, end = 3> (x)"
        "w = Shape <start = 3, end = 4> (x) p = Mul (h, w) t = Concat <axis = 0> (n, c, p) y = Reshape (x, t) }",
        reduced="<int64[1] c = {4}> { n = Shape <start = 0, end = 2> (x) h = Shape <start = 2> (x)"
        "p = ReduceProd (h) t = Concat <axis = 0> (n, p) y = Reshape (x, t) }",
        batch_too=Spelling(
            "(float[N,4,H,W] x) => (float[A,B] y) <int64[1] m = {4}> { p = Transpose <perm = [0, 2, 3, 1]> (x)"
            "n = Shape <start = 0, end = 1> (x) h = Shape <start = 2, end = 3> (x) w = Shape <start = 3, end = 4> (x)"
            "q = Mul (n, h) r = Mul (q, w) t = Concat <axis = 0> (r, m) y = Reshape (p, t) }",
        ),
    ),
    *row(
        "shape chain, torch's expand",
        head="(float[N,4] z, float[1,4] x) => (float[N,4] y)",
        gone="Equal Where ConstantOfShape Mul",
        ones="<int64[2] o = {1, 1}, int64[1] m = {4}, int64[2] q = {-1, -1}> { a = Shape <start = 0, end = 1> (z)"
        "t = Concat <axis = 0> (a, m) c = Equal (t, q) u = Where (c, o, t) e = Expand (x, u) y = Sub (e, z) }",
        constant_of_shape="<int64[1] m = {4}, int64 q = {-1}> { a = Shape <start = 0, end = 1> (z)"
        "t = Concat <axis = 0> (a, m) r = Shape (t) o = ConstantOfShape <value = int64[1] {1}> (r)"
        "f = Mul (o, q) c = Equal (t, f) u = Where (c, o, t) e = Expand (x, u) y = Sub (e, z) }",
        gathered="<int64 i = {0}, int64[1] d = {0}, int64[1] m = {-1}, int64[2] q = {-1, -1}, int64[2] o = {1, 1}>"
        "{ s = Shape (z) a = Gather (s, i) b = Unsqueeze (a, d) t = Concat <axis = 0> (b, m) c = Equal (t, q)"
        "u = Where (c, o, t) e = Expand (x, u) y = Sub (e, z) }",
        kept="(float[N,4] z, float[1,4] x) => (float[N,4] y) <int64[2] o = {1, 1}, int64[1] m = {4}, int64[2] q = "
        "{-1, -1}>"
        "{ a = Shape <start = 0, end = 1> (z) t = Concat <axis = 0> (a, m) c = Equal (t, q) u = Where (c, o, t)"
        "y = Expand (x, u) }",
    ),
    *row(
        "Gather of a range to Slice, Slice and Squeeze to Gather",
        head="(float[N,8] x) => (float[A,B] y)",
        gone="Gather:1 Slice:1 Squeeze",
        range=Spelling("<int64[4] i = {2, 3, 4, 5}> { a = Gather <axis = 1> (x, i) y = Relu (a) }", gone="Gather"),
        every_second=Spelling("<int64[3] i = {1, 3, 5}> { a = Gather <axis = 1> (x, i) y = Relu (a) }", gone="Gather"),
        all_of_it=Spelling(
            "<int64[8] i = {0, 1, 2, 3, 4, 5, 6, 7}> { a = Gather <axis = 1> (x, i) y = Relu (a) }", gone="Gather"
        ),
        one_element="(float[N,8] x) => (float[N] y) <int64[1] s = {3}, int64[1] e = {4}, int64[1] d = {1}>"
        "{ a = Slice (x, s, e, d) y = Squeeze (a, d) }",
    ),
]
