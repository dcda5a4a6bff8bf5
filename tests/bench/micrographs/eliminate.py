"""Rows on nodes that do nothing, or that the next node undoes."""

from __future__ import annotations

from bench.micrographs.case import Spelling, row

__all__ = ["CASES"]

_PICTURE = "(float[N,4,6,6] x) => (float[N,4,6,6] y)"
_CUBE = "(float[2,3,4] x) => (float[A,B,C] y)"

CASES = [
    *row(
        "Identity",
        gone="Identity",
        plain="{ a = Identity (x) y = Relu (a) }",
        chain="{ a = Relu (x) b = Identity (a) c = Identity (b) y = Neg (c) }",
        to_output="{ a = Relu (x) y = Identity (a) }",
        of_weight="<float[4] w> { a = Identity (w) y = Mul (x, a) }",
    ),
    *row(
        "no-op Cast",
        gone="Cast CastLike",
        plain="{ a = Cast <to = 1> (x) y = Relu (a) }",
        like="<float[1] h = {2}> { a = CastLike (x, h) y = Relu (a) }",
        to_output="{ a = Relu (x) y = Cast <to = 1> (a) }",
        of_shape="(float[N,4] x) => (int64[2] y) { a = Shape (x) b = Cast <to = 7> (a) y = Neg (b) }",
    ),
    *row(
        "Dropout",
        gone="Dropout",
        ratio_input="<float r = {0.5}> { a = Dropout (x, r) y = Relu (a) }",
        no_ratio="{ a = Dropout (x) y = Relu (a) }",
        opset_11=Spelling("{ a = Dropout <ratio = 0.3> (x) y = Relu (a) }", opset=11),
        to_output="{ a = Relu (x) y = Dropout (a) }",
        unread_mask="{ a, m = Dropout (x) y = Relu (a) }",
    ),
    *row(
        "Dropout, training_mode false",
        gone="Dropout",
        initializer="<float r = {0.5}, bool t = {0}> { a = Dropout (x, r, t) y = Relu (a) }",
        constant="<float r = {0.5}> { t = Constant <value = bool {0}> () a = Dropout (x, r, t) y = Relu (a) }",
        no_ratio="<bool t = {0}> { a = Dropout (x, , t) y = Relu (a) }",
    ),
    *row(
        "Cast f32-f64-f32",
        gone="Cast",
        plain="{ a = Cast <to = 11> (x) b = Cast <to = 1> (a) y = Relu (b) }",
        to_output="{ a = Relu (x) b = Cast <to = 11> (a) y = Cast <to = 1> (b) }",
        back_twice="{ a = Cast <to = 11> (x) b = Cast <to = 1> (a) c = Cast <to = 1> (a) y = Add (b, c) }",
    ),
    *row(
        "Cast f16-f32-f16",
        head="(float16[N,4] x) => (float16[N,4] y)",
        gone="Cast",
        plain="{ a = Cast <to = 1> (x) b = Cast <to = 10> (a) y = Relu (b) }",
        bfloat="(bfloat16[N,4] x) => (bfloat16[N,4] y) { a = Cast <to = 1> (x) b = Cast <to = 16> (a) y = "
        "Identity (b) }",
        integers="(int32[N,4] x) => (int32[N,4] y) { a = Cast <to = 7> (x) b = Cast <to = 6> (a) y = Neg (b) }",
        to_third=Spelling(
            "(float16[N,4] x) => (double[N,4] y) { a = Cast <to = 1> (x) b = Cast <to = 11> (a) y = Abs (b) }",
            gone="Cast:1",
        ),
    ),
    *row(
        "zero Pad",
        gone="Pad",
        initializer="<int64[4] p = {0, 0, 0, 0}> { a = Pad (x, p) y = Relu (a) }",
        constant="{ p = Constant <value = int64[4] {0, 0, 0, 0}> () a = Pad (x, p) y = Relu (a) }",
        value="<int64[4] p = {0, 0, 0, 0}, float v = {1}> { a = Pad (x, p, v) y = Relu (a) }",
        axes="<int64[2] p = {0, 0}, int64[1] a = {1}> { b = Pad (x, p, , a) y = Relu (b) }",
        opset_10=Spelling("{ a = Pad <pads = [0, 0, 0, 0]> (x) y = Relu (a) }", opset=10),
    ),
    *row(
        "no-op Slice",
        head="(float[6,4] x) => (float[6,4] y)",
        gone="Slice",
        far_end="<int64[1] s = {0}, int64[1] e = {9223372036854775807}> { a = Slice (x, s, e) y = Relu (a) }",
        exact_end="<int64[1] s = {0}, int64[1] e = {4}, int64[1] d = {1}> { a = Slice (x, s, e, d) y = Relu (a) }",
        negative_start="<int64[1] s = {-6}, int64[1] e = {6}, int64[1] d = {0}, int64[1] t = {1}>"
        "{ a = Slice (x, s, e, d, t) y = Relu (a) }",
        opset_9=Spelling("{ a = Slice <axes = [0, 1], starts = [0, 0], ends = [99, 99]> (x) y = Relu (a) }", opset=9),
        symbolic="(float[N,4] x) => (float[N,4] y) <int64[1] s = {0}, int64[1] e = {9223372036854775807}>"
        "{ a = Slice (x, s, e, s) y = Relu (a) }",
    ),
    *row(
        "no-op Slice to the shape",
        gone="Slice",
        shape="<int64[1] z = {0}, int64[1] one = {1}>"
        "{ n = Shape <start = 0, end = 1> (x) a = Slice (x, z, n, z) y = Relu (a) }",
        gathered="<int64[1] z = {0}> { s = Shape (x) n = Gather (s, z) a = Slice (x, z, n, z) y = Relu (a) }",
        both_axes="<int64[2] z = {0, 0}> { s = Shape (x) a = Slice (x, z, s) y = Relu (a) }",
    ),
    *row(
        "Slice of Slice",
        head="(float[N,8,8] x) => (float[A,B,C] y)",
        gone="Slice:1",
        other_axes="<int64[1] s = {2}, int64[1] e = {6}, int64[1] d = {1}, int64[1] f = {2}>"
        "{ a = Slice (x, s, e, d) y = Slice (a, s, e, f) }",
        same_axis="<int64[1] s = {1}, int64[1] e = {6}, int64[1] d = {1}> { a = Slice (x, s, e, d) y = Slice (a, "
        "s, e, d) }",
        negative="<int64[1] s = {1}, int64[1] e = {-1}, int64[1] d = {-1}> { a = Slice (x, s, e, d) y = Slice (a, "
        "s, e, d) }",
        three=Spelling(
            "<int64[1] s = {1}, int64[1] e = {7}, int64[1] d = {1}, int64[1] f = {2}>"
            "{ a = Slice (x, s, e, d) b = Slice (a, s, e, f) y = Slice (b, s, e, d) }"
        ),
    ),
    *row(
        "identity Transpose",
        gone="Transpose",
        plain="{ a = Transpose <perm = [0, 1]> (x) y = Relu (a) }",
        four_axes=f"{_PICTURE} {{ a = Transpose <perm = [0, 1, 2, 3]> (x) y = Relu (a) }}",
        vector="(float[N] x) => (float[N] y) { a = Transpose (x) y = Relu (a) }",
    ),
    *row(
        "Transpose of Transpose",
        head=_PICTURE,
        gone="Transpose",
        cancel="{ a = Transpose <perm = [0, 2, 3, 1]> (x) b = Transpose <perm = [0, 3, 1, 2]> (a) y = Relu (b) }",
        merge=Spelling(
            "(float[N,4,6,6] x) => (float[A,B,C,D] y)"
            "{ a = Transpose <perm = [0, 2, 3, 1]> (x) b = Transpose <perm = [1, 0, 2, 3]> (a) y = Relu (b) }",
            gone="Transpose:1",
        ),
        default_perm="(float[N,4] x) => (float[N,4] y) { a = Transpose (x) b = Transpose (a) y = Relu (b) }",
        three="{ a = Transpose <perm = [0, 2, 3, 1]> (x) b = Transpose <perm = [0, 2, 3, 1]> (a)"
        "c = Transpose <perm = [0, 2, 3, 1]> (b) y = Relu (c) }",
        two_readers="{ a = Transpose <perm = [0, 2, 3, 1]> (x) b = Transpose <perm = [0, 3, 1, 2]> (a)"
        "c = Relu (b) d = Neg (b) y = Add (c, d) }",
    ),
    *row(
        "Transpose sinking",
        head=_PICTURE,
        gone="Transpose",
        unary="{ a = Transpose <perm = [0, 2, 3, 1]> (x) b = Relu (a) y = Transpose <perm = [0, 3, 1, 2]> (b) }",
        binary="(float[N,4,6,6] x, float[N,4,6,6] z) => (float[N,4,6,6] y) { a = Transpose <perm = [0, 2, 3, 1]> (x)"
        "b = Transpose <perm = [0, 2, 3, 1]> (z) c = Add (a, b) y = Transpose <perm = [0, 3, 1, 2]> (c) }",
        constant="<float[4] w> { a = Transpose <perm = [0, 2, 3, 1]> (x) b = Mul (a, w)"
        "y = Transpose <perm = [0, 3, 1, 2]> (b) }",
        concat="(float[N,4,6,6] x) => (float[N,8,6,6] y) { a = Transpose <perm = [0, 2, 3, 1]> (x) b = Relu (a)"
        "c = Neg (a) d = Concat <axis = 3> (b, c) y = Transpose <perm = [0, 3, 1, 2]> (d) }",
        pad="(float[N,4,6,6] x) => (float[N,4,8,8] y) <int64[8] p = {0, 1, 1, 0, 0, 1, 1, 0}>"
        "{ a = Transpose <perm = [0, 2, 3, 1]> (x) b = Pad (a, p) y = Transpose <perm = [0, 3, 1, 2]> (b) }",
        reduce="(float[N,4,6,6] x) => (float[N,4,1,1] y) <int64[2] d = {1, 2}>"
        "{ a = Transpose <perm = [0, 2, 3, 1]> (x) b = ReduceMean (a, d) y = Transpose <perm = [0, 3, 1, 2]> (b) }",
        softmax="{ a = Transpose <perm = [0, 2, 3, 1]> (x) b = Softmax <axis = -1> (a)"
        "y = Transpose <perm = [0, 3, 1, 2]> (b) }",
        split="{ a = Transpose <perm = [0, 2, 3, 1]> (x) b, c = Split <axis = 3, num_outputs = 2> (a)"
        "d = Concat <axis = 3> (c, b) y = Transpose <perm = [0, 3, 1, 2]> (d) }",
    ),
    *row(
        "Transpose, NHWC sandwich of Convs",
        head="(float[N,6,6,4] x) => (float[N,H,W,4] y)",
        gone="Transpose:2",
        relu="<float[4,4,3,3] w, float[4,4,1,1] u> { a = Transpose <perm = [0, 3, 1, 2]> (x) b = Conv (a, w)"
        "c = Transpose <perm = [0, 2, 3, 1]> (b) d = Relu (c) e = Transpose <perm = [0, 3, 1, 2]> (d) f = Conv (e, u)"
        "y = Transpose <perm = [0, 2, 3, 1]> (f) }",
        bias="<float[4,4,3,3] w, float[4,4,1,1] u, float[4] b> { a = Transpose <perm = [0, 3, 1, 2]> (x) c = Conv "
        "(a, w)"
        "d = Transpose <perm = [0, 2, 3, 1]> (c) e = Add (d, b) f = Transpose <perm = [0, 3, 1, 2]> (e) g = Conv (f, u)"
        "y = Transpose <perm = [0, 2, 3, 1]> (g) }",
        residual="<float[4,4,1,1] w, float[4,4,1,1] u> { a = Transpose <perm = [0, 3, 1, 2]> (x) b = Conv (a, w)"
        "c = Transpose <perm = [0, 2, 3, 1]> (b) d = Add (c, x) e = Transpose <perm = [0, 3, 1, 2]> (d) f = Conv (e, u)"
        "g = Transpose <perm = [0, 2, 3, 1]> (f) y = Relu (g) }",
    ),
    *row(
        "Transpose that is a Reshape",
        gone="Transpose",
        before_reshape="(float[N,1,4] x) => (float[A,B] y) <int64[2] s = {-1, 2}>"
        "{ a = Transpose <perm = [1, 0, 2]> (x) y = Reshape (a, s) }",
        after_reshape="(float[N,4] x) => (float[A,B,C] y) <int64[3] s = {0, 1, 4}>"
        "{ a = Reshape (x, s) y = Transpose <perm = [1, 0, 2]> (a) }",
        to_nhwc="(float[N,4,1,1] x) => (float[N,4] y){ a = Transpose <perm = [0, 2, 3, 1]> (x) y = Flatten (a) }",
        squeezed="(float[N,4,1,1] x) => (float[N,4] y) <int64[2] d = {1, 2}>"
        "{ a = Transpose <perm = [0, 2, 3, 1]> (x) y = Squeeze (a, d) }",
    ),
    *row(
        "Squeeze of Unsqueeze",
        gone="Squeeze Unsqueeze Reshape",
        there_and_back="<int64[1] d = {1}> { a = Unsqueeze (x, d) b = Squeeze (a, d) y = Relu (b) }",
        back_and_there="(float[N,1,4] x) => (float[N,1,4] y) <int64[1] d = {1}>"
        "{ a = Squeeze (x, d) b = Unsqueeze (a, d) y = Relu (b) }",
        two_axes="<int64[2] d = {0, 2}> { a = Unsqueeze (x, d) b = Squeeze (a, d) y = Relu (b) }",
        opset_11=Spelling("{ a = Unsqueeze <axes = [1]> (x) b = Squeeze <axes = [1]> (a) y = Relu (b) }", opset=11),
        in_two_steps="<int64[1] d = {0}, int64[2] e = {0, 1}>"
        "{ a = Unsqueeze (x, d) b = Unsqueeze (a, d) c = Squeeze (b, e) y = Relu (c) }",
        spelled_otherwise="<int64[1] d = {1}, int64[1] e = {-2}> { a = Unsqueeze (x, d) b = Squeeze (a, e) y = "
        "Relu (b) }",
    ),
    *row(
        "Reshape of Reshape",
        head=_CUBE,
        gone="Reshape:1 Flatten",
        reshape="<int64[2] s = {6, 4}, int64[3] t = {2, 2, 6}> { a = Reshape (x, s) y = Reshape (a, t) }",
        flatten="(float[2,3,4] x) => (float[A,B] y) <int64[2] t = {-1, 6}> { a = Flatten (x) y = Reshape (a, t) }",
        symbolic="(float[N,3,4] x) => (float[A,B] y) <int64[2] s = {-1, 4}, int64[2] t = {-1, 12}>"
        "{ a = Reshape (x, s) y = Reshape (a, t) }",
        three="<int64[2] s = {6, 4}, int64[1] t = {-1}, int64[3] u = {4, 3, 2}>"
        "{ a = Reshape (x, s) b = Reshape (a, t) y = Reshape (b, u) }",
        back=Spelling(
            "<int64[2] s = {6, 4}, int64[3] t = {2, 3, 4}> { a = Reshape (x, s) b = Reshape (a, t) y = Relu (b) }",
            gone="Reshape",
        ),
    ),
    *row(
        "no-op Reshape",
        head="(float[N,3,4] x) => (float[N,3,4] y)",
        gone="Reshape Flatten",
        zeros="<int64[3] s = {0, 0, 0}> { a = Reshape (x, s) y = Relu (a) }",
        rest="<int64[3] s = {-1, 3, 4}> { a = Reshape (x, s) y = Relu (a) }",
        mixed="<int64[3] s = {0, -1, 4}> { a = Reshape (x, s) y = Relu (a) }",
        static="(float[2,4] x) => (float[2,4] y) <int64[2] s = {2, 4}> { a = Reshape (x, s) y = Relu (a) }",
        flatten="(float[N,4] x) => (float[N,4] y) { a = Flatten (x) y = Relu (a) }",
        own_shape="{ s = Shape (x) a = Reshape (x, s) y = Relu (a) }",
    ),
    *row(
        "Concat of one",
        gone="Concat",
        plain="{ a = Concat <axis = 0> (x) y = Relu (a) }",
        negative="{ a = Relu (x) y = Concat <axis = -1> (a) }",
        empty_operand="<float[0,4] e> { a = Relu (x) b = Concat <axis = 0> (a, e) y = Neg (b) }",
    ),
    *row(
        "Concat of Concat",
        head="(float[N,4] x, float[N,4] z) => (float[A,B] y)",
        gone="Concat:1",
        first="{ a = Concat <axis = 1> (x, z) y = Concat <axis = 1> (a, x) }",
        last="{ a = Concat <axis = 1> (x, z) y = Concat <axis = -1> (x, a) }",
        deep="{ a = Concat <axis = 0> (x, z) b = Concat <axis = 0> (a, x) y = Concat <axis = 0> (z, b) }",
        both="{ a = Concat <axis = 0> (x, z) b = Concat <axis = 0> (z, x) y = Concat <axis = 0> (a, b) }",
    ),
    *row(
        "Split then Concat, Slice of Concat",
        head="(float[N,4] x, float[N,4] z) => (float[N,4] y)",
        gone="Split Concat Slice",
        split_concat="(float[N,4] x) => (float[N,4] y)"
        "{ a, b = Split <axis = 1, num_outputs = 2> (x) c = Concat <axis = 1> (a, b) y = Relu (c) }",
        split_sizes="(float[N,4] x) => (float[N,4] y) <int64[3] s = {1, 2, 1}>"
        "{ a, b, d = Split <axis = 1> (x, s) c = Concat <axis = -1> (a, b, d) y = Relu (c) }",
        slice_of_concat="<int64[1] s = {4}, int64[1] e = {8}, int64[1] d = {1}>"
        "{ a = Concat <axis = 1> (x, z) b = Slice (a, s, e, d) y = Relu (b) }",
        concat_split="{ a = Concat <axis = 1> (x, z) b, c = Split <axis = 1, num_outputs = 2> (a) y = Add (b, c) }",
        slices_concat="(float[N,4] x) => (float[N,4] y) <int64[1] z = {0}, int64[1] m = {2}, int64[1] e = {4},"
        "int64[1] d = {1}> { a = Slice (x, z, m, d) b = Slice (x, m, e, d) c = Concat <axis = 1> (a, b) y = Relu (c) }",
    ),
    *row(
        "no-op Expand",
        head="(float[2,4] x) => (float[2,4] y)",
        gone="Expand",
        ones="<int64[2] s = {1, 1}> { a = Expand (x, s) y = Relu (a) }",
        same="<int64[2] s = {2, 4}> { a = Expand (x, s) y = Relu (a) }",
        shorter="<int64[1] s = {4}> { a = Expand (x, s) y = Relu (a) }",
        own_shape="(float[N,4] x) => (float[N,4] y) { s = Shape (x) a = Expand (x, s) y = Relu (a) }",
    ),
    *row(
        "Expand before a broadcast",
        head="(float[N,1] x, float[N,4] z) => (float[N,4] y)",
        gone="Expand",
        add="<int64[2] s = {1, 4}> { a = Expand (x, s) y = Add (a, z) }",
        by_shape="{ s = Shape (z) a = Expand (x, s) y = Mul (a, z) }",
        where="(bool[N,1] x, float[N,4] z) => (float[N,4] y) <int64[2] s = {1, 4}, float q = {0}>"
        "{ a = Expand (x, s) y = Where (a, z, q) }",
        right_operand="<int64[2] s = {1, 4}> { a = Expand (x, s) y = Sub (z, a) }",
    ),
    *row(
        "+0, x1, /1, -0",
        gone="Add Mul Div Sub",
        add="<float q = {0}> { a = Add (x, q) y = Relu (a) }",
        add_left="<float[1] q = {0}> { a = Add (q, x) y = Relu (a) }",
        multiply="<float[4] q = {1, 1, 1, 1}> { a = Mul (x, q) y = Relu (a) }",
        multiply_left="{ q = Constant <value_float = 1.0> () a = Mul (q, x) y = Relu (a) }",
        divide="<float q = {1}> { a = Div (x, q) y = Relu (a) }",
        subtract="<float[1,4] q = {0, 0, 0, 0}> { a = Sub (x, q) y = Relu (a) }",
        integers="(int64[N,4] x) => (int64[N,4] y) <int64 q = {0}> { a = Add (x, q) y = Neg (a) }",
    ),
    *row(
        "Pow(x, 1), and true, or false",
        gone="Pow And Or",
        power="<float q = {1}> { a = Pow (x, q) y = Relu (a) }",
        integer_exponent="<int64 q = {1}> { a = Pow (x, q) y = Relu (a) }",
        and_true="(bool[N,4] x) => (bool[N,4] y) <bool q = {1}> { a = And (x, q) y = Not (a) }",
        or_false="(bool[N,4] x) => (bool[N,4] y) <bool q = {0}> { a = Or (q, x) y = Not (a) }",
    ),
    *row(
        "Relu of Relu",
        gone="Relu:1",
        plain="{ a = Relu (x) y = Relu (a) }",
        three="{ a = Relu (x) b = Relu (a) y = Relu (b) }",
        before_add="{ a = Relu (x) b = Relu (a) y = Add (b, x) }",
    ),
    *row(
        "Relu and Clip",
        gone="Relu Clip:1 Min Max",
        relu_clip="<float l = {0}, float h = {6}> { a = Relu (x) y = Clip (a, l, h) }",
        clip_relu="<float l = {-1}, float h = {6}> { a = Clip (x, l, h) y = Relu (a) }",
        clip_clip="<float l = {-1}, float h = {6}, float m = {0.5}> { a = Clip (x, l, h) y = Clip (a, , m) }",
        no_minimum="<float h = {6}> { a = Relu (x) y = Clip (a, , h) }",
        opset_10=Spelling("{ a = Relu (x) y = Clip <min = 0.0, max = 6.0> (a) }", opset=10),
    ),
    *row(
        "Min and Max to Clip",
        gone="Min Max Relu",
        max_min="<float l = {-0.5}, float h = {0.5}> { a = Max (x, l) y = Min (a, h) }",
        min_max="<float l = {-0.5}, float h = {0.5}> { a = Min (x, h) y = Max (l, a) }",
        relu_min="<float h = {0.5}> { a = Relu (x) y = Min (a, h) }",
        vectors="<float[1] l = {-0.5}, float[1] h = {0.5}> { a = Max (x, l) y = Min (h, a) }",
    ),
    *row(
        "Where of a constant",
        head="(float[N,4] x, float[N,4] z) => (float[N,4] y)",
        gone="Where",
        true_="<bool c = {1}> { a = Where (c, x, z) y = Relu (a) }",
        false_="<bool[1] c = {0}> { a = Where (c, x, z) y = Relu (a) }",
        computed="<float l = {1}, float h = {2}> { c = Less (l, h) a = Where (c, x, z) y = Relu (a) }",
        many="<bool[4] c = {1, 1, 1, 1}> { a = Where (c, x, z) y = Relu (a) }",
    ),
    *row(
        "double QDQ",
        gone="QuantizeLinear:1 DequantizeLinear:1",
        plain="<float s = {0.1}, uint8 p = {128}> { a = QuantizeLinear (x, s, p) b = DequantizeLinear (a, s, p)"
        "c = QuantizeLinear (b, s, p) y = DequantizeLinear (c, s, p) }",
        signed="<float s = {0.05}, int8 p = {0}> { a = QuantizeLinear (x, s, p) b = DequantizeLinear (a, s, p)"
        "c = QuantizeLinear (b, s, p) y = DequantizeLinear (c, s, p) }",
        no_zero_point="<float s = {0.05}> { a = QuantizeLinear (x, s) b = DequantizeLinear (a, s)"
        "c = QuantizeLinear (b, s) y = DequantizeLinear (c, s) }",
        copies="<float s = {0.05}, float t = {0.05}, int8 p = {0}, int8 q = {0}> { a = QuantizeLinear (x, s, p)"
        "b = DequantizeLinear (a, s, p) c = QuantizeLinear (b, t, q) y = DequantizeLinear (c, t, q) }",
        per_axis="<float[4] s = {0.05, 0.1, 0.2, 0.3}, int8[4] p = {0, 1, 2, 3}> { a = QuantizeLinear <axis = 1> "
        "(x, s, p)"
        "b = DequantizeLinear <axis = 1> (a, s, p) c = QuantizeLinear <axis = 1> (b, s, p)"
        "y = DequantizeLinear <axis = 1> (c, s, p) }",
    ),
]
