"""What ONNX Runtime's XNNPACK provider takes. ONNX Runtime ships no such list, so it is written down here.

Sources: https://onnxruntime.ai/docs/execution-providers/Xnnpack-ExecutionProvider.html for the operators; for what is
asked of a node, the functions ``IsOnnxNodeSupported`` under ``onnxruntime/core/providers/xnnpack``; for the versions,
the kernels registered in ``xnnpack_execution_provider.cc`` (a kernel without a last version is found for its first one
only: ``kernel_registry.cc``). Kernels for images begin with operator set 11, as ONNX Runtime's NHWC operators do.
float16, on ARM, came with the pull requests 22258, 22301 and 22381.
"""

from __future__ import annotations

from typing import Final

from graphopt.analysis import constants
from graphopt.mobile.demands import (
    BIAS,
    FLAT,
    FLOAT,
    FLOAT_OR_QUANTIZED,
    FLOAT_OR_UINT8,
    PLANES,
    Demand,
    Kind,
    Row,
    constant,
    constant_if_given,
    fixed_axes,
    is_set,
)
from graphopt.mobile.sight import Sight

__all__ = ["FUSED", "FUSED_INTO", "OPERATORS"]


def _pads(sight: Sight) -> bool:
    mode = sight.attribute("auto_pad", "NOTSET")
    return sight.attribute("pads") is not None or mode in ("NOTSET", "VALID", "SAME_UPPER")


def _window(sight: Sight) -> bool:
    kernel = list(sight.attribute("kernel_shape", ()))
    return len(kernel) == 2 and kernel != [1, 1]


def _softmax_axis(sight: Sight) -> bool:
    rank = len(sight.dims() or ())
    return sight.version < 13 or sight.attribute("axis", -1) in (-1, rank - 1)


def _softmax_extents(sight: Sight) -> bool:
    dims = sight.dims()
    first = -1 if sight.version >= 13 else sight.attribute("axis", 1)
    return bool(dims and None not in dims[first:])


def _resize_sizes(sight: Sight) -> bool:
    """Scales or sizes are constant, and leave the channels alone."""
    dims, old = sight.dims(), sight.version == 10
    scales = sight.constant(1 if old else 2)
    sizes = None if old else sight.constant(3)
    if dims is None or (scales is None and sizes is None):
        return False
    if scales is not None and scales.size:
        return bool(scales.size == 4 and scales.numpy()[1] == 1)
    return sizes is not None and sizes.size == 4 and int(sizes.numpy()[1]) == dims[1]


def _resize_places(sight: Sight) -> bool:
    mode = "asymmetric" if sight.version == 10 else sight.attribute("coordinate_transformation_mode", "half_pixel")
    out = sight.out_dims() or ()
    several = len(out) == 4 and all(extent is not None and extent > 1 for extent in out[2:])
    return mode in ("asymmetric", "half_pixel", "align_corners") or (mode == "pytorch_half_pixel" and several)


def _softmax_scale(sight: Sight) -> bool:
    """Results are multiples of 1/256 from 0 on: softmax.cc."""
    if not sight.quantized:
        return True
    (user, _), *_ = sight.node.outputs[0].uses()
    scale, zero = (constants.scalar(user.inputs[index] if len(user.inputs) > index else None) for index in (1, 2))
    return scale is not None and abs(scale - 1 / 256) <= 1e-4 and not zero


def _gemm_bias(sight: Sight) -> bool:
    bias, weights = sight.dims(2), sight.dims(1)
    return not sight.has(2) or bool(bias and weights and bias[0] in weights)


_CHANNELS_AND_PLANE = fixed_axes(1, 2, 3)
_PADDING = Demand(Kind.ATTRIBUTE, "it is padded as auto_pad = SAME_LOWER", _pads)
_WINDOW = Demand(Kind.ATTRIBUTE, "its window is 1 x 1", _window)
_FLOOR = is_set("ceil_mode", 0, 0, "it rounds its output up (ceil_mode)")
_WEIGHTS = constant(1, "weight")
_CONVOLUTION = (FLOAT_OR_QUANTIZED, PLANES, _CHANNELS_AND_PLANE, _WEIGHTS, BIAS, _PADDING)
_POOL = (PLANES, _CHANNELS_AND_PLANE, _FLOOR, _PADDING, _WINDOW)
_NO_INDICES = Demand(Kind.ATTRIBUTE, "its indices are read", lambda s: len(s.node.outputs) == 1)
_PAD_COUNT = Demand(
    Kind.ATTRIBUTE,
    "it counts its padding otherwise (count_include_pad)",
    lambda s: bool(s.attribute("count_include_pad", 0)) == s.quantized,  # kernels differ: see average_pool.cc
)
_LAST_AXIS = Demand(Kind.ATTRIBUTE, "it is not along the last axis", _softmax_axis)
_SOFTMAX_EXTENTS = Demand(Kind.SHAPE, "the extent that it runs along is not fixed", _softmax_extents)
_SOFTMAX_SCALE = Demand(Kind.TYPE, "its results have another scale than 1/256", _softmax_scale)
_ROWS = fixed_axes(0, -1)  # one kernel for one number of rows: gemm.cc and matmul.cc read both

OPERATORS: Final = {
    "AveragePool": Row((FLOAT_OR_UINT8, *_POOL, _PAD_COUNT), frozenset({11})),
    "Conv": Row(_CONVOLUTION, frozenset({11})),
    "ConvTranspose": Row(_CONVOLUTION, frozenset({1, 11})),
    "Gemm": Row(
        (
            FLOAT,
            FLAT,
            _ROWS,
            _WEIGHTS,
            BIAS,
            Demand(Kind.ATTRIBUTE, "its bias is no row", _gemm_bias),
            is_set("alpha", 1.0, 1.0, "it scales (alpha)"),
            is_set("beta", 1.0, 1.0, "it scales its bias (beta)"),
            is_set("transA", 0, 0, "it transposes its input (transA)"),
        ),
        frozenset(range(7, 14)),
    ),
    "MatMul": Row((FLOAT, FLAT, _ROWS, _WEIGHTS), frozenset(range(1, 14))),
    "MaxPool": Row((FLOAT_OR_QUANTIZED, *_POOL, _NO_INDICES), frozenset({11, 12})),
    "QLinearConv": Row(
        (
            Demand(Kind.TYPE, "its input and its weight are of different types", lambda s: s.dtype() == s.dtype(3)),
            PLANES,
            _CHANNELS_AND_PLANE,
            *(constant(index, "weight" if index == 3 else "quantization") for index in (1, 2, 3, 4, 5, 6, 7)),
            constant_if_given(8, "bias"),
            _PADDING,
        ),
        frozenset({10}),
    ),
    "Resize": Row(
        (
            FLOAT_OR_QUANTIZED,
            PLANES,
            fixed_axes(1),
            Demand(Kind.CONSTANT, "its scales are not constant, or change the channels", _resize_sizes),
            Demand(Kind.ATTRIBUTE, "it is not linear", lambda s: s.attribute("mode", "nearest") == "linear"),
            is_set("antialias", 0, 0, "it is smoothed (antialias)"),
            Demand(Kind.ATTRIBUTE, "it names axes", lambda s: not s.attribute("axes")),
            is_set("keep_aspect_ratio_policy", "stretch", "stretch", "it keeps the aspect ratio"),
            is_set("extrapolation_value", 0.0, 0.0, "it extrapolates"),
            is_set("exclude_outside", 0, 0, "it excludes what is outside"),
            Demand(Kind.ATTRIBUTE, "it places its samples otherwise", _resize_places),
        ),
        frozenset({10, 11, 13, 18, 19}),
    ),
    "Softmax": Row((FLOAT_OR_UINT8, _LAST_AXIS, _SOFTMAX_EXTENTS, _SOFTMAX_SCALE), frozenset({1, 11, 13})),
}  # fmt: skip
"""Operators of ONNX's own domain. What com.microsoft has of them (QLinearAveragePool ...) arises from these."""

FUSED: Final = ("Clip", "Relu")
"""What becomes part of the node before it."""

FUSED_INTO: Final = ("AveragePool", "Conv", "MaxPool")
"""Those nodes, unless they are quantized."""
