"""Rows that the table of the research note lacks: what else the rivals' own lists of passes and rules name."""

from __future__ import annotations

from bench.micrographs.case import Spelling, row

__all__ = ["CASES"]

_PICTURE = "(float[N,4,8,8] x) => (float[N,A,B,C] y)"
_NORM = "float e = {1e-12}, int64[1] d = {-1}"

CASES = [
    *row(
        "idempotent twice",
        gone="Ceil:1 Floor:1 Round:1 Abs:1 Sign:1",
        ceil="{ a = Ceil (x) y = Ceil (a) }",
        floor="{ a = Floor (x) b = Floor (a) y = Neg (b) }",
        round="{ a = Round (x) b = Round (a) y = Round (b) }",
        abs="{ a = Abs (x) y = Abs (a) }",
        sign="{ a = Sign (x) b = Sign (a) y = Neg (b) }",
    ),
    *row(
        "Log of Softmax",
        gone="Log Softmax",
        plain="{ a = Softmax (x) y = Log (a) }",
        axis="(float[N,4,3] x) => (float[N,4,3] y) { a = Softmax <axis = 1> (x) y = Log (a) }",
        opset_12=Spelling("{ a = Softmax <axis = 1> (x) b = Log (a) y = Neg (b) }", opset=12),
    ),
    *row(
        "ArgMax of a monotone function",
        head="(float[N,4] x) => (int64[N,1] y)",
        gone="Softmax Exp Sigmoid LogSoftmax",
        softmax="{ a = Softmax <axis = 1> (x) y = ArgMax <axis = 1> (a) }",
        exp="{ a = Exp (x) y = ArgMax <axis = 1> (a) }",
        log_softmax="{ a = LogSoftmax <axis = 1> (x) y = ArgMax <axis = 1> (a) }",
        sigmoid="{ a = Sigmoid (x) y = ArgMin <axis = 1> (a) }",
    ),
    *row(
        "Squeeze of Squeeze, Unsqueeze of Unsqueeze",
        gone="Squeeze:1 Unsqueeze:1",
        squeezes="(float[N,1,4,1] x) => (float[N,4] y) <int64[1] d = {3}, int64[1] e = {1}>"
        "{ a = Squeeze (x, d) y = Squeeze (a, e) }",
        unsqueezes="(float[N,4] x) => (float[A,B,C,D] y) <int64[1] d = {1}, int64[1] e = {0}>"
        "{ a = Unsqueeze (x, d) y = Unsqueeze (a, e) }",
        opset_11=Spelling(
            "(float[N,4] x) => (float[A,B,C,D] y) { a = Unsqueeze <axes = [2]> (x) y = Unsqueeze <axes = [1]> (a) }",
            opset=11,
        ),
        negative="(float[N,4] x) => (float[A,B,C,D] y) <int64[1] d = {-1}>"
        "{ a = Unsqueeze (x, d) y = Unsqueeze (a, d) }",
    ),
    *row(
        "Where of Not",
        head="(bool[N,4] c, float[N,4] x, float[N,4] z) => (float[N,4] y)",
        gone="Not",
        plain="{ a = Not (c) y = Where (a, x, z) }",
        two_readers="{ a = Not (c) b = Where (a, x, z) d = Where (a, z, x) y = Sub (b, d) }",
        twice="{ a = Not (c) b = Not (a) y = Where (b, x, z) }",
    ),
    *row(
        "one part: Split, Tile, Sum, Max, Mean",
        gone="Split Tile Sum Max Mean Min",
        split="<int64[1] s = {4}> { a = Split <axis = 1> (x, s) y = Relu (a) }",
        tile="<int64[2] s = {1, 1}> { a = Tile (x, s) y = Relu (a) }",
        sum="{ a = Sum (x) y = Relu (a) }",
        max="{ a = Max (x) b = Min (a) c = Mean (b) y = Relu (c) }",
    ),
    *row(
        "Mul of Mul, Add of Add by constants",
        gone="Mul:1 Add:1",
        mul="<float p = {3}, float[4] w> { a = Mul (x, p) y = Mul (a, w) }",
        mul_left="<float p = {3}, float q = {0.7}> { a = Mul (p, x) b = Mul (q, a) y = Relu (b) }",
        add="<float[4] w, float[4] u> { a = Add (x, w) y = Add (u, a) }",
    ),
    *row(
        "Reduce of Reduce",
        head="(float[N,4,8] x) => (float[A,B,C] y)",
        gone="ReduceSum:1 ReduceMax:1 ReduceMean:1",
        sum="<int64[1] d = {1}, int64[1] e = {2}> { a = ReduceSum (x, d) y = ReduceSum (a, e) }",
        max="<int64[1] d = {1}, int64[1] e = {2}> { a = ReduceMax (x, d) y = ReduceMax (a, e) }",
        mean="<int64[1] d = {2}, int64[1] e = {1}> { a = ReduceMean (x, d) y = ReduceMean (a, e) }",
    ),
    *row(
        "reductions of nothing",
        head="(float[N,1,4] x) => (float[A,B,C] y)",
        gone="ReduceSum ReduceMean Softmax ReduceMax",
        mean="<int64[1] d = {1}> { a = ReduceMean (x, d) y = Relu (a) }",
        sum="<int64[1] d = {-2}> { a = ReduceSum (x, d) y = Relu (a) }",
        no_axes="<int64[0] d = {}> { a = ReduceSum <noop_with_empty_axes = 1> (x, d) y = Relu (a) }",
    ),
    *row(
        "sequences",
        head="(float[N,4] x, float[N,4] z) => (float[A,B] y)",
        gone="SequenceConstruct SequenceEmpty SequenceInsert SequenceAt SplitToSequence ConcatFromSequence",
        at="<int64 i = {1}> { s = SequenceConstruct (x, z) a = SequenceAt (s, i) y = Relu (a) }",
        concat="{ s = SequenceConstruct (x, z) y = ConcatFromSequence <axis = 1> (s) }",
        split="<int64 n = {2}, int64 i = {0}> { s = SplitToSequence <axis = 1> (x, n) a = SequenceAt (s, i) y = "
        "Relu (a) }",
        stack="(float[N,4] x, float[N,4] z) => (float[A,B,C] y)"
        "{ s = SequenceConstruct (x, z) y = ConcatFromSequence <axis = 0, new_axis = 1> (s) }",
        append="{ e = SequenceEmpty <dtype = 1> () s = SequenceInsert (e, x) t = SequenceInsert (s, z)"
        "y = ConcatFromSequence <axis = 0> (t) }",
        chunks="<int64 n = {2}, int64 i = {0}, int64 j = {1}> { s = SplitToSequence <axis = 1> (x, n)"
        "a = SequenceAt (s, i) b = SequenceAt (s, j) y = Mul (a, b) }",
    ),
    *row(
        "Reshape around an elementwise node",
        gone="Reshape Unsqueeze Squeeze Flatten",
        reshape="(float[N,4] x) => (float[N,4] y) <int64[3] s = {-1, 2, 2}, int64[2] t = {-1, 4}>"
        "{ a = Reshape (x, s) b = Relu (a) y = Reshape (b, t) }",
        unsqueeze="<int64[1] d = {1}> { a = Unsqueeze (x, d) b = Exp (a) y = Squeeze (b, d) }",
        chain="(float[N,4] x) => (float[N,4] y) <int64[1] s = {-1}, int64[2] t = {-1, 4}, float h = {2}>"
        "{ a = Reshape (x, s) b = Sigmoid (a) c = Mul (b, h) y = Reshape (c, t) }",
    ),
    *row(
        "Reshape around a MatMul",
        head="(float[N,3,4] x) => (float[N,3,8] y)",
        gone="Reshape",
        rest="<int64[2] s = {-1, 4}, int64[3] t = {-1, 3, 8}, float[4,8] w>"
        "{ a = Reshape (x, s) b = MatMul (a, w) y = Reshape (b, t) }",
        static="(float[2,3,4] x) => (float[2,3,8] y) <int64[2] s = {6, 4}, int64[3] t = {2, 3, 8}, float[4,8] w>"
        "{ a = Reshape (x, s) b = MatMul (a, w) y = Reshape (b, t) }",
        leading_one="(float[3,4] x, float[4,5] z) => (float[3,5] y) <int64[3] s = {1, 3, 4}, int64[3] t = {1, 4, 5},"
        "int64[2] u = {3, 5}> { a = Reshape (x, s) b = Reshape (z, t) c = MatMul (a, b) y = Reshape (c, u) }",
    ),
    *row(
        "zero bias",
        gone="elements:289",
        conv=f"{_PICTURE} <float[8,4,3,3] w, float[8] b = {{0, 0, 0, 0, 0, 0, 0, 0}}> {{ y = Conv (x, w, b) }}",
        transposed=f"{_PICTURE} <float[4,8,3,3] w, float[8] b = {{0, 0, 0, 0, 0, 0, 0, 0}}> {{ y = ConvTranspose "
        f"(x, w, b) }}",
        gemm=Spelling(
            "(float[N,4] x) => (float[N,8] y) <float[4,8] w, float[8] b = {0, 0, 0, 0, 0, 0, 0, 0}> { y = Gemm "
            "(x, w, b) }",
            gone="elements:32",
        ),
        added=Spelling(
            f"{_PICTURE} <float[8,4,3,3] w, float[8,1,1] b = {{0, 0, 0, 0, 0, 0, 0, 0}}> {{ a = Conv (x, w) y = "
            f"Add (a, b) }}",
            gone="Add elements:289",
        ),
    ),
    *row(
        "shape arithmetic that needs no run",
        head="(float[N,3,4] x) => (int64[A] y)",
        gone="Abs Cast Size Gather Slice",
        abs="{ s = Shape (x) y = Abs (s) }",
        part=Spelling("<int64[1] b = {1}, int64[1] e = {3}> { s = Shape (x) a = Slice (s, b, e) y = Neg (a) }"),
        size="<int64[1] z = {0}> { s = Shape (x) n = Size (s) y = Unsqueeze (n, z) }",
        filled=Spelling(
            "(float[N,4] x) => (float[A,B] y) { s = Shape (x) c = ConstantOfShape <value = int64[1] {2}> (s)"
            "f = Cast <to = 1> (c) y = Mul (x, f) }",
            gone="Cast",
        ),
    ),
    *row(
        "ScatterND of everything",
        head="(float[2,4] x, float[2,4] z) => (float[2,4] y)",
        gone="ScatterND",
        plain="<int64[2,1] i = {0, 1}> { a = ScatterND (x, i, z) y = Relu (a) }",
        of_zeros="<int64[2,1] i = {0, 1}, float[2,4] q = {0,0,0,0,0,0,0,0}> { a = ScatterND (q, i, z) b = Relu (a)"
        "y = Add (b, x) }",
        range="<int64 s = {0}, int64 e = {2}, int64 t = {1}, int64[1] d = {-1}> { r = Range (s, e, t) i = "
        "Unsqueeze (r, d)"
        "a = ScatterND (x, i, z) y = Relu (a) }",
    ),
    *row(
        "LpNormalization",
        head="(float[N,4] x) => (float[N,4] y)",
        gone="ReduceL2 ReduceSum Sqrt Div",
        plain="<int64[1] d = {-1}> { a = ReduceL2 (x, d) y = Div (x, a) }",
        clipped=f"<{_NORM}> {{ a = ReduceL2 (x, d) b = Clip (a, e) y = Div (x, b) }}",
        squares="<int64[1] d = {-1}> { a = Mul (x, x) b = ReduceSum (a, d) c = Sqrt (b) y = Div (x, c) }",
    ),
    *row(
        "MatMul, ReduceSum as Conv",
        head=_PICTURE,
        gone="MatMul Add Gemm Transpose",
        nhwc_matmul="<float[8,4,3,3] w, float[8,8] u> { a = Conv (x, w) b = Transpose <perm = [0, 2, 3, 1]> (a)"
        "c = MatMul (b, u) y = Transpose <perm = [0, 3, 1, 2]> (c) }",
        with_bias="<float[8,4,3,3] w, float[8,8] u, float[8] d> { a = Conv (x, w) b = Transpose <perm = [0, 2, 3, "
        "1]> (a)"
        "c = MatMul (b, u) e = Add (c, d) y = Transpose <perm = [0, 3, 1, 2]> (e) }",
        alone="<float[4,8] u> { b = Transpose <perm = [0, 2, 3, 1]> (x) c = MatMul (b, u)"
        "y = Transpose <perm = [0, 3, 1, 2]> (c) }",
    ),
    *row(
        "Gather of a Concat, of a Split",
        head="(float[N,1] x, float[N,1] z) => (float[N] y)",
        gone="Concat Split",
        one="<int64 i = {1}> { a = Concat <axis = 1> (x, z) b = Gather <axis = 1> (a, i) y = Relu (b) }",
        first="<int64[1] i = {0}, int64[1] d = {1}> { a = Concat <axis = 1> (x, z) b = Gather <axis = 1> (a, i)"
        "c = Relu (b) y = Squeeze (c, d) }",
        stacked="<int64 i = {0}, int64[1] d = {0}, int64[1] e = {1}> { u = Unsqueeze (x, d) v = Unsqueeze (z, d)"
        "a = Concat <axis = 0> (u, v) b = Gather (a, i) y = Squeeze (b, e) }",
    ),
    *row(
        "channel shuffle, Transpose of a view",
        head="(float[N,8,4] x) => (float[A,B,C] y)",
        gone="Transpose",
        view="<int64[4] s = {0, 2, 4, 4}, int64[3] t = {0, 8, 4}> { a = Transpose <perm = [0, 2, 1]> (x)"
        "b = Transpose <perm = [0, 2, 1]> (a) c = Reshape (b, s) d = Transpose <perm = [0, 1, 2, 3]> (c) y = "
        "Reshape (d, t) }",
        there_view_back="<int64[4] s = {0, 4, 2, 4}, int64[3] t = {0, 8, 4}> { a = Transpose <perm = [0, 2, 1]> (x)"
        "b = Reshape (a, s) c = Transpose <perm = [0, 2, 3, 1]> (b) y = Reshape (c, t) }",
        unit_axis="<int64[4] s = {0, 1, 4, 8}, int64[3] t = {0, 8, 4}> { a = Transpose <perm = [0, 2, 1]> (x)"
        "b = Reshape (a, s) c = Transpose <perm = [0, 3, 1, 2]> (b) y = Reshape (c, t) }",
    ),
]
