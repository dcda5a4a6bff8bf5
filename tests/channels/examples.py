"""Small models that the tests of explanations and drawings share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from harness import parse

__all__ = ["attention", "residual"]

Array = npt.NDArray[np.float32]

RESIDUAL = """agraph (float[N,3,8,8] x) => (float[N,5] probs) {
    [conv1] a = Conv <pads=[1,1,1,1]> (x, w1)
    [bn1] b = BatchNormalization (a, scale, shift, mean, var)
    [relu1] c = Relu (b)
    [narrow] d = Conv (c, w2, b2)
    [conv3] e = Conv (d, w3)
    [add_3] f = Add (c, e)
    [conv4] g = Conv (f, w4)
    [pool] h = GlobalAveragePool (g)
    [flat] i = Flatten (h)
    [fc] j = Gemm <transB=1> (i, w5, b5)
    [softmax] k = Softmax (j)
    [last] probs = Gemm (k, w6)
}"""

ATTENTION = """agraph (float[N,7,16] x) => (float[N,7,16] y) {
    [norm] n = LayerNormalization (x, gamma)
    [q] q0 = MatMul (n, wq)
    [k] k0 = MatMul (n, wk)
    [v] v0 = MatMul (n, wv)
    split = Constant <value_ints=[0,7,4,4]> ()
    joined = Constant <value_ints=[0,7,16]> ()
    q1 = Reshape (q0, split)
    k1 = Reshape (k0, split)
    v1 = Reshape (v0, split)
    q2 = Transpose <perm=[0,2,1,3]> (q1)
    k2 = Transpose <perm=[0,2,3,1]> (k1)
    v2 = Transpose <perm=[0,2,1,3]> (v1)
    [scores] s = MatMul (q2, k2)
    [probs] p = Softmax (s)
    [context] c = MatMul (p, v2)
    c1 = Transpose <perm=[0,2,1,3]> (c)
    c2 = Reshape (c1, joined)
    [out] y = MatMul (c2, wo)
}"""


def weights(*shape: int) -> Array:
    """Seeded by the shape."""
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def residual() -> ir.Model:
    """Convolutions around an Add, and a Softmax over what a layer gives."""
    return parse(
        RESIDUAL,
        {
            "w1": weights(8, 3, 3, 3),
            **{name: weights(8) for name in ("scale", "shift", "mean")},
            "var": np.abs(weights(8)),
            "w2": weights(4, 8, 1, 1),
            "b2": weights(4),
            "w3": weights(8, 4, 1, 1),
            "w4": weights(6, 8, 1, 1),
            "w5": weights(5, 6),
            "b5": weights(5),
            "w6": weights(5, 5),
        },
    )


def attention() -> ir.Model:
    """Four heads of four lanes."""
    squares = {name: weights(16, 16) for name in ("wq", "wk", "wv", "wo")}
    return parse(ATTENTION, {"gamma": weights(16), **squares})
