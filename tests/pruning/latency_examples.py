"""Small models with every kind of product, and a meter that needs no clock."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from harness import parse

from graphopt.pruning.latency.micro import Operator

__all__ = ["convolutions", "macs_of", "matrices", "recurrent"]


def _weights(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def convolutions() -> ir.Model:
    """Dense, grouped, depthwise and transposed convolutions, a residual, activations that fuse."""
    return parse(
        """g (float[N,3,16,16] x) => (float[N,10] y) {
            [stem] a = Conv <pads=[1,1,1,1]> (x, w1, b1)
            low = Constant <value_float=0.0> ()
            high = Constant <value_float=6.0> ()
            b = Clip (a, low, high)
            [depthwise] c = Conv <group=32, pads=[1,1,1,1]> (b, w2)
            d = Relu (c)
            [narrow] e = Conv (d, w3)
            [grouped] f = Conv <group=4, pads=[1,1,1,1]> (e, w4)
            [back] h = Conv (f, w5)
            i = Add (e, h)
            [up] j = ConvTranspose <group=2, strides=[2,2]> (i, w6)
            k = GlobalAveragePool (j)
            l = Flatten (k)
            [fc] y = Gemm <transB=1> (l, w7, b7)
        }""",
        {
            "w1": _weights(32, 3, 3, 3),
            "b1": _weights(32),
            "w2": _weights(32, 1, 3, 3),
            "w3": _weights(16, 32, 1, 1),
            "w4": _weights(32, 4, 3, 3),
            "w5": _weights(16, 32, 1, 1),
            "w6": _weights(16, 8, 2, 2),
            "w7": _weights(10, 16),
            "b7": _weights(10),
        },
    )


def matrices() -> ir.Model:
    """Attention of four heads, and two dense layers."""
    squares = {name: _weights(32, 32) for name in ("wq", "wk", "wv", "wo")}
    return parse(
        """g (float[N,7,32] x) => (float[N,7,32] y) {
            [norm] n = LayerNormalization (x, gamma)
            [q] q0 = MatMul (n, wq)
            [k] k0 = MatMul (n, wk)
            [v] v0 = MatMul (n, wv)
            apart = Constant <value_ints=[0,7,4,8]> ()
            joined = Constant <value_ints=[0,7,32]> ()
            q1 = Reshape (q0, apart)
            k1 = Reshape (k0, apart)
            v1 = Reshape (v0, apart)
            q2 = Transpose <perm=[0,2,1,3]> (q1)
            k2 = Transpose <perm=[0,2,3,1]> (k1)
            v2 = Transpose <perm=[0,2,1,3]> (v1)
            [scores] s = MatMul (q2, k2)
            p = Softmax (s)
            [context] c = MatMul (p, v2)
            c1 = Transpose <perm=[0,2,1,3]> (c)
            c2 = Reshape (c1, joined)
            [out] o = MatMul (c2, wo)
            [up] u = MatMul (o, w1)
            r = Relu (u)
            [down] y = MatMul (r, w2)
        }""",
        {"gamma": _weights(32), **squares, "w1": _weights(32, 64), "w2": _weights(64, 32)},
    )


def recurrent() -> ir.Model:
    """An LSTM and a GRU in a row, and a dense layer."""
    return parse(
        """g (float[T,N,6] x) => (float[T,N,5] y) {
            axes = Constant <value_ints=[1]> ()
            [lstm] a, h, c = LSTM <hidden_size=16> (x, w1, r1, b1)
            b = Squeeze (a, axes)
            [gru] d = GRU <hidden_size=8> (b, w2, r2)
            e = Squeeze (d, axes)
            [fc] y = MatMul (e, w3)
        }""",
        {
            "w1": _weights(1, 64, 6),
            "r1": _weights(1, 64, 16),
            "b1": _weights(1, 128),
            "w2": _weights(1, 24, 16),
            "r2": _weights(1, 24, 8),
            "w3": _weights(8, 5),
        },
    )


def macs_of(rate: float = 1e-3) -> Callable[[Operator], float]:
    """Milliseconds in step with the sizes of what an operator reads: those of weights, else those of activations."""

    def milliseconds(operator: Operator) -> float:
        read = [operand for operand in operator.inputs if operand is not None]
        fixed = [operand for operand in read if operand.fixed and len(operand.shape) > 1] or read
        return rate * sum(math.prod(operand.shape) for operand in fixed)

    return milliseconds
