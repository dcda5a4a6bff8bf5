"""Small models that the tests of pruning share, and inputs for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from harness import parse

__all__ = ["classifier", "inputs"]

Array = npt.NDArray[Any]

_TEXT = """agraph (float[N,8] x) => (float[N,4] scores) {
    [first] a = Gemm (x, w1, b1)
    [relu1] b = Relu (a)
    [second] c = Gemm (b, w2, b2)
    [relu2] d = Relu (c)
    [head] scores = Gemm (d, w3, b3)
}"""


def classifier(seed: int = 0, *, hidden: int = 32) -> ir.Model:
    """Three layers with two groups of ``hidden`` channels between them."""
    random = np.random.default_rng(seed)
    held: dict[str, Array] = {}
    for number, (rows, columns) in enumerate(((8, hidden), (hidden, hidden), (hidden, 4)), 1):
        held[f"w{number}"] = (random.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)
        held[f"b{number}"] = (random.standard_normal(columns) / 4).astype(np.float32)
    return parse(_TEXT, held)


def inputs(samples: int = 64, seed: int = 1) -> Array:
    """Of :func:`classifier`."""
    return np.random.default_rng(seed).standard_normal((samples, 8)).astype(np.float32)
