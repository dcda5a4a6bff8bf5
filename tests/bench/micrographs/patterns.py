"""Rows on operators that exporters take to pieces, and on cheaper ones."""

from __future__ import annotations

from bench.micrographs.case import Spelling, row

__all__ = ["CASES"]

_HIDDEN = "(float[N,S,8] x) => (float[N,S,8] y)"
_NORM = "float[8] w, float[8] b, float e = {1e-5}, float two = {2}, int64[1] d = {-1}"
_PICTURE = "(float[N,4,6,6] x) => (float[N,A,B,C] y)"
_ATTENTION = "(float[N,2,S,4] q, float[N,2,T,4] k, float[N,2,T,4] v) => (float[N,2,S,4] y)"
_ROPE = "(float[N,2,S,8] x, float[1,1,S,8] c, float[1,1,S,8] s) => (float[N,2,S,8] y)"
_HALVES = "int64[1] zero = {0}, int64[1] h = {4}, int64[1] far = {9223372036854775807}, int64[1] d = {-1}"

CASES = [
    *row(
        "LayerNormalization",
        head=_HIDDEN,
        gone="ReduceMean Sqrt Pow Div Sub",
        pow=f"<{_NORM}> {{ m = ReduceMean (x, d) c = Sub (x, m) p = Pow (c, two) v = ReduceMean (p, d) a = Add (v, e)"
        "r = Sqrt (a) n = Div (c, r) g = Mul (n, w) y = Add (g, b) }",
        square=f"<{_NORM}> {{ m = ReduceMean (x, d) c = Sub (x, m) p = Mul (c, c) v = ReduceMean (p, d) a = Add (e, v)"
        "r = Sqrt (a) n = Div (c, r) g = Mul (w, n) y = Add (b, g) }",
        opset_17=Spelling(
            f"<{_NORM}> {{ m = ReduceMean <axes = [-1]> (x) c = Sub (x, m) p = Pow (c, two)"
            "v = ReduceMean <axes = [-1]> (p) a = Add (v, e) r = Sqrt (a) n = Div (c, r) g = Mul (n, w) y = Add "
            "(g, b) }",
            opset=17,
        ),
        twice_subtracted=f"<{_NORM}> {{ m = ReduceMean (x, d) c = Sub (x, m) f = Sub (x, m) p = Pow (f, two)"
        "v = ReduceMean (p, d) a = Add (v, e) r = Sqrt (a) n = Div (c, r) g = Mul (n, w) y = Add (g, b) }",
        reciprocal=f"<{_NORM}> {{ m = ReduceMean (x, d) c = Sub (x, m) p = Mul (c, c) v = ReduceMean (p, d) a = "
        f"Add (v, e)"
        "r = Sqrt (a) i = Reciprocal (r) n = Mul (c, i) g = Mul (n, w) y = Add (g, b) }",
        no_affine=f"<{_NORM}> {{ m = ReduceMean (x, d) c = Sub (x, m) p = Pow (c, two) v = ReduceMean (p, d) a = "
        f"Add (v, e)"
        "r = Sqrt (a) y = Div (c, r) }",
    ),
    *row(
        "RMSNormalization",
        head=_HIDDEN,
        gone="ReduceMean Sqrt Pow Div Reciprocal",
        opset=23,
        div=f"<{_NORM}> {{ p = Pow (x, two) m = ReduceMean (p, d) a = Add (m, e) r = Sqrt (a) n = Div (x, r)"
        "y = Mul (n, w) }",
        reciprocal=f"<{_NORM}> {{ p = Pow (x, two) m = ReduceMean (p, d) a = Add (m, e) r = Sqrt (a) i = Reciprocal (r)"
        "n = Mul (x, i) y = Mul (w, n) }",
        square=f"<{_NORM}> {{ p = Mul (x, x) m = ReduceMean (p, d) a = Add (e, m) r = Sqrt (a) i = Reciprocal (r)"
        "n = Mul (i, x) y = Mul (n, w) }",
        half="(float16[N,S,8] x) => (float16[N,S,8] y) <float16[8] w, float e = {1e-5}, float two = {2},"
        "int64[1] d = {-1}> { f = Cast <to = 1> (x) p = Pow (f, two) m = ReduceMean (p, d) a = Add (m, e) r = Sqrt (a)"
        "i = Reciprocal (r) n = Mul (f, i) h = Cast <to = 10> (n) y = Mul (w, h) }",
        one_over=f"<{_NORM}, float one = {{1}}> {{ p = Pow (x, two) m = ReduceMean (p, d) a = Add (m, e) r = Sqrt (a)"
        "i = Div (one, r) n = Mul (x, i) y = Mul (n, w) }",
    ),
    *row(
        "Gelu, erf",
        gone="Erf Div Mul Add",
        textbook="<float q = {1.4142135623730951}, float one = {1}, float h = {0.5}>"
        "{ a = Div (x, q) b = Erf (a) c = Add (b, one) d = Mul (x, c) y = Mul (d, h) }",
        multiplied="<float q = {0.70710678118654752}, float one = {1}, float h = {0.5}>"
        "{ a = Mul (x, q) b = Erf (a) c = Add (one, b) d = Mul (x, h) y = Mul (d, c) }",
        half_last="<float q = {1.4142135623730951}, float one = {1}, float h = {0.5}>"
        "{ a = Div (x, q) b = Erf (a) c = Add (b, one) d = Mul (c, h) y = Mul (x, d) }",
        root="<float two = {2}, float one = {1}, float h = {0.5}>"
        "{ q = Sqrt (two) a = Div (x, q) b = Erf (a) c = Add (b, one) d = Mul (x, c) y = Mul (h, d) }",
    ),
    *row(
        "Gelu, tanh",
        gone="Tanh Pow Mul Add",
        pow="<float k = {0.044715}, float q = {0.7978845608028654}, float one = {1}, float h = {0.5}, float three "
        "= {3}>"
        "{ p = Pow (x, three) a = Mul (p, k) b = Add (x, a) c = Mul (b, q) t = Tanh (c) u = Add (t, one) d = Mul (x, h)"
        "y = Mul (d, u) }",
        cube="<float k = {0.044715}, float q = {0.7978845608028654}, float one = {1}, float h = {0.5}>"
        "{ s = Mul (x, x) p = Mul (x, s) a = Mul (k, p) b = Add (x, a) c = Mul (b, q) t = Tanh (c) u = Add (one, t)"
        "d = Mul (x, u) y = Mul (d, h) }",
        factored="<float k = {0.044715}, float q = {0.7978845608028654}, float one = {1}, float h = {0.5}>"
        "{ s = Mul (x, x) a = Mul (s, k) b = Add (a, one) p = Mul (b, x) c = Mul (p, q) t = Tanh (c) u = Add (one, t)"
        "d = Mul (x, h) y = Mul (d, u) }",
    ),
    *row(
        "Swish, QuickGelu",
        gone="Sigmoid Mul",
        opset=24,
        silu="{ a = Sigmoid (x) y = Mul (x, a) }",
        silu_left="{ a = Sigmoid (x) b = Mul (a, x) y = Relu (b) }",
        quick="<float q = {1.702}> { a = Mul (x, q) b = Sigmoid (a) y = Mul (x, b) }",
    ),
    *row(
        "HardSwish, HardSigmoid",
        head=_PICTURE,
        gone="Clip Div Mul Add Relu Min",
        textbook="<float t = {3}, float z = {0}, float s = {6}>"
        "{ a = Add (x, t) b = Clip (a, z, s) c = Mul (x, b) y = Div (c, s) }",
        divided_first="<float t = {3}, float z = {0}, float s = {6}>"
        "{ a = Add (x, t) b = Clip (a, z, s) c = Div (b, s) y = Mul (x, c) }",
        sixth="<float t = {3}, float z = {0}, float s = {6}, float q = {0.16666667}>"
        "{ a = Add (t, x) b = Clip (a, z, s) c = Mul (b, q) y = Mul (c, x) }",
        of_hard_sigmoid="{ a = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x) y = Mul (x, a) }",
        hard_sigmoid="<float t = {3}, float z = {0}, float s = {6}>"
        "{ a = Add (x, t) b = Clip (a, z, s) y = Div (b, s) }",
        relu6="<float t = {3}, float s = {6}> { a = Add (x, t) r = Relu (a) b = Min (r, s) c = Mul (x, b) y = Div "
        "(c, s) }",
    ),
    *row(
        "Softplus, Mish",
        gone="Exp Log Tanh Mul Add Softplus",
        softplus=Spelling("<float one = {1}> { a = Exp (x) b = Add (a, one) y = Log (b) }", gone="Exp Log Add"),
        softplus_left=Spelling(
            "<float one = {1}> { a = Exp (x) b = Add (one, a) c = Log (b) y = Neg (c) }", gone="Exp Log"
        ),
        mish="{ a = Softplus (x) b = Tanh (a) y = Mul (x, b) }",
        mish_in_pieces="<float one = {1}> { a = Exp (x) b = Add (a, one) c = Log (b) d = Tanh (c) y = Mul (d, x) }",
    ),
    *row(
        "DepthToSpace",
        head="(float[N,8,3,5] x) => (float[N,2,6,10] y)",
        gone="Reshape Transpose",
        dcr="<int64[6] s = {-1, 2, 2, 2, 3, 5}, int64[4] t = {-1, 2, 6, 10}>"
        "{ a = Reshape (x, s) b = Transpose <perm = [0, 3, 4, 1, 5, 2]> (a) y = Reshape (b, t) }",
        crd="<int64[6] s = {-1, 2, 2, 2, 3, 5}, int64[4] t = {-1, 2, 6, 10}>"
        "{ a = Reshape (x, s) b = Transpose <perm = [0, 1, 4, 2, 5, 3]> (a) y = Reshape (b, t) }",
        zeros="<int64[6] s = {0, 2, 2, 2, 3, 5}, int64[4] t = {0, 2, 6, 10}>"
        "{ a = Reshape (x, s) b = Transpose <perm = [0, 1, 4, 2, 5, 3]> (a) c = Reshape (b, t) y = Relu (c) }",
    ),
    *row(
        "SpaceToDepth",
        head="(float[N,2,6,10] x) => (float[N,8,3,5] y)",
        gone="Reshape Transpose Slice Concat",
        reshapes="<int64[6] s = {-1, 2, 3, 2, 5, 2}, int64[4] t = {-1, 8, 3, 5}>"
        "{ a = Reshape (x, s) b = Transpose <perm = [0, 3, 5, 1, 2, 4]> (a) y = Reshape (b, t) }",
        focus="<int64[1] z = {0}, int64[1] o = {1}, int64[1] e = {99}, int64[1] h = {2}, int64[1] w = {3}>"
        "{ a = Slice (x, z, e, h, h) a0 = Slice (a, z, e, w, h) a1 = Slice (a, o, e, w, h) b = Slice (x, o, e, h, h)"
        "b0 = Slice (b, z, e, w, h) b1 = Slice (b, o, e, w, h) y = Concat <axis = 1> (a0, b0, a1, b1) }",
        focus_two_axes="<int64[2] zz = {0, 0}, int64[2] zo = {0, 1}, int64[2] oz = {1, 0}, int64[2] oo = {1, 1},"
        "int64[2] e = {99, 99}, int64[2] d = {2, 3}, int64[2] t = {2, 2}> { a = Slice (x, zz, e, d, t)"
        "b = Slice (x, zo, e, d, t) c = Slice (x, oz, e, d, t) f = Slice (x, oo, e, d, t)"
        "y = Concat <axis = 1> (a, b, c, f) }",
    ),
    *row(
        "reductions: GlobalAveragePool, keepdims",
        head=_PICTURE,
        gone="Squeeze Unsqueeze Flatten Reshape",
        squeeze="(float[N,4,6,6] x) => (float[N,4] y) <int64[2] d = {2, 3}>"
        "{ a = ReduceMean (x, d) y = Squeeze (a, d) }",
        unsqueeze="(float[N,4,6,6] x) => (float[N,4,1,1] y) <int64[2] d = {2, 3}>"
        "{ a = ReduceMean <keepdims = 0> (x, d) y = Unsqueeze (a, d) }",
        flatten="(float[N,4,6,6] x) => (float[N,4] y) <int64[2] d = {2, 3}> { a = ReduceMean (x, d) y = Flatten (a) }",
        reshape="(float[N,4,6,6] x) => (float[N,4] y) <int64[2] d = {2, 3}, int64[2] s = {-1, 4}>"
        "{ a = ReduceMean (x, d) y = Reshape (a, s) }",
    ),
    *row(
        "GroupNormalization",
        head="(float[N,4,6,6] x) => (float[N,4,6,6] y)",
        gone="InstanceNormalization Reshape",
        torch="<int64[3] s = {0, 2, -1}, int64[4] t = {-1, 4, 6, 6}, float[2] one = {1, 1}, float[2] zero = {0, 0},"
        "float[4,1,1] w, float[4,1,1] b> { a = Reshape (x, s) n = InstanceNormalization (a, one, zero)"
        "r = Reshape (n, t) g = Mul (r, w) y = Add (g, b) }",
        own_shape="<int64[3] s = {0, 2, -1}, float[2] one = {1, 1}, float[2] zero = {0, 0}, float[4,1,1] w,"
        "float[4,1,1] b> { t = Shape (x) a = Reshape (x, s) n = InstanceNormalization (a, one, zero)"
        "r = Reshape (n, t) g = Mul (r, w) y = Add (g, b) }",
        vectors="(float[N,4,9] x) => (float[N,4,9] y) <int64[3] s = {0, 2, -1}, int64[3] t = {-1, 4, 9},"
        "float[2] one = {1, 1}, float[2] zero = {0, 0}, float[4,1] w, float[4,1] b> { a = Reshape (x, s)"
        "n = InstanceNormalization (a, one, zero) r = Reshape (n, t) g = Mul (r, w) y = Add (g, b) }",
    ),
    *row(
        "attention",
        head=_ATTENTION,
        gone="Softmax MatMul",
        opset=23,
        option="fuse-attention",
        plain="<float s = {0.5}> { t = Transpose <perm = [0, 1, 3, 2]> (k) a = MatMul (q, t) b = Mul (a, s)"
        "c = Softmax (b) y = MatMul (c, v) }",
        masked="(float[N,2,S,4] q, float[N,2,T,4] k, float[N,2,T,4] v, float[N,1,S,T] m) => (float[N,2,S,4] y)"
        "<float s = {2}> { t = Transpose <perm = [0, 1, 3, 2]> (k) a = MatMul (q, t) b = Div (a, s) d = Add (b, m)"
        "c = Softmax <axis = -1> (d) y = MatMul (c, v) }",
        scaled_sides="<float s = {0.70710678}> { t = Transpose <perm = [0, 1, 3, 2]> (k) e = Mul (q, s) f = Mul (t, s)"
        "a = MatMul (e, f) c = Softmax (a) y = MatMul (c, v) }",
        unscaled="{ t = Transpose <perm = [0, 1, 3, 2]> (k) a = MatMul (q, t) c = Softmax (a) y = MatMul (c, v) }",
        projected=Spelling(
            "(float[N,S,8] x) => (float[N,S,8] y) <float[8,8] w, float[8,8] u, float[8,8] z, int64[4] h = {0, 0, 2, 4},"
            "int64[3] o = {0, 0, 8}, float s = {2}> { q = MatMul (x, w) q1 = Reshape (q, h)"
            "q2 = Transpose <perm = [0, 2, 1, 3]> (q1) k = MatMul (x, u) k1 = Reshape (k, h)"
            "k2 = Transpose <perm = [0, 2, 3, 1]> (k1) v = MatMul (x, z) v1 = Reshape (v, h)"
            "v2 = Transpose <perm = [0, 2, 1, 3]> (v1) a = MatMul (q2, k2) b = Div (a, s) c = Softmax <axis = -1> (b)"
            "d = MatMul (c, v2) e = Transpose <perm = [0, 2, 1, 3]> (d) y = Reshape (e, o) }",
            gone="Softmax",
        ),
        exported=Spelling(
            "(float[2,6,8] x) => (float[2,6,8] y) <float[8,8] w, float[8,8] u, float[8,8] z, float[8,8] p, float[8] i,"
            "float[8] j, float[8] k, int64[4] h = {2, 6, 2, 4}, int64[3] o = {2, 6, 8}, float s = {2}>"
            "{ q0 = MatMul (x, w) q = Add (q0, i) q1 = Reshape (q, h) q2 = Transpose <perm = [0, 2, 1, 3]> (q1)"
            "k0 = MatMul (x, u) k3 = Add (k0, j) k1 = Reshape (k3, h) k2 = Transpose <perm = [0, 2, 3, 1]> (k1)"
            "v0 = MatMul (x, z) v = Add (v0, k) v1 = Reshape (v, h) v2 = Transpose <perm = [0, 2, 1, 3]> (v1)"
            "a = MatMul (q2, k2) b = Div (a, s) c = Softmax <axis = -1> (b) d = MatMul (c, v2)"
            "e = Transpose <perm = [0, 2, 1, 3]> (d) f = Reshape (e, o) y = MatMul (f, p) }",
            gone="Softmax",
        ),
    ),
    *row(
        "rotary embedding",
        head=_ROPE,
        gone="Slice Neg Concat Split",
        opset=23,
        slices=f"<{_HALVES}> {{ a = Mul (x, c) l = Slice (x, zero, h, d) r = Slice (x, h, far, d) n = Neg (r)"
        "t = Concat <axis = -1> (n, l) b = Mul (t, s) y = Add (a, b) }",
        computed=f"(float[2,2,S,8] x, float[2,S,4] f) => (float[2,2,S,8] y) <{_HALVES}, int64[1] one = {{1}}>"
        "{ e = Concat <axis = -1> (f, f) c0 = Cos (e) c = Unsqueeze (c0, one) s0 = Sin (e) s = Unsqueeze (s0, one)"
        "a = Mul (x, c) l = Slice (x, zero, h, d) r = Slice (x, h, far, d) n = Neg (r)"
        "t = Concat <axis = -1> (n, l) b = Mul (t, s) y = Add (a, b) }",
        split="{ a = Mul (x, c) l, r = Split <axis = -1, num_outputs = 2> (x) n = Neg (r)"
        "t = Concat <axis = -1> (n, l) b = Mul (t, s) y = Add (a, b) }",
        gathered=f"(float[N,2,S,8] x, int64[N,S] p) => (float[N,2,S,8] y) <float[64,8] c, float[64,8] s, {_HALVES},"
        "int64[1] one = {1}> { c0 = Gather (c, p) c1 = Unsqueeze (c0, one) s0 = Gather (s, p) s1 = Unsqueeze (s0, one)"
        "a = Mul (x, c1) l = Slice (x, zero, h, d) r = Slice (x, h, far, d) n = Neg (r)"
        "t = Concat <axis = -1> (n, l) b = Mul (t, s1) y = Add (a, b) }",
    ),
    *row(
        "Div by a constant to Mul",
        gone="Div",
        scalar="<float q = {3}> { a = Div (x, q) y = Relu (a) }",
        vector="<float[4] v> { a = Div (x, v) y = Relu (a) }",
        constant="{ q = Constant <value_float = 8.0> () y = Div (x, q) }",
    ),
    *row(
        "Pow to Mul, Sqrt, Reciprocal",
        gone="Pow",
        square="<float q = {2}> { y = Pow (x, q) }",
        integer="<int64 q = {2}> { y = Pow (x, q) }",
        root="<float q = {0.5}> { a = Abs (x) y = Pow (a, q) }",
        inverse="<float[1] q = {-1}> { y = Pow (x, q) }",
        inverse_root="<float q = {-0.5}> { a = Abs (x) y = Pow (a, q) }",
        cube="<float q = {3}> { y = Pow (x, q) }",
    ),
]
