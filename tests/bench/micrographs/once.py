"""Rows on what is computed twice, too early to know, or for nobody; and on control flow and functions."""

from __future__ import annotations

from bench.micrographs.case import Spelling, row

__all__ = ["CASES"]

_LOCAL = '"local" : 1'
_FUNCTION = '<domain: "local", opset_import: ["" : 21]>'

CASES = [
    *row(
        "common subexpressions",
        gone="Relu:1 Exp:1 Clip:1 LeakyRelu:1",
        plain="{ a = Relu (x) b = Relu (x) y = Add (a, b) }",
        chains="{ a = Relu (x) b = Exp (a) c = Relu (x) d = Exp (c) y = Sub (b, d) }",
        attributes="{ a = LeakyRelu <alpha = 0.2> (x) b = LeakyRelu <alpha = 0.2> (x) y = Mul (a, b) }",
        equal_constants="<float l = {0.5}, float m = {0.5}> { a = Clip (x, l) b = Clip (x, m) y = Mul (a, b) }",
        default_attribute="{ a = LeakyRelu <alpha = 0.01> (x) b = LeakyRelu (x) y = Mul (a, b) }",
    ),
    *row(
        "commutative common subexpressions",
        head="(float[N,4] x, float[N,4] z) => (float[N,4] y)",
        gone="Add:1 Mul:1 Max:1",
        add="{ a = Add (x, z) b = Add (z, x) y = Div (a, b) }",
        mul="{ a = Mul (x, z) b = Mul (z, x) y = Sub (a, b) }",
        max="{ a = Max (x, z) b = Max (z, x) y = Sub (a, b) }",
        chain="{ a = Mul (x, z) b = Mul (z, x) c = Add (a, z) d = Add (z, b) y = Sub (c, d) }",
    ),
    *row(
        "equal initializers, 64 elements",
        head="(float[N,8] x) => (float[N,8] y)",
        gone="initializer:1",
        floats="<float[8,8] w_a, float[8,8] w_b> { a = MatMul (x, w_a) y = MatMul (a, w_b) }",
        integers="(float[N,8] x) => (float[A,B] y) <int64[2] s = {-1, 4}, int64[2] t = {-1, 4}>"
        "{ a = Reshape (x, s) b = Reshape (x, t) y = Add (a, b) }",
        scalars="<float s = {0.3}, float t = {0.3}> { a = Mul (x, s) b = Relu (a) y = Sub (b, t) }",
    ),
    *row(
        "equal initializers, 64 KB",
        head="(float[N,128] x) => (float[N,128] y)",
        gone="initializer:1",
        two="<float[128,128] w_a, float[128,128] w_b> { a = MatMul (x, w_a) b = Relu (a) y = MatMul (b, w_b) }",
        three="<float[128,128] w_a, float[128,128] w_b, float[128,128] w_c>"
        "{ a = MatMul (x, w_a) b = Relu (a) c = MatMul (b, w_b) d = Relu (c) y = MatMul (d, w_c) }",
        embedding="(int64[N] x) => (float[N,64] y) <float[256,64] w_a, float[256,64] w_b>"
        "{ a = Gather (w_a, x) b = Relu (a) c = Gather (w_b, x) y = Mul (b, c) }",
    ),
    *row(
        "dead nodes",
        gone="Exp Log MatMul If",
        one="{ a = Exp (x) y = Relu (x) }",
        chain="{ a = Exp (x) b = Log (a) y = Relu (x) }",
        with_weights=Spelling("<float[4,4] w> { a = MatMul (x, w) y = Relu (x) }", gone="MatMul initializer"),
        control_flow="(float[N,4] x, bool c) => (float[N,4] y) { a = If (c) <"
        "then_branch = t () => (float[N,4] p) { p = Exp (x) }, else_branch = e () => (float[N,4] q) { q = Log (x) }>"
        "y = Relu (x) }",
    ),
    *row(
        "unused initializers",
        gone="initializer:1",
        one="<float[4] w, float[4] u> { y = Mul (x, w) }",
        many="<float[4] w, float[9] u, int64[2] s = {1, 2}, float q = {0}> { y = Mul (x, w) }",
        large="<float[4] w, float[64,64] u> { y = Mul (x, w) }",
    ),
    *row(
        "unused input",
        gone="input:1",
        option="remove-unused-inputs",
        last="(float[N,4] x, float[N,4] z) => (float[N,4] y) { y = Relu (x) }",
        first="(int64[N] z, float[N,4] x) => (float[N,4] y) { y = Relu (x) }",
        dead="(float[N,4] x, float[N,4] z) => (float[N,4] y) { a = Exp (z) y = Relu (x) }",
    ),
    *row(
        "constant folding",
        gone="Add Neg Transpose Sqrt Constant:1 ConstantOfShape Cast Unsqueeze Shape Gather",
        binary=Spelling("<float[4] w, float[4] u> { a = Neg (w) b = Mul (a, u) y = Mul (x, b) }", gone="Neg Mul:1"),
        weights="<float[4,4] w> { a = Transpose (w) y = MatMul (x, a) }",
        constants="{ c = Constant <value_floats = [1.5, 2.0, 0.5, 3.0]> () d = Sqrt (c) y = Mul (x, d) }",
        of_shape="<int64[2] s = {1, 4}> { a = ConstantOfShape <value = float[1] {2}> (s) y = Mul (x, a) }",
        static_shape="(float[2,4] x) => (float[2,4] y) <int64 i = {1}> { s = Shape (x) a = Gather (s, i)"
        "b = Cast <to = 1> (a) c = Sqrt (b) y = Mul (x, c) }",
    ),
    *row(
        "constant folding, 1 MB",
        head="(float[N,512] x) => (float[N,512] y)",
        gone="Transpose Neg",
        transpose="<float[512,512] w> { a = Transpose (w) y = MatMul (x, a) }",
        scale=Spelling("<float[512,512] w, float s = {0.5}> { a = Mul (w, s) y = MatMul (x, a) }", gone="Mul"),
        twice="<float[512,512] w> { a = Neg (w) b = Transpose (a) y = MatMul (x, b) }",
    ),
    *row(
        "If of a constant",
        gone="If",
        initializer="<bool c = {1}> { y = If (c) <then_branch = t () => (float[N,4] p) { p = Exp (x) },"
        "else_branch = e () => (float[N,4] q) { q = Neg (x) }> }",
        computed="<float l = {3}, float h = {2}> { c = Less (l, h) a = If (c) <"
        "then_branch = t () => (float[N,4] p) { p = Exp (x) },"
        "else_branch = e () => (float[N,4] q) { r = Neg (x) q = Relu (r) }> y = Abs (a) }",
        two_results="{ c = Constant <value = bool {0}> () a, b = If (c) <"
        "then_branch = t () => (float[N,4] p, float[N,4] q) { p = Exp (x) q = Neg (x) },"
        "else_branch = e () => (float[N,4] r, float[N,4] s) { r = Neg (x) s = Exp (x) }> y = Div (a, b) }",
        nested="<bool c = {1}> { y = If (c) <then_branch = t () => (float[N,4] p) { p = If (c) <"
        "then_branch = u () => (float[N,4] v) { v = Exp (x) }, else_branch = w () => (float[N,4] k) { k = Abs (x) }> },"
        "else_branch = e () => (float[N,4] q) { q = Neg (x) }> }",
    ),
    *row(
        "If of a shape",
        gone="If",
        dim="<int64 i = {1}, int64 four = {4}> { s = Shape (x) a = Gather (s, i) c = Equal (a, four) y = If (c) <"
        "then_branch = t () => (float[N,4] p) { p = Exp (x) }, else_branch = e () => (float[N,4] q) { q = Neg (x) }> }",
        rank="<int64 two = {2}> { s = Shape (x) r = Size (s) c = Equal (r, two) y = If (c) <"
        "then_branch = t () => (float[N,4] p) { p = Exp (x) }, else_branch = e () => (float[N,4] q) { q = Neg (x) }> }",
        squeezable="(float[N,1,4] x) => (float[N,4] y) <int64 one = {1}, int64[1] d = {1}>"
        "{ s = Shape <start = 1, end = 2> (x) a = Squeeze (s) c = Equal (a, one) y = If (c) <"
        "then_branch = t () => (float[N,4] p) { p = Squeeze (x, d) }, else_branch = e () => (float[N,1,4] q) { q "
        "= Neg (x) }"
        "> }",
    ),
    *row(
        "Loop of a constant trip count",
        gone="Loop",
        carried="<int64 n = {3}, bool c = {1}> { y = Loop (n, c, x) <"
        "body = b (int64 i, bool k, float[N,4] s) => (bool k2, float[N,4] t) { k2 = Identity (k) t = Exp (s) }> }",
        once="<int64 n = {1}> { y = Loop (n, , x) <"
        "body = b (int64 i, bool k, float[N,4] s) => (bool k2, float[N,4] t) { k2 = Identity (k) t = Relu (s) }> }",
        with_index="<int64 n = {2}, bool c = {1}> { y = Loop (n, c, x) <"
        "body = b (int64 i, bool k, float[N,4] s) => (bool k2, float[N,4] t)"
        "{ k2 = Identity (k) f = Cast <to = 1> (i) t = Add (s, f) }> }",
        scanned="(float[N,4] x) => (float[3,N,4] y) <int64 n = {3}, bool c = {1}> { z, y = Loop (n, c, x) <"
        "body = b (int64 i, bool k, float[N,4] s) => (bool k2, float[N,4] t, float[N,4] u)"
        "{ k2 = Identity (k) t = Exp (s) u = Neg (s) }> }",
    ),
    *row(
        "inside an If",
        head="(float[N,4] x, bool c) => (float[N,4] y)",
        gone="Identity Transpose Dropout",
        identity="{ y = If (c) <then_branch = t () => (float[N,4] p) { a = Identity (x) p = Exp (a) },"
        "else_branch = e () => (float[N,4] q) { q = Neg (x) }> }",
        transposes="{ y = If (c) <then_branch = t () => (float[N,4] p) { a = Transpose (x) b = Transpose (a) p = "
        "Exp (b) },"
        "else_branch = e () => (float[N,4] q) { q = Neg (x) }> }",
        dead=Spelling(
            "{ y = If (c) <then_branch = t () => (float[N,4] p) { a = Exp (x) p = Abs (x) },"
            "else_branch = e () => (float[N,4] q) { q = Neg (x) }> }",
            gone="Exp",
        ),
        folded=Spelling(
            "<float[4] w> { y = If (c) <then_branch = t () => (float[N,4] p) { a = Sqrt (w) b = Exp (a) p = Mul "
            "(x, b) },"
            "else_branch = e () => (float[N,4] q) { q = Neg (x) }> }",
            gone="Sqrt Exp",
        ),
    ),
    *row(
        "inside a Loop",
        head="(float[N,4] x, int64 n) => (float[N,4] y)",
        gone="Neg:1 Transpose Sqrt",
        folded="<bool c = {1}, float[4] w = {1, 4, 9, 16}> { y = Loop (n, c, x) <"
        "body = b (int64 i, bool k, float[N,4] s) => (bool k2, float[N,4] t)"
        "{ k2 = Identity (k) q = Sqrt (w) t = Div (s, q) }> }",
        own_constant="<bool c = {1}> { y = Loop (n, c, x) <"
        "body = b (int64 i, bool k, float[N,4] s) => (bool k2, float[N,4] t)"
        "{ k2 = Identity (k) w = Constant <value_float = 4.0> () q = Sqrt (w) t = Div (s, q) }> }",
        transposes="<bool c = {1}> { y = Loop (n, c, x) <"
        "body = b (int64 i, bool k, float[N,4] s) => (bool k2, float[N,4] t)"
        "{ k2 = Identity (k) p = Transpose (s) q = Transpose (p) t = Relu (q) }> }",
        repeated="<bool c = {1}> { y = Loop (n, c, x) <"
        "body = b (int64 i, bool k, float[N,4] s) => (bool k2, float[N,4] t)"
        "{ k2 = Identity (k) p = Neg (s) q = Neg (s) t = Mul (p, q) }> }",
    ),
    *row(
        "local functions",
        domains=_LOCAL,
        gone="function local::f local::g",
        one=f"{{ a = local.f (x) y = Relu (a) }}\n{_FUNCTION}\nf (a) => (b) {{ c = Exp (a) b = Neg (c) }}",
        twice=f"{{ a = local.f (x) y = local.f (a) }}\n{_FUNCTION}\nf (a) => (b) {{ c = Relu (a) b = Neg (c) }}",
        attribute=f"{{ a = local.f <alpha = 0.3> (x) y = Relu (a) }}\n{_FUNCTION}\nf <alpha> (a) => (b)"
        "{ b = LeakyRelu <alpha: float = @alpha> (a) }",
        nested=f'{{ y = local.f (x) }}\n<domain: "local", opset_import: ["" : 21, "local" : 1]>\n'
        f"f (a) => (b) {{ c = local.g (a) b = Neg (c) }}\n{_FUNCTION}\ng (a) => (b) {{ b = Exp (a) }}",
    ),
]
