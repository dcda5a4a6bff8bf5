"""Rows on convolutions and what folds into them."""

from __future__ import annotations

from bench.micrographs.case import Spelling, row

__all__ = ["CASES"]

_HEAD = "(float[N,4,8,8] x) => (float[N,C,H,W] y)"
_STATISTICS = "float[8] g, float[8] b, float[8] m, float[8] v"
_CONV = "float[8,4,3,3] w"

CASES = [
    *row(
        "Conv and BatchNormalization",
        head=_HEAD,
        gone="BatchNormalization",
        no_bias=f"<{_CONV}, {_STATISTICS}> {{ a = Conv (x, w) y = BatchNormalization (a, g, b, m, v) }}",
        bias=f"<{_CONV}, float[8] c, {_STATISTICS}>"
        "{ a = Conv <pads = [1, 1, 1, 1]> (x, w, c) y = BatchNormalization <epsilon = 0.001> (a, g, b, m, v) }",
        depthwise="<float[8,1,3,3] w, float[8] c, float[8] g, float[8] b, float[8] m, float[8] v> { r = Concat "
        "<axis = 1>"
        "(x, x) a = Conv <group = 8> (r, w, c) n = BatchNormalization (a, g, b, m, v) y = Relu (n) }",
        one_axis="(float[N,4,8] x) => (float[N,8,L] y) <float[8,4,3] w, float[8] g, float[8] b, float[8] m, float[8] v>"
        "{ a = Conv (x, w) y = BatchNormalization (a, g, b, m, v) }",
        opset_13=Spelling(
            f"<{_CONV}, {_STATISTICS}> {{ a = Conv (x, w) n = BatchNormalization (a, g, b, m, v) y = Relu (n) }}",
            opset=13,
        ),
    ),
    *row(
        "ConvTranspose and BatchNormalization",
        head=_HEAD,
        gone="BatchNormalization",
        no_bias=f"<float[4,8,3,3] w, {_STATISTICS}> {{ a = ConvTranspose (x, w) y = BatchNormalization (a, g, b, "
        f"m, v) }}",
        bias=f"<float[4,8,2,2] w, float[8] c, {_STATISTICS}>"
        "{ a = ConvTranspose <strides = [2, 2]> (x, w, c) y = BatchNormalization (a, g, b, m, v) }",
        groups=f"<float[4,4,3,3] w, {_STATISTICS}> {{ a = ConvTranspose <group = 2> (x, w)"
        "y = BatchNormalization (a, g, b, m, v) }",
        groups_bias=f"<float[4,2,3,3] w, float[8] c, {_STATISTICS}> {{ a = ConvTranspose <group = 4> (x, w, c)"
        "y = BatchNormalization (a, g, b, m, v) }",
    ),
    *row(
        "BatchNormalization into Conv",
        head=_HEAD,
        gone="BatchNormalization",
        plain="<float[8,4,3,3] w, float[4] g, float[4] b, float[4] m, float[4] v>"
        "{ a = BatchNormalization (x, g, b, m, v) y = Conv (a, w) }",
        pointwise="<float[8,4,1,1] w, float[8] c, float[4] g, float[4] b, float[4] m, float[4] v>"
        "{ a = BatchNormalization (x, g, b, m, v) y = Conv (a, w, c) }",
        groups="<float[8,2,3,3] w, float[4] g, float[4] b, float[4] m, float[4] v>"
        "{ a = BatchNormalization (x, g, b, m, v) y = Conv <group = 2> (a, w) }",
        depthwise="<float[4,1,3,3] w, float[4] c, float[4] g, float[4] b, float[4] m, float[4] v>"
        "{ a = BatchNormalization (x, g, b, m, v) y = Conv <group = 4> (a, w, c) }",
    ),
    *row(
        "Concat of Convs, BatchNormalization",
        head=_HEAD,
        gone="BatchNormalization",
        two="<float[4,4,3,3] w, float[4,4,3,3] u, float[8] g, float[8] b, float[8] m, float[8] v>"
        "{ a = Conv (x, w) c = Conv (x, u) d = Concat <axis = 1> (a, c) y = BatchNormalization (d, g, b, m, v) }",
        unequal="<float[6,4,1,1] w, float[2,4,1,1] u, float[6] k, float[8] g, float[8] b, float[8] m, float[8] v>"
        "{ a = Conv (x, w, k) c = Conv (x, u) d = Concat <axis = 1> (a, c) n = BatchNormalization (d, g, b, m, v)"
        "y = Relu (n) }",
        three="<float[4,4,1,1] w, float[2,4,1,1] u, float[2,4,1,1] t, float[8] g, float[8] b, float[8] m, float[8] v>"
        "{ a = Conv (x, w) c = Conv (x, u) e = Conv (x, t) d = Concat <axis = -3> (a, c, e)"
        "y = BatchNormalization (d, g, b, m, v) }",
    ),
    *row(
        "Conv, then Mul and Add",
        head=_HEAD,
        gone="Mul Add",
        mul=f"<{_CONV}, float[8,1,1] s> {{ a = Conv (x, w) y = Mul (a, s) }}",
        add=f"<{_CONV}, float[1,8,1,1] s> {{ a = Conv (x, w) y = Add (s, a) }}",
        both=f"<{_CONV}, float[8] c, float[1,8,1,1] s, float[8,1,1] t> {{ a = Conv (x, w, c) b = Mul (a, s) y = "
        f"Add (b, t) }}",
        scalar=f"<{_CONV}, float[8] c, float s = {{0.5}}> {{ a = Conv (x, w, c) y = Mul (a, s) }}",
        transposed="<float[4,8,2,2] w, float[1,8,1,1] s, float[1,8,1,1] t>"
        "{ a = ConvTranspose <strides = [2, 2]> (x, w) b = Mul (a, s) y = Add (b, t) }",
    ),
    *row(
        "Conv, then Sub and Div",
        head=_HEAD,
        gone="Sub Div Mul Add",
        sub=f"<{_CONV}, float[8,1,1] s> {{ a = Conv (x, w) y = Sub (a, s) }}",
        div=f"<{_CONV}, float[8] c, float[1,8,1,1] v> {{ a = Conv (x, w, c) y = Div (a, v) }}",
        both=f"<{_CONV}, float s = {{0.5}}, float t = {{4}}> {{ a = Conv (x, w) b = Sub (a, s) y = Div (b, t) }}",
        sub_from=f"<{_CONV}, float[8,1,1] s> {{ a = Conv (x, w) y = Sub (s, a) }}",
        neg=Spelling(f"<{_CONV}, float[8] c> {{ a = Conv (x, w, c) y = Neg (a) }}", gone="Neg"),
    ),
    *row(
        "Mul, Div, Add, Sub into Conv",
        head=_HEAD,
        gone="Mul Sub Div Add",
        scale=f"<{_CONV}, float s = {{0.5}}> {{ a = Mul (x, s) y = Conv <pads = [1, 1, 1, 1]> (a, w) }}",
        channels=f"<{_CONV}, float[8] c, float[1,4,1,1] s> {{ a = Mul (x, s) y = Conv (a, w, c) }}",
        pixels=f"<{_CONV}, float s = {{255}}> {{ a = Div (x, s) y = Conv (a, w) }}",
        mean=f"<{_CONV}, float[1,4,1,1] s> {{ a = Sub (x, s) y = Conv (a, w) }}",
        normalized=f"<{_CONV}, float[8] c, float[1,4,1,1] s, float[1,4,1,1] v>"
        "{ a = Sub (x, s) b = Div (a, v) y = Conv (b, w, c) }",
    ),
    *row(
        "Pad into Conv",
        head=_HEAD,
        gone="Pad",
        plain=f"<{_CONV}, int64[8] p = {{0, 0, 1, 1, 0, 0, 1, 1}}> {{ a = Pad (x, p) y = Conv (a, w) }}",
        uneven=f"<{_CONV}, int64[8] p = {{0, 0, 0, 1, 0, 0, 2, 1}}, float z = {{0}}>"
        "{ a = Pad (x, p, z) y = Conv <pads = [1, 0, 1, 0], strides = [2, 2]> (a, w) }",
        axes=f"<{_CONV}, int64[4] p = {{1, 1, 1, 1}}, int64[2] d = {{2, 3}}> {{ a = Pad (x, p, , d) y = Conv (a, w) }}",
        opset_10=Spelling(f"<{_CONV}> {{ a = Pad <pads = [0, 0, 1, 1, 0, 0, 1, 1]> (x) y = Conv (a, w) }}", opset=10),
    ),
    *row(
        "Pad into a pool",
        head=_HEAD,
        gone="Pad",
        max="<int64[8] p = {0, 0, 1, 1, 0, 0, 1, 1}, float z = {-inf}>"
        "{ a = Pad (x, p, z) y = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (a) }",
        max_of_relu="<int64[8] p = {0, 0, 1, 1, 0, 0, 1, 1}> { r = Relu (x) a = Pad (r, p)"
        "y = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (a) }",
        average="<int64[8] p = {0, 0, 1, 1, 0, 0, 1, 1}>"
        "{ a = Pad (x, p) y = AveragePool <kernel_shape = [3, 3], count_include_pad = 1> (a) }",
        average_default="<int64[8] p = {0, 0, 0, 0, 0, 0, 1, 1}>"
        "{ a = Pad (x, p) y = AveragePool <kernel_shape = [2, 2]> (a) }",
    ),
    *row(
        "Conv of Conv",
        head=_HEAD,
        gone="Conv:1",
        pointwise="<float[4,4,1,1] w, float[4,4,1,1] u> { a = Conv (x, w) y = Conv (a, u) }",
        biases="<float[4,4,1,1] w, float[4] b, float[4,4,1,1] u, float[4] c> { a = Conv (x, w, b) y = Conv (a, u, c) }",
        before_3x3="<float[4,4,1,1] w, float[4] b, float[4,4,3,3] u> { a = Conv (x, w, b) y = Conv (a, u) }",
        after_3x3="<float[4,4,3,3] w, float[4,4,1,1] u, float[4] c>"
        "{ a = Conv <pads = [1, 1, 1, 1]> (x, w) y = Conv (a, u, c) }",
    ),
    *row(
        "RepVGG branches",
        head="(float[N,4,8,8] x) => (float[N,4,8,8] y)",
        gone="Conv:1 Add BatchNormalization",
        two="<float[4,4,3,3] w, float[4,4,1,1] u>"
        "{ a = Conv <pads = [1, 1, 1, 1]> (x, w) b = Conv (x, u) c = Add (a, b) y = Relu (c) }",
        identity="<float[4,4,3,3] w, float[4] k, float[4,4,1,1] u>"
        "{ a = Conv <pads = [1, 1, 1, 1]> (x, w, k) b = Conv (x, u) c = Add (a, b) d = Add (c, x) y = Relu (d) }",
        normalized="<float[4,4,3,3] w, float[4,4,1,1] u, float[4] g, float[4] b, float[4] m, float[4] v>"
        "{ a = Conv <pads = [1, 1, 1, 1]> (x, w) c = BatchNormalization (a, g, b, m, v) d = Conv (x, u)"
        "e = BatchNormalization (d, b, g, m, v) f = BatchNormalization (x, m, b, g, v) h = Add (c, e) k = Add (h, f)"
        "y = Relu (k) }",
        same_size="<float[4,4,3,3] w, float[4,4,3,3] u>"
        "{ a = Conv <pads = [1, 1, 1, 1]> (x, w) b = Conv <pads = [1, 1, 1, 1]> (x, u) y = Add (a, b) }",
    ),
    *row(
        "zeroed channels",
        head="(float[N,4,8,8] x) => (float[N,4,H,W] y)",
        gone="elements:240",
        two_layers="<float[8,4,3,3] z, float[4,8,1,1] w> { a = Conv (x, z) b = Relu (a) y = Conv (b, w) }",
        normalized="<float[8,4,3,3] z, float[8] z_g, float[8] z_b, float[8] m, float[8] v, float[4,8,1,1] w>"
        "{ a = Conv (x, z) n = BatchNormalization (a, z_g, z_b, m, v) b = Relu (n) y = Conv (b, w) }",
        fully_connected=Spelling(
            "(float[N,4] x) => (float[N,4] y) <float[4,8] w, float[8,4] z> "
            "{ a = MatMul (x, w) b = Relu (a) y = MatMul (b, z) }",
            gone="elements:40",
        ),
        residual=Spelling(
            "<float[8,4,3,3] z, float[8,8,1,1] w, float[4,8,1,1] u>"
            "{ a = Conv (x, z) r = Relu (a) b = Conv (r, w) c = Relu (b) y = Conv (c, u) }",
            gone="elements:300",
        ),
    ),
]
