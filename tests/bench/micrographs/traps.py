"""Traps: graphs that look like a row of the table, and on which nothing, or only the right thing, may happen."""

from __future__ import annotations

from bench.micrographs.case import Spelling, row

__all__ = ["CASES"]

_CONV = "float[8,4,3,3] w"
_PICTURE = "(float[N,4,8,8] x) => (float[N,8,H,W] y)"
_BN = "float[8] g, float[8] b, float[8] m, float[8] v"
_NEWEST = 26  # what both onnx and ONNX Runtime know
_HIDDEN = "(float[N,S,8] x) => (float[N,S,8] y)"

CASES = [
    *row(
        "broadcast along W, W = C",
        head="(float[N,4,8,8] x) => (float[N,8,8,8] y)",
        add=f"<{_CONV}, float[8] s> {{ a = Conv <pads = [1, 1, 1, 1]> (x, w) y = Add (a, s) }}",
        mul=f"<{_CONV}, float[8] c, float[8] s> {{ a = Conv <pads = [1, 1, 1, 1]> (x, w, c) y = Mul (a, s) }}",
        div=f"<{_CONV}, float[1,8] v> {{ a = Conv <pads = [1, 1, 1, 1]> (x, w) y = Div (a, v) }}",
        rows=f"<{_CONV}, float[8,1] s> {{ a = Conv <pads = [1, 1, 1, 1]> (x, w) y = Sub (a, s) }}",
        input="(float[N,8,8,8] x) => (float[N,4,H,W] y) <float[4,8,3,3] w, float[8] s>"
        "{ a = Mul (x, s) y = Conv (a, w) }",
        transposed="<float[4,8,3,3] w, float[8] s> { a = ConvTranspose <pads = [1, 1, 1, 1]> (x, w) y = Mul (a, s) }",
        gemm="(float[8,4] x) => (float[8,8] y) <float[4,8] w, float[8] c, float[8,1] s>"
        "{ a = Gemm (x, w, c) y = Mul (a, s) }",
        matmul="(float[8,4] x) => (float[8,8] y) <float[4,8] w, float[8,1] s> { a = MatMul (x, w) y = Add (a, s) }",
        batch="(float[8,4,8,8] x) => (float[8,8,H,W] y) <float[8,4,3,3] w, float[8,1,1,1] s>"
        "{ a = Conv (x, w) y = Mul (a, s) }",
        norm="(float[N,8,8] x) => (float[N,8,8] y) <float[8,1] w, float e = {1e-5}, float two = {2}, int64[1] d = {-1}>"
        "{ m = ReduceMean (x, d) c = Sub (x, m) p = Pow (c, two) v = ReduceMean (p, d) a = Add (v, e) r = Sqrt (a)"
        "n = Div (c, r) y = Mul (n, w) }",
    ),
    *row(
        "0 and -1 in Reshape",
        head="(float[2,3,4] x) => (float[A,B,C] y)",
        zero_of_the_middle="<int64[3] s = {3, 2, 4}, int64[3] t = {0, 4, 2}> { a = Reshape (x, s) y = Reshape (a, t) }",
        zeros_twice="<int64[3] s = {4, 0, -1}, int64[3] t = {0, -1, 2}> { a = Reshape (x, s) y = Reshape (a, t) }",
        after_flatten="<int64[3] t = {0, 2, 6}> { a = Flatten (x) y = Reshape (a, t) }",
        symbolic="(float[N,S,4] x) => (float[A,B,C] y) <int64[3] s = {0, -1, 2}, int64[3] t = {0, 0, -1}>"
        "{ a = Reshape (x, s) y = Reshape (a, t) }",
        empty="(float[N,4] x) => (float[A,B] y) <int64[1] s = {0}, int64[1] e = {0}, int64[1] d = {0}, int64[2] t "
        "= {0, 4}>"
        "{ a = Slice (x, s, e, d) y = Reshape <allowzero = 1> (a, t) }",
        transposed="<int64[1] z = {0}, int64[2] t = {0, -1}> { a = Transpose <perm = [1, 0, 2]> (x) u = Reshape (a, t)"
        "i = Neg (u) y = Unsqueeze (i, z) }",
    ),
    *row(
        "shared weights",
        head=_PICTURE,
        two_convs=f"<{_CONV}, {_BN}> {{ a = Conv (x, w) n = BatchNormalization (a, g, b, m, v) c = Neg (x)"
        "d = Conv (c, w) y = Add (n, d) }",
        bias_twice=f"<{_CONV}, float[8] c, float s = {{2}}> {{ a = Conv (x, w, c) d = Mul (a, s) e = Exp (x)"
        "f = Conv (e, w, c) y = Sub (d, f) }",
        weight_and_operand="(float[N,4] x) => (float[N,4] y) <float[4,4] w, float[4] s>"
        "{ a = MatMul (x, w) b = Mul (a, s) c = MatMul (b, w) d = Add (c, s) y = Relu (d) }",
        batchnorm_of_one_value=f"<{_CONV}, float[8] v> {{ a = Conv (x, w) y = BatchNormalization (a, v, v, v, v) }}",
        tied_embedding="(int64[N] x) => (float[N,16] y) <float[16,4] w, float[4] s> { a = Gather (w, x) b = Mul (a, s)"
        "y = Gemm <transB = 1> (b, w) }",
        dead_channel="(float[N,4,8,8] x) => (float[N,A,H,W] y) <float[4,4,1,1] z, float[4,4,1,1] w>"
        "{ a = Conv (x, z) b = Conv (a, w) c = Conv (b, z) y = Concat <axis = 1> (a, c) }",
    ),
    *row(
        "graph output in the middle",
        head="(float[N,4,8,8] x) => (float[N,8,H,W] a, float[N,8,H,W] y)",
        conv_bn=f"<{_CONV}, {_BN}> {{ a = Conv (x, w) y = BatchNormalization (a, g, b, m, v) }}",
        conv_mul=f"<{_CONV}, float s = {{2}}> {{ a = Conv (x, w) y = Mul (a, s) }}",
        matmul_add="(float[N,4] x) => (float[N,4] a, float[N,4] y) <float[4,4] w, float[4] c>"
        "{ a = MatMul (x, w) y = Add (a, c) }",
        gelu="(float[N,4] x) => (float[N,4] b, float[N,4] y) <float q = {1.4142135623730951}, float one = {1},"
        "float h = {0.5}> { a = Div (x, q) b = Erf (a) c = Add (b, one) d = Mul (x, c) y = Mul (d, h) }",
        transposes="(float[N,4] x) => (float[4,N] a, float[N,4] y) { a = Transpose (x) b = Transpose (a) y = "
        "Identity (b) }",
        identities="(float[N,4] x) => (float[N,4] a, float[N,4] y, float[N,4] z)"
        "{ a = Relu (x) y = Identity (a) z = Identity (y) }",
        equal="(float[N,4] x) => (float[N,4] a, float[N,4] y) { a = Relu (x) y = Relu (x) }",
        casts="(float[N,4] x) => (double[N,4] a, float[N,4] y) { a = Cast <to = 11> (x) y = Cast <to = 1> (a) }",
    ),
    *row(
        "input to output",
        keep="Identity",
        identity="{ y = Identity (x) }",
        twice="(float[N,4] x) => (float[N,4] y, float[N,4] z) { y = Identity (x) z = Identity (x) }",
        through_dropout=Spelling("{ a = Dropout (x) y = Identity (a) }", keep=""),
    ),
    *row(
        "random",
        compare=False,
        normal_like=Spelling("<float[1,4] w> { a = RandomNormalLike (w) y = Add (x, a) }", keep="RandomNormalLike"),
        normal=Spelling("{ a = RandomNormal <shape = [1, 4]> () y = Add (x, a) }", keep="RandomNormal"),
        two_of_a_kind=Spelling(
            "{ a = RandomUniform <shape = [1, 4]> () b = RandomUniform <shape = [1, 4]> () c = Sub (a, b) y = Add "
            "(x, c) }",
            keep="RandomUniform:2",
        ),
        bernoulli=Spelling(
            "<float[4] p = {0.5, 0.5, 0.5, 0.5}> { a = Bernoulli (p) b = Bernoulli (p) c = Sub (a, b) y = Add (x, c) }",
            keep="Bernoulli:2",
        ),
        training_dropout=Spelling(
            "<float r = {0.5}, bool t = {1}> { a = Dropout (x, r, t) y = Relu (a) }", keep="Dropout"
        ),
        multinomial=Spelling(
            "(float[N,4] x) => (int32[1,3] y) <float[1,4] w> { y = Multinomial <sample_size = 3> (w) }",
            keep="Multinomial",
        ),
        in_if=Spelling(
            "(float[N,4] x, bool c) => (float[N,4] y) <float[1,4] w> { y = If (c) <"
            "then_branch = t () => (float[N,4] p) { a = RandomNormalLike (w) p = Add (x, a) },"
            "else_branch = e () => (float[N,4] q) { q = Neg (x) }> }",
            keep="RandomNormalLike",
        ),
    ),
    *row(
        "other axes",
        concat=Spelling(
            "(float[2,4] x, float[2,4] z) => (float[A,B] y) <float[2,4] w, float[4,4] u>"
            "{ a = Concat <axis = 0> (x, z) b = Concat <axis = 0> (w, w) y = Concat <axis = 1> (a, b) }",
            keep="Concat:2",
        ),
        split_concat=Spelling(
            "(float[4,4] x) => (float[A,B] y)"
            "{ a, b = Split <axis = 1, num_outputs = 2> (x) c = Concat <axis = 0> (a, b) y = Relu (c) }",
            keep="Concat",
        ),
        split_swapped=Spelling(
            "{ a, b = Split <axis = 1, num_outputs = 2> (x) c = Concat <axis = 1> (b, a) y = Relu (c) }", keep="Concat"
        ),
        squeeze="(float[N,1,1,4] x) => (float[A,B,C,D] y) <int64[1] d = {1}, int64[1] e = {2}>"
        "{ a = Squeeze (x, d) y = Unsqueeze (a, e) }",
        layer_norm="(float[N,8,8] x) => (float[N,8,8] y) <float[8] w, float e = {1e-5}, float two = {2}, int64[1] "
        "d = {1}>"
        "{ m = ReduceMean (x, d) c = Sub (x, m) p = Pow (c, two) v = ReduceMean (p, d) a = Add (v, e) r = Sqrt (a)"
        "n = Div (c, r) y = Mul (n, w) }",
        batchnorm=f"(float[N,8,4] x) => (float[N,8,8] y) <float[4,8] w, {_BN}>"
        "{ a = MatMul (x, w) y = BatchNormalization (a, g, b, m, v) }",
        transposes=Spelling(
            "(float[N,4,6,8] x) => (float[A,B,C,D] y)"
            "{ a = Transpose <perm = [0, 2, 3, 1]> (x) b = Relu (a) y = Transpose <perm = [0, 2, 3, 1]> (b) }",
            keep="Transpose",
        ),
        softmax="(float[N,4,8,8] x) => (float[N,4,8,8] y) { a = Transpose <perm = [0, 2, 3, 1]> (x)"
        "b = Softmax <axis = 1> (a) y = Transpose <perm = [0, 3, 1, 2]> (b) }",
        slice_of_concat="(float[N,4] x, float[N,4] z) => (float[A,B] y) <int64[1] s = {0}, int64[1] e = {4}, "
        "int64[1] d = {1}>"
        "{ a = Concat <axis = 0> (x, z) y = Slice (a, s, e, d) }",
        slice_across="(float[N,4] x, float[N,4] z) => (float[A,B] y) <int64[1] s = {2}, int64[1] e = {6}, "
        "int64[1] d = {1}>"
        "{ a = Concat <axis = 1> (x, z) y = Slice (a, s, e, d) }",
    ),
    *row(
        "casts that lose",
        keep="Cast:2",
        half="{ a = Cast <to = 10> (x) y = Cast <to = 1> (a) }",
        integer="{ a = Cast <to = 7> (x) y = Cast <to = 1> (a) }",
        narrow="(int64[N,4] x) => (int64[N,4] y) <int64 k = {4294967297}>"
        "{ s = Mul (x, k) a = Cast <to = 6> (s) y = Cast <to = 7> (a) }",
        boolean="{ a = Cast <to = 9> (x) y = Cast <to = 1> (a) }",
        integer_over_float="(int64[N,4] x) => (int64[N,4] y) <int64 k = {16777217}>"
        "{ s = Mul (x, k) a = Cast <to = 1> (s) y = Cast <to = 7> (a) }",
    ),
    *row(
        "Pads that are not zeros",
        head=_PICTURE,
        keep="Pad",
        value=f"<{_CONV}, int64[8] p = {{0, 0, 1, 1, 0, 0, 1, 1}}, float z = {{1}}> {{ a = Pad (x, p, z) y = Conv "
        f"(a, w) }}",
        reflect=f'<{_CONV}, int64[8] p = {{0, 0, 1, 1, 0, 0, 1, 1}}> {{ a = Pad <mode = "reflect"> (x, p) y = '
        f"Conv (a, w) }}",
        channels="<float[8,6,3,3] w, int64[8] p = {0, 1, 1, 1, 0, 1, 1, 1}> { a = Pad (x, p) y = Conv (a, w) }",
        negative=Spelling(
            f"<{_CONV}, int64[8] p = {{0, 0, -1, -1, 0, 0, -1, -1}}> {{ a = Pad (x, p) y = Conv (a, w) }}", keep=""
        ),
        max_pool="(float[N,4,8,8] x) => (float[N,4,H,W] y) <int64[8] p = {0, 0, 1, 1, 0, 0, 1, 1}>"
        "{ e = Abs (x) n = Neg (e) a = Pad (n, p) y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a) }",
        average_pool="(float[N,4,8,8] x) => (float[N,4,H,W] y) <int64[8] p = {0, 0, 1, 1, 0, 0, 1, 1}> { a = Pad (x, p)"
        "y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 0> (a) }",
        same=Spelling(
            f"<{_CONV}, int64[8] p = {{0, 0, 1, 1, 0, 0, 1, 1}}>"
            '{ a = Pad (x, p) y = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (a, w) }',
            keep="",
        ),
        ceiling=Spelling(
            "(float[N,4,8,8] x) => (float[N,4,H,W] y) <int64[8] p = {0, 0, 1, 1, 0, 0, 0, 0}> { a = Pad (x, p)"
            "y = AveragePool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1, count_include_pad = 1> (a) }",
            keep="",
        ),
    ),
    *row(
        "Slices",
        head="(float[6,8] x) => (float[A,B] y)",
        backwards=Spelling(
            "<int64[1] s = {-1}, int64[1] e = {-9223372036854775807}, int64[1] d = {0}, int64[1] t = {-1}>"
            "{ a = Slice (x, s, e, d, t) y = Relu (a) }",
            keep="Slice",
        ),
        steps="<int64[1] s = {1}, int64[1] e = {8}, int64[1] d = {1}, int64[1] t = {3}>"
        "{ a = Slice (x, s, e, d, t) y = Slice (a, s, e, d, t) }",
        beyond="<int64[1] s = {2}, int64[1] e = {7}, int64[1] d = {1}, int64[1] f = {99}>"
        "{ a = Slice (x, s, e, d) y = Slice (a, s, f, d) }",
        back_and_forth="<int64[1] s = {-1}, int64[1] e = {-99}, int64[1] d = {1}, int64[1] t = {-2}, int64[1] u = {1},"
        "int64[1] f = {3}> { a = Slice (x, s, e, d, t) y = Slice (a, u, f, d) }",
        symbolic=Spelling(
            "(float[N,8] x) => (float[A,B] y) <int64[1] s = {0}, int64[1] e = {3}, int64[1] d = {0}>"
            "{ a = Slice (x, s, e, d) y = Relu (a) }",
            keep="Slice",
        ),
        nothing_left="<int64[1] s = {5}, int64[1] e = {2}, int64[1] d = {0}> { a = Slice (x, s, e, d) y = Relu (a) }",
    ),
    *row(
        "neutral operands that broadcast or come first",
        head="(float[4] x) => (float[A,B] y)",
        add_zeros=Spelling("<float[3,4] q = {0,0,0,0,0,0,0,0,0,0,0,0}> { a = Add (x, q) y = Relu (a) }"),
        mul_ones="<float[2,1] q = {1, 1}> { a = Mul (x, q) y = Relu (a) }",
        where="<bool[2,1] c = {1, 1}, float q = {0}> { a = Where (c, x, q) y = Relu (a) }",
        expand=Spelling("<int64[2] s = {3, 1}> { a = Expand (x, s) y = Relu (a) }", keep="Expand"),
        unknown="(float[N,M] x) => (float[A,B] y) <float[1,4] q = {1, 1, 1, 1}> { a = Mul (x, q) y = Relu (a) }",
        sub_from_zero="(float[N,4] x) => (float[N,4] y) <float q = {0}> { a = Sub (q, x) y = Relu (a) }",
        one_over="(float[N,4] x) => (float[N,4] y) <float q = {1}> { y = Div (q, x) }",
        one_to_the="(float[N,4] x) => (float[N,4] y) <float q = {1}> { y = Pow (q, x) }",
        almost_one="(float[N,4] x) => (float[N,4] y) <float q = {1.001}> { a = Mul (x, q) y = Exp (a) }",
        times_zero="(float[N,4] x) => (float[N,4] y) <float q = {0}> { e = Log (x) y = Mul (e, q) }",
    ),
    *row(
        "Expand that is needed",
        keep="Expand",
        output="(float[N,1] x) => (float[N,4] y) <int64[2] s = {1, 4}> { y = Expand (x, s) }",
        small_reader="(float[N,1] x) => (float[N,4] y) <int64[2] s = {1, 4}, float q = {2}> { a = Expand (x, s) y "
        "= Mul (a, q) }",
        unknown_reader="(float[N,1] x, float[N,M] z) => (float[A,B] y) <int64[2] s = {1, 3}>"
        "{ a = Expand (x, s) y = Add (a, z) }",
        concat="(float[N,1] x, float[N,4] z) => (float[A,B] y) <int64[2] s = {1, 4}>"
        "{ a = Expand (x, s) y = Concat <axis = 1> (a, z) }",
    ),
    *row(
        "Relu, Clip, Min, Max",
        below_zero="<float l = {-2}, float h = {-1}> { a = Relu (x) y = Clip (a, l, h) }",
        above="<float l = {1}, float h = {2}> { a = Clip (x, l, h) b = Relu (a) y = Neg (b) }",
        crossed="<float l = {0.5}, float h = {-0.5}> { a = Max (x, l) y = Min (a, h) }",
        crossed_too="<float l = {0.5}, float h = {-0.5}> { a = Min (x, h) y = Max (a, l) }",
        vector=Spelling("<float[4] l, float h = {1}> { a = Max (x, l) y = Min (a, h) }", keep="Max"),
        disjoint="<float a = {0}, float b = {1}, float c = {2}, float d = {3}> { e = Clip (x, a, b) y = Clip (e, "
        "c, d) }",
        fed="(float[N,4] x, float h) => (float[N,4] y) { a = Relu (x) y = Clip (a, , h) }",
        nan="{ a = Log (x) b = Relu (a) y = Relu (b) }",
    ),
    *row(
        "control flow that is not constant",
        keep="If",
        fed="(float[N,4] x, bool c) => (float[N,4] y) { y = If (c) <"
        "then_branch = t () => (float[N,4] p) { p = Exp (x) }, else_branch = e () => (float[N,4] q) { q = Neg (x) }> }",
        symbolic_dim="<int64 i = {0}, int64 three = {3}> { s = Shape (x) a = Gather (s, i) c = Equal (a, three) y "
        "= If (c) <"
        "then_branch = t () => (float[N,4] p) { p = Exp (x) }, else_branch = e () => (float[N,4] q) { q = Neg (x) }> }",
        loop_by_value=Spelling(
            "(float[N,4] x, int64 n) => (float[N,4] y) <bool c = {1}> { y = Loop (n, c, x) <"
            "body = b (int64 i, bool k, float[N,4] s) => (bool k2, float[N,4] t) { k2 = Identity (k) t = Exp (s) }> }",
            keep="Loop",
        ),
        loop_that_stops=Spelling(
            "<int64 n = {3}, bool c = {1}, float l = {100}> { y = Loop (n, c, x) <"
            "body = b (int64 i, bool k, float[N,4] s) => (bool k2, float[N,4] t)"
            "{ t = Exp (s) m = ReduceMax <keepdims = 0> (t) k2 = Less (m, l) }> }",
            keep="Loop",
        ),
        no_rounds=Spelling(
            "<int64 n = {0}, bool c = {1}> { y = Loop (n, c, x) <"
            "body = b (int64 i, bool k, float[N,4] s) => (bool k2, float[N,4] t) { k2 = Identity (k) t = Exp (s) }> }",
            keep="",
        ),
        capture="(float[N,4] x, bool c) => (float[N,4] y) { a = Identity (x) b = Transpose (a) d = Transpose (b) "
        "y = If (c) <"
        "then_branch = t () => (float[N,4] p) { p = Exp (d) }, else_branch = e () => (float[N,4] q) { q = Neg (a) }> }",
        capture_of_constant="(float[N,4] x, bool c) => (float[N,4] y) <float[4] w, float[4] w_two> { a = Mul (x, "
        "w) y = If (c) <"
        "then_branch = t () => (float[N,4] p) { b = Neg (w_two) p = Mul (a, b) },"
        "else_branch = e () => (float[N,4] q) { b = Exp (w) q = Mul (a, b) }> }",
    ),
    *row(
        "missing optional inputs",
        clip="<float h = {0.5}> { a = Identity (x) y = Clip (a, , h) }",
        clip_of_nothing="{ a = Clip (x) y = Relu (a) }",
        pad="(float[N,4] x) => (float[A,B] y) <int64[2] p = {1, 1}, int64[1] d = {1}> { a = Identity (x) y = Pad "
        "(a, p, , d) }",
        resize="(float[N,4,8,8] x) => (float[N,4,16,16] y) <float[4] s = {1, 1, 2, 2}>"
        "{ a = Identity (x) y = Resize (a, , s) }",
        slice="(float[N,8] x) => (float[A,B] y) <int64[2] s = {0, 1}, int64[2] e = {99, 8}, int64[2] t = {1, 2}>"
        "{ a = Identity (x) y = Slice (a, s, e, , t) }",
        layer_norm=f"{_HIDDEN} <float[8] w> {{ a = Identity (x) y = LayerNormalization (a, w, ) }}",
        lstm="(float[5,N,4] x) => (float[A,B,C,D] y) <float[1,12,4] w, float[1,12,3] r, float[1,24] b>"
        "{ a = Identity (x) y, h, c = LSTM <hidden_size = 3> (a, w, r, b, , , , ) }",
        unused_outputs="(float[N,4] x) => (int64[A,B] i) <int64[1] k = {2}> { v, i = TopK (x, k) }",
        conv="(float[N,4,8,8] x) => (float[N,8,H,W] y) <float[8,4,3,3] w, float s = {2}> { a = Conv (x, w, ) y = "
        "Mul (a, s) }",
    ),
    *row(
        "BatchNormalization at the border, in training, of a group",
        head=_PICTURE,
        border=Spelling(
            f"<{_CONV}, float[4] g, float[4] b, float[4] m, float[4] v>"
            "{ a = BatchNormalization (x, g, b, m, v) y = Conv <pads = [1, 1, 1, 1]> (a, w) }"
        ),
        border_sub=f"<{_CONV}, float[1,4,1,1] s> {{ a = Sub (x, s) y = Conv <pads = [1, 1, 1, 1]> (a, w) }}",
        border_same=f'<{_CONV}, float s = {{0.5}}> {{ a = Add (x, s) y = Conv <auto_pad = "SAME_LOWER"> (a, w) }}',
        training=Spelling(
            f"<{_CONV}, {_BN}> {{ a = Conv (x, w) y, k, l = BatchNormalization <training_mode = 1> (a, g, b, m, v) }}",
            keep="BatchNormalization",
        ),
        computed=f"(float[N,4,8,8] x, float[8] g) => (float[N,8,H,W] y) <{_CONV}, float[8] b, float[8] m, float[8] v>"
        "{ a = Conv (x, w) y = BatchNormalization (a, g, b, m, v) }",
        computed_weight="(float[N,4,8,8] x, float[8,4,3,3] w) => (float[N,8,H,W] y)"
        f"<{_BN}> {{ a = Conv (x, w) y = BatchNormalization (a, g, b, m, v) }}",
        groups_transposed="<float[4,4,3,3] w, float[1,8,1,1] s> { a = ConvTranspose <group = 2> (x, w) y = Mul "
        "(a, s) }",
    ),
    *row(
        "Convs and MatMuls that do not compose",
        head="(float[N,4,8,8] x) => (float[N,4,H,W] y)",
        border="<float[4,4,1,1] w, float[4] b, float[4,4,3,3] u>"
        "{ a = Conv (x, w, b) y = Conv <pads = [1, 1, 1, 1]> (a, u) }",
        groups="<float[4,2,1,1] w, float[4,1,3,3] u> { a = Conv <group = 2> (x, w) y = Conv <group = 4> (a, u) }",
        strides="<float[4,4,1,1] w, float[4,4,1,1] u> { a = Conv <strides = [2, 2]> (x, w) y = Conv <strides = "
        "[2, 2]> (a, u) }",
        dear=Spelling(
            "(float[N,16] x) => (float[N,16] y) <float[16,2] w, float[2,16] u> { a = MatMul (x, w) y = MatMul (a, u) }",
            keep="MatMul:2",
        ),
        branches="<float[4,4,3,3] w, float[4,4,1,1] u> { a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w)"
        "b = Conv <strides = [2, 2]> (x, u) y = Add (a, b) }",
        shifted="<float[4,4,3,3] w, float[4,4,1,1] u> { a = Conv <pads = [0, 0, 2, 2]> (x, w) b = Conv (x, u) y = "
        "Add (a, b) }",
        other_inputs="<float[4,4,3,3] w, float[4,4,3,3] u> { r = Relu (x) a = Conv (x, w) b = Conv (r, u) y = Add "
        "(a, b) }",
        matmul_of_vector="(float[N,S,4] x) => (float[N,S] y) <float[4] w, float s = {2}> { a = MatMul (x, w) y = "
        "Mul (a, s) }",
        batched_weight="(float[2,S,4] x) => (float[2,S,4] y) <float[2,4,4] w, float[4] s>"
        "{ a = MatMul (x, w) y = Mul (a, s) }",
        three_axes_bias=Spelling(
            "(float[N,S,4] x) => (float[N,S,4] y) <float[4,4] w, float[4] b> { a = MatMul (x, w) y = Add (a, b) }",
            keep="MatMul",
        ),
    ),
    *row(
        "almost an operator",
        gelu="<float q = {1.5}, float one = {1}, float h = {0.5}>"
        "{ a = Div (x, q) b = Erf (a) c = Add (b, one) d = Mul (x, c) y = Mul (d, h) }",
        gelu_of_two="(float[N,4] x, float[N,4] z) => (float[N,4] y) <float q = {1.4142135623730951}, float one = {1},"
        "float h = {0.5}> { a = Div (x, q) b = Erf (a) c = Add (b, one) d = Mul (z, c) y = Mul (d, h) }",
        hard_swish="<float t = {3}, float z = {0}, float s = {4}>"
        "{ a = Add (x, t) b = Clip (a, z, s) c = Mul (x, b) y = Div (c, s) }",
        softplus="<float two = {2}> { a = Exp (x) b = Add (a, two) y = Log (b) }",
        norm_of_two=f"{_HIDDEN} <float[8] w, float e = {{1e-5}}, float two = {{2}}, int64[1] d = {{-1}}> {{ m = "
        f"ReduceMean (x, d)"
        "c = Sub (x, m) r0 = Relu (c) p = Pow (r0, two) v = ReduceMean (p, d) a = Add (v, e) r = Sqrt (a) n = Div "
        "(c, r)"
        "y = Mul (n, w) }",
        norm_of_sum=f"{_HIDDEN} <float e = {{1e-5}}, float two = {{2}}, int64[1] d = {{-1}}> {{ m = ReduceMean (x, d)"
        "c = Sub (x, m) p = Pow (c, two) v = ReduceSum (p, d) a = Add (v, e) r = Sqrt (a) y = Div (c, r) }",
        depth_to_space="(float[N,8,3,5] x) => (float[N,2,6,10] y) <int64[6] s = {-1, 2, 2, 2, 3, 5},"
        "int64[4] t = {-1, 2, 6, 10}> { a = Reshape (x, s) b = Transpose <perm = [0, 1, 4, 3, 5, 2]> (a) y = "
        "Reshape (b, t) }",
        rotary="(float[N,2,S,8] x, float[1,1,S,8] c, float[1,1,S,8] s) => (float[N,2,S,8] y) <int64[1] zero = {0},"
        "int64[1] h = {4}, int64[1] far = {99}, int64[1] d = {-1}> { a = Mul (x, c) l = Slice (x, zero, h, d)"
        "r = Slice (x, h, far, d) n = Neg (l) t = Concat <axis = -1> (r, n) b = Mul (t, s) y = Add (a, b) }",
    ),
    *row(
        "equal but for overflow and zero norms",
        argmax_of_exp="(float[N,4] x) => (int64[N,1] y) <float k = {300}>"
        "{ s = Mul (x, k) e = Exp (s) y = ArgMax <axis = 1> (e) }",
        argmax_of_softmax="(float[N,4] x) => (int64[N,1] y) <float k = {1e-9}>"
        "{ s = Mul (x, k) e = Softmax <axis = 1> (s) y = ArgMax <axis = 1> (e) }",
        log_of_softmax="<float k = {300}> { s = Mul (x, k) e = Softmax <axis = 1> (s) y = Log (e) }",
        zero_norm="<int64[1] d = {-1}> { r = Relu (x) n = Neg (r) q = Relu (n) a = ReduceL2 (q, d) y = Div (q, a) }",
        softplus="<float k = {300}, float one = {1}> { s = Mul (x, k) a = Exp (s) b = Add (a, one) y = Log (b) }",
        mul_of_mul="<float p = {1e30}, float q = {1e30}, float r = {1e-30}> { a = Mul (x, r) b = Mul (a, p) y = "
        "Mul (b, r) }",
        mul_overflow="<float p = {1e-30}, float q = {1e30}> { a = Mul (x, p) b = Mul (a, p) c = Mul (b, q) y = "
        "Mul (c, q) }",
        mean_of_halves="(float16[N,4] x) => (float16[N,1] y) <int64[1] d = {1}, float16 k = {100}>"
        "{ s = Mul (x, k) a = Mul (s, s) y = ReduceMean (a, d) }",
    ),
    *row(
        "constants that look equal",
        zero_signs="<float p = {0.0}, float m = {-0.0}, float one = {1}> { a = Mul (x, p) b = Div (one, p) c = "
        "Div (one, m)"
        "d = Add (a, b) y = Sub (d, c) }",
        types="(float[N,2] x) => (float[A,B] y) <int64[2] s = {-1, 1}, int32[4] t = {-1, -1, 1, 0}> { a = Reshape "
        "(x, s)"
        "b = Cast <to = 1> (t) y = Add (a, b) }",
        shapes="(float[N,4] x) => (float[A,B] y) <float[4] q = {1, 2, 3, 4}, float[4,1] r = {1, 2, 3, 4}>"
        "{ a = Mul (x, q) y = MatMul (a, r) }",
        attributes="{ a = LeakyRelu <alpha = 0.2> (x) b = LeakyRelu <alpha = 0.3> (x) y = Sub (a, b) }",
        sub="(float[N,4] x, float[N,4] z) => (float[N,4] y) { a = Sub (x, z) b = Sub (z, x) y = Max (a, b) }",
        scales="<float s = {0.1}, float t = {0.3}, uint8 p = {128}> { a = QuantizeLinear (x, s, p)"
        "b = DequantizeLinear (a, s, p) c = QuantizeLinear (b, t, p) y = DequantizeLinear (c, t, p) }",
    ),
    *row(
        "almost everything, almost the same place",
        scatter_in_another_order=Spelling(
            "(float[2,4] x, float[2,4] z) => (float[2,4] y) <int64[2,1] i = {1, 0}>"
            "{ a = ScatterND (x, i, z) y = Relu (a) }",
            keep="ScatterND",
        ),
        scatter_twice_the_same=Spelling(
            "(float[2,4] x, float[2,4] z) => (float[2,4] y) <int64[2,1] i = {0, 0}>"
            '{ w = Mul (z, x) a = ScatterND <reduction = "add"> (w, i, z) y = Relu (a) }',
            keep="ScatterND",
        ),
        square_after_a_reshape=Spelling(
            "(float[4,2,2] x) => (float[4,2,2] y) <int64[2] s = {4, 4}, int64[3] t = {4, 2, 2}, float[4] w>"
            "{ a = Reshape (x, s) b = Mul (a, w) y = Reshape (b, t) }",
            keep="Reshape:2",
        ),
        square_between_transposes=Spelling(
            "(float[N,8,8] x) => (float[A,B,C,D] y) <int64[4] s = {0, 2, 4, 8}>"
            "{ t = Transpose <perm = [0, 2, 1]> (x) v = Reshape (t, s) y = Transpose <perm = [0, 2, 3, 1]> (v) }",
            keep="Transpose",
        ),
        product_of_other_rows=Spelling(
            "(float[3,2,2] x) => (float[3,8] y) <int64[2] s = {3, 4}, float[4,8] w>"
            "{ a = Reshape (x, s) y = MatMul (a, w) }",
            keep="Reshape",
        ),
        inserted_in_front="(float[N,4] x, float[N,4] z) => (float[A,B] y) <int64 f = {0}, int64 l = {-1}>"
        "{ e = SequenceConstruct (x) s = SequenceInsert (e, z, f) a = SequenceAt (s, l) y = Relu (a) }",
        last_piece="(float[N,4] x) => (float[A,B] y) <int64 n = {3}, int64 l = {-1}>"
        "{ s = SplitToSequence <axis = 1> (x, n) a = SequenceAt (s, l) y = Relu (a) }",
        element_of_the_other="(float[N,2] x, float[N,3] z) => (float[A] y) <int64 i = {-4}>"
        "{ c = Concat <axis = 1> (x, z) g = Gather <axis = 1> (c, i) y = Relu (g) }",
        squeeze_or_not="(float[N,4,D] x) => (float[A,B,C] y) <int64[1] one = {1}, int64[1] two = {2}>"
        "{ s = Shape <start = 2> (x) c = Equal (s, one) t = If (c) <"
        "then_branch = g1 () => (float[E,F] a) { a = Squeeze (x, two) },"
        "else_branch = g2 () => (float[G,H,I] b) { b = Identity (x) }"
        "> r = Relu (t) y = Expand (r, s) }",
    ),
    *row(
        "opset 11",
        opset=11,
        axes="{ a = Unsqueeze <axes = [1]> (x) b = Relu (a) c = ReduceMean <axes = [1], keepdims = 1> (b)"
        "y = Squeeze <axes = [1]> (c) }",
        pad="(float[N,4] x) => (float[A,B] y) <int64[4] p = {0, 1, 0, 1}> { a = Pad (x, p) b = Clip (a) y = Relu (b) }",
        split="{ a, b = Split <axis = 1, split = [2, 2]> (x) c = Concat <axis = 1> (b, a) y = Softmax (c) }",
        batchnorm="(float[N,4,8,8] x) => (float[N,8,H,W] y) <float[8,4,3,3] w, float[8] g, float[8] b, float[8] "
        "m, float[8] v>"
        "{ a = Conv (x, w) y = BatchNormalization <momentum = 0.5> (a, g, b, m, v) }",
        gelu="<float q = {1.4142135623730951}, float one = {1}, float h = {0.5}>"
        "{ a = Div (x, q) b = Erf (a) c = Add (b, one) d = Mul (x, c) y = Mul (d, h) }",
        hard_swish="<float t = {3}, float z = {0}, float s = {6}>"
        "{ a = Add (x, t) b = Clip (a, z, s) c = Mul (x, b) y = Div (c, s) }",
        dropout="(float[N,4] x) => (float[N,4] y, bool[N,4] m) { a, m = Dropout <ratio = 0.3> (x) y = Relu (a) }",
        softmax="(float[N,4,3] x) => (float[N,4,3] y) { a = Identity (x) y = Softmax <axis = 1> (a) }",
        integers_clip="{ a = Cast <to = 6> (x) b = Relu (x) c = Cast <to = 1> (a) y = Add (b, c) }",
    ),
    *row(
        "the newest opset",
        opset=_NEWEST,
        chain="<float[4,4] w, float[4] c> { a = Identity (x) b = MatMul (a, w) d = Add (b, c) e = Sigmoid (d) y = "
        "Mul (d, e) }",
        batchnorm=f"{_PICTURE} <{_CONV}, {_BN}> {{ a = Conv (x, w) y = BatchNormalization (a, g, b, m, v) }}",
        norm=f"{_HIDDEN} <float[8] w, float e = {{1e-5}}, float two = {{2}}, int64[1] d = {{-1}}> {{ p = Pow (x, two)"
        "m = ReduceMean (p, d) a = Add (m, e) r = Sqrt (a) n = Div (x, r) y = Mul (n, w) }",
        shapes="(float[N,3,4] x) => (float[A,B] y) <int64[1] m = {-1}> { a = Shape <start = 0, end = 1> (x)"
        "t = Concat <axis = 0> (a, m) b = Reshape (x, t) y = Cast <to = 1> (b) }",
        gelu="<float q = {1.4142135623730951}, float one = {1}, float h = {0.5}>"
        "{ a = Div (x, q) b = Erf (a) c = Add (b, one) d = Mul (x, c) y = Mul (d, h) }",
    ),
]
