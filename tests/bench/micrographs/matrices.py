"""Rows on matrix products and what folds into them."""

from __future__ import annotations

from bench.micrographs.case import Spelling, row

__all__ = ["CASES"]

_WIDE = "(float[N,4] x) => (float[N,8] y)"
_CUBE = "(float[N,S,4] x) => (float[N,S,8] y)"
_BN = "float[8] g, float[8] b, float[8] m, float[8] v"

CASES = [
    *row(
        "Gemm and BatchNormalization",
        head=_WIDE,
        gone="BatchNormalization",
        plain=f"<float[4,8] w, float[8] c, {_BN}> {{ a = Gemm (x, w, c) y = BatchNormalization (a, g, b, m, v) }}",
        transposed=f"<float[8,4] w, float[8] c, {_BN}> {{ a = Gemm <transB = 1> (x, w, c)"
        "n = BatchNormalization (a, g, b, m, v) y = Relu (n) }",
        no_bias=f"<float[8,4] w, {_BN}> {{ a = Gemm <transB = 1, alpha = 0.5> (x, w)"
        "y = BatchNormalization (a, g, b, m, v) }",
    ),
    *row(
        "MatMul, Add and BatchNormalization",
        head=_WIDE,
        gone="BatchNormalization",
        plain=f"<float[4,8] w, float[8] c, {_BN}> {{ a = MatMul (x, w) d = Add (a, c)"
        "y = BatchNormalization (d, g, b, m, v) }",
        bias_first=f"<float[4,8] w, float[8] c, {_BN}> {{ a = MatMul (x, w) d = Add (c, a)"
        "n = BatchNormalization (d, g, b, m, v) y = Relu (n) }",
        no_bias=f"<float[4,8] w, {_BN}> {{ a = MatMul (x, w) y = BatchNormalization (a, g, b, m, v) }}",
    ),
    *row(
        "3-D MatMul, Transpose, BatchNormalization, Transpose",
        head=_CUBE,
        gone="BatchNormalization Transpose",
        plain=f"<float[4,8] w, {_BN}> {{ a = MatMul (x, w) t = Transpose <perm = [0, 2, 1]> (a)"
        "n = BatchNormalization (t, g, b, m, v) y = Transpose <perm = [0, 2, 1]> (n) }",
        bias=f"<float[4,8] w, float[8] c, {_BN}> {{ a = MatMul (x, w) d = Add (a, c) t = Transpose <perm = [0, 2, "
        f"1]> (d)"
        "n = BatchNormalization (t, g, b, m, v) u = Transpose <perm = [0, 2, 1]> (n) y = Relu (u) }",
        relu_inside=f"<float[4,8] w, float[8] c, {_BN}> {{ a = MatMul (x, w) d = Add (a, c)"
        "t = Transpose <perm = [0, 2, 1]> (d) n = BatchNormalization (t, g, b, m, v) r = Relu (n)"
        "y = Transpose <perm = [0, 2, 1]> (r) }",
    ),
    *row(
        "MatMul, then Add, Mul, Div",
        head=_CUBE,
        gone="Mul Div Sub",
        add_mul="<float[4,8] w, float[8] c, float[8] s> { a = MatMul (x, w) b = Add (a, c) y = Mul (b, s) }",
        mul="<float[4,8] w, float s = {0.5}> { a = MatMul (x, w) y = Mul (s, a) }",
        div="<float[4,8] w, float[1,1,8] v> { a = MatMul (x, w) y = Div (a, v) }",
        two_axes=f"{_WIDE} <float[4,8] w, float[8] s> {{ a = MatMul (x, w) y = Mul (a, s) }}",
        add_sub=Spelling(
            "<float[4,8] w, float[8] c, float[8] d> { a = MatMul (x, w) b = Add (a, c) y = Sub (b, d) }", gone="Sub"
        ),
    ),
    *row(
        "Gemm, then Add, Mul",
        head=_WIDE,
        gone="Add Mul",
        add="<float[4,8] w, float[8] c, float[8] s> { a = Gemm (x, w, c) y = Add (a, s) }",
        mul="<float[8,4] w, float[8] c, float[8] s> { a = Gemm <transB = 1> (x, w, c) y = Mul (a, s) }",
        both="<float[8,4] w, float[8] c, float s = {0.5}, float[1,8] t>"
        "{ a = Gemm <transB = 1, beta = 2.0> (x, w, c) b = Mul (a, s) y = Add (b, t) }",
        no_bias="<float[8,4] w, float[8] s> { a = Gemm <transB = 1> (x, w) y = Add (s, a) }",
    ),
    *row(
        "Mul, Add into MatMul, Gemm",
        head=_WIDE,
        gone="Mul Div BatchNormalization",
        mul_matmul="<float[4,8] w, float[4] s> { a = Mul (x, s) y = MatMul (a, w) }",
        scalar_gemm="<float[8,4] w, float[8] c, float s = {0.5}> { a = Mul (x, s) y = Gemm <transB = 1> (a, w, c) }",
        div="<float[4,8] w, float s = {255}> { a = Div (x, s) y = MatMul (a, w) }",
        affine_gemm=Spelling(
            "<float[8,4] w, float[8] c, float[4] s, float[4] t>"
            "{ a = Mul (x, s) b = Add (a, t) y = Gemm <transB = 1> (b, w, c) }",
            gone="Mul Add",
        ),
        batchnorm="<float[8,4] w, float[8] c, float[4] g, float[4] b, float[4] m, float[4] v>"
        "{ a = BatchNormalization (x, g, b, m, v) y = Gemm <transB = 1> (a, w, c) }",
    ),
    *row(
        "LayerNormalization's affine into MatMul",
        head=_CUBE,
        gone="elements:44",  # the gain, all ones then, has to stay
        matmul="<float[4] l, float[4] k, float[4,8] w, float[8] c>"
        "{ a = LayerNormalization (x, l, k) b = MatMul (a, w) y = Add (b, c) }",
        bias_first="<float[4] l, float[4] k, float[4,8] w, float[8] c>"
        "{ a = LayerNormalization <axis = 2> (x, l, k) b = MatMul (a, w) d = Add (c, b) y = Relu (d) }",
        gemm=f"{_WIDE} <float[4] l, float[4] k, float[8,4] w, float[8] c>"
        "{ a = LayerNormalization (x, l, k) y = Gemm <transB = 1> (a, w, c) }",
    ),
    *row(
        "2-D MatMul and Add to Gemm",
        head=_WIDE,
        gone="MatMul Add",
        plain="<float[4,8] w, float[8] c> { a = MatMul (x, w) y = Add (a, c) }",
        bias_first="<float[4,8] w, float[1,8] c> { a = MatMul (x, w) b = Add (c, a) y = Relu (b) }",
        scalar_bias="<float[4,8] w, float c = {0.5}> { a = MatMul (x, w) y = Add (a, c) }",
        computed_bias="(float[N,4] x, float[8] c) => (float[N,8] y) <float[4,8] w> { a = MatMul (x, w) y = Add "
        "(a, c) }",
    ),
    *row(
        "Transpose into Gemm",
        head="(float[4,N] x) => (float[N,8] y)",
        gone="Transpose",
        first="<float[4,8] w, float[8] c> { t = Transpose (x) y = Gemm (t, w, c) }",
        twice="<float[8,4] w, float[8] c> { t = Transpose (x) y = Gemm <transB = 1> (t, w, c) }",
        second="(float[N,4] x, float[8,4] z) => (float[N,8] y) <float[8] c>"
        "{ t = Transpose <perm = [1, 0]> (z) y = Gemm (x, t, c) }",
        linear="<float[4,8] w, float[8] c> { t = Transpose <perm = [1, 0]> (x) a = MatMul (t, w) y = Add (a, c) }",
    ),
    *row(
        "MatMul of MatMul",
        head="(float[N,16] x) => (float[N,4] y)",
        gone="MatMul:1 Gemm:1",
        shrinking="<float[16,16] w, float[16,4] u> { a = MatMul (x, w) y = MatMul (a, u) }",
        biases=Spelling(
            "<float[16,16] w, float[16] b, float[16,4] u, float[4] c>"
            "{ a = MatMul (x, w) d = Add (a, b) e = MatMul (d, u) y = Add (e, c) }",
            gone="MatMul:1 Gemm:1 Add:1",
        ),
        gemms=Spelling(
            "<float[16,16] w, float[16] b, float[4,16] u, float[4] c>"
            "{ a = Gemm (x, w, b) y = Gemm <transB = 1> (a, u, c) }",
            gone="Gemm:1",
        ),
        three_axes="(float[N,S,16] x) => (float[N,S,4] y) <float[16,16] w, float[16,4] u>"
        "{ a = MatMul (x, w) y = MatMul (a, u) }",
    ),
    *row(
        "sibling MatMuls: query, key, value",
        head="(float[N,S,8] x) => (float[N,S,8] y)",
        gone="MatMul:3",
        no_biases="<float[8,8] q, float[8,8] k, float[8,8] v, float s = {0.35}> { a = MatMul (x, q) b = MatMul (x, k)"
        "c = MatMul (x, v) t = Transpose <perm = [0, 2, 1]> (b) d = MatMul (a, t) e = Mul (d, s)"
        "f = Softmax <axis = -1> (e) y = MatMul (f, c) }",
        biases="<float[8,8] q, float[8,8] k, float[8,8] v, float[8] l, float[8] m, float[8] n>"
        "{ a = MatMul (x, q) o = Add (a, l) b = MatMul (x, k) p = Add (m, b) c = MatMul (x, v) r = Add (c, n)"
        "t = Transpose <perm = [0, 2, 1]> (p) d = MatMul (o, t) f = Softmax (d) y = MatMul (f, r) }",
        heads="<float[8,8] q, float[8,8] k, float[8,8] v, int64[4] h = {0, 0, 2, 4}, int64[3] o = {0, 0, 8}>"
        "{ a = MatMul (x, q) a2 = Reshape (a, h) a3 = Transpose <perm = [0, 2, 1, 3]> (a2) b = MatMul (x, k)"
        "b2 = Reshape (b, h) b3 = Transpose <perm = [0, 2, 3, 1]> (b2) c = MatMul (x, v) c2 = Reshape (c, h)"
        "c3 = Transpose <perm = [0, 2, 1, 3]> (c2) d = MatMul (a3, b3) f = Softmax (d) e = MatMul (f, c3)"
        "e2 = Transpose <perm = [0, 2, 1, 3]> (e) y = Reshape (e2, o) }",
    ),
    *row(
        "sibling MatMuls and Convs: gate and up",
        head="(float[N,S,8] x) => (float[N,S,16] y)",
        gone="MatMul:1 Conv:1",
        gated="<float[8,16] w, float[8,16] u> { a = MatMul (x, w) b = Sigmoid (a) c = MatMul (x, u) y = Mul (b, c) }",
        silu="<float[8,16] w, float[8,16] u> { a = MatMul (x, w) b = Sigmoid (a) d = Mul (a, b) c = MatMul (x, u)"
        "y = Mul (d, c) }",
        convs="(float[N,4,8,8] x) => (float[N,4,8,8] y) <float[4,4,1,1] w, float[4,4,1,1] u>"
        "{ a = Conv (x, w) b = Sigmoid (a) c = Conv (x, u) y = Mul (b, c) }",
    ),
    *row(
        "Einsum to MatMul",
        head="(float[B,3,4] x, float[B,4,5] z) => (float[B,3,5] y)",
        gone="Einsum",
        batch='{ y = Einsum <equation = "bij,bjk->bik"> (x, z) }',
        implicit='(float[3,4] x, float[4,5] z) => (float[3,5] y) { y = Einsum <equation = "ij, jk"> (x, z) }',
        heads="(float[B,2,3,4] x, float[B,2,4,5] z) => (float[B,2,3,5] y)"
        '{ y = Einsum <equation = "bhqd,bhdk->bhqk"> (x, z) }',
        shared='(float[B,3,4] x) => (float[B,3,5] y) <float[4,5] w>{ y = Einsum <equation = "bij,jk->bik"> (x, w) }',
        keys="(float[B,2,3,4] x, float[B,2,5,4] z) => (float[B,2,3,5] y)"
        '{ y = Einsum <equation = "bhqd,bhkd->bhqk"> (x, z) }',
        weights_transposed="(float[B,3,4] x) => (float[B,3,5] y) <float[5,4] w>"
        '{ y = Einsum <equation = "bij,kj->bik"> (x, w) }',
    ),
]
