"""Scales of quantized weights that train with them, and scales of biases, which follow.

After Esser et al., *Learned Step Size Quantization* (arXiv 1902.08153). That it is the logarithm which learns, so that
a scale stays positive and moves by a share of itself, is from Jain et al. (arXiv 1903.08066).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphopt.analysis import constants

__all__ = ["followers"]

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_SAME = 1e-5  # of a scale


def followers(scale: ir.Value) -> dict[ir.Value, ir.Value] | None:
    """The scales of biases that must stay the product of a weight's scale and another one, with that other one.

    Integer kernels add a bias to the sum of products as it is, and never look at its scale.

    Args:
        scale: That of a weight.

    Returns:
        ``None`` where it cannot change alone: because activations have it too, or something that is no layer reads the
        weight, or a bias has another scale already.
    """
    found: dict[ir.Value, ir.Value] = {}
    for use in scale.uses():
        node = use.node
        weight = node.inputs[0]
        if node.op_type != "DequantizeLinear" or use.idx != 1 or weight is None or not weight.is_initializer():
            return None
        for reader in node.outputs[0].uses():
            layer = reader.node
            if layer.op_type not in _LAYERS or reader.idx != 1 or node.outputs[0].is_graph_output():
                return None
            bias = _scale_of(layer.inputs[2]) if len(layer.inputs) > 2 else None
            if bias is None:
                continue
            given = _scale_of(layer.inputs[0])
            if given is None or not _is_product(bias, given, scale):
                return None
            found[bias] = given
    return found


def _scale_of(value: ir.Value | None) -> ir.Value | None:
    """The scale by which a value was made of integers, if it was."""
    node = value.producer() if value is not None else None
    return node.inputs[1] if node is not None and node.op_type == "DequantizeLinear" else None


def _is_product(bias: ir.Value, given: ir.Value, weight: ir.Value) -> bool:
    arrays = [constants.array(one) for one in (bias, given, weight)]
    own, left, right = (np.zeros(0) if one is None else one.ravel() for one in arrays)
    fits = len(bias.uses()) == 1 and left.size == 1 and own.size == right.size
    return fits and np.allclose(own, left * right, _SAME, 0)
