"""Small models that the tests of quantization share, and inputs for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from harness import parse

__all__ = ["convolutional", "images", "perceptron", "rows", "weights"]

Array = npt.NDArray[Any]

_PERCEPTRON = """agraph (float[N,32] x) => (float[N,8] scores) {
    [first] a = MatMul (x, w1)
    [plus] b = Add (a, b1)
    [relu1] c = Relu (b)
    [second] d = Gemm <transB = 1> (c, w2, b2)
    [relu2] e = Relu (d)
    [head] scores = MatMul (e, w3)
}"""

_CONVOLUTIONAL = """agraph (float[N,3,12,12] x) => (float[N,6] scores) {
    [stem] a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, k1, c1)
    [relu1] b = Relu (a)
    [body] c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (b, k2, c2)
    [sum] d = Add (c, b)
    [relu2] e = Relu (d)
    [pool] f = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (e)
    [depthwise] g = Conv <kernel_shape = [3, 3], group = 16> (f, k3, c3)
    [up] h = ConvTranspose <kernel_shape = [2, 2], strides = [2, 2]> (g, k4, c4)
    [mean] i = GlobalAveragePool (h)
    [flat] j = Flatten (i)
    [head] scores = Gemm (j, w, b0)
}"""


def weights(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Array]:
    """Of variance 1 over what they are summed over; vectors are smaller."""
    random = np.random.default_rng(seed)
    found = {}
    for name, shape in shapes.items():
        scale = 4.0 if len(shape) == 1 else np.sqrt(np.prod(shape[1:]) if len(shape) > 2 else shape[0])
        found[name] = (random.standard_normal(shape) / scale).astype(np.float32)
    return found


def perceptron(seed: int = 0, **replaced: Any) -> ir.Model:
    """Three products, the middle one a Gemm with a transposed weight."""
    shapes = {"w1": (32, 48), "b1": (48,), "w2": (40, 48), "b2": (40,), "w3": (40, 8)}
    return parse(_PERCEPTRON, weights(shapes, seed) | replaced)


def convolutional(seed: int = 0, **replaced: Any) -> ir.Model:
    """Plain, residual, depthwise and transposed convolutions, and a Gemm."""
    shapes: dict[str, tuple[int, ...]] = {
        "k1": (16, 3, 3, 3), "c1": (16,), "k2": (16, 16, 3, 3), "c2": (16,), "k3": (16, 1, 3, 3), "c3": (16,),
        "k4": (16, 8, 2, 2), "c4": (8,), "w": (8, 6), "b0": (6,),
    }  # fmt: skip
    return parse(_CONVOLUTIONAL, weights(shapes, seed) | replaced)


def rows(samples: int = 96, seed: int = 1) -> Array:
    """Of :func:`perceptron`."""
    return np.random.default_rng(seed).standard_normal((samples, 32)).astype(np.float32)


def images(samples: int = 96, seed: int = 1) -> Array:
    """Of :func:`convolutional`."""
    return np.random.default_rng(seed).standard_normal((samples, 3, 12, 12)).astype(np.float32)
