"""Rules for operators outside ONNX's default domain: ONNX Runtime's own that optimizers emit, and classical ML's.

Sources: onnxruntime/docs/ContribOperators.md, onnx/docs/Operators-ml.md. Keys are ``domain::name``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from graphopt.analysis.shape_rules.call import Call, Shape, ShapeRule, TypeRule, Undetermined
from graphopt.analysis.shape_rules.elementwise import broadcast_shapes, fixed, same, same_shape
from graphopt.analysis.shape_rules.linear import RULES as LINEAR
from graphopt.analysis.shape_rules.linear import matmul_shape
from graphopt.analysis.shape_rules.spatial import RULES as SPATIAL

if TYPE_CHECKING:
    from graphopt.analysis.dims import Dim

__all__ = ["RULES"]

_FLOAT = ir.DataType.FLOAT


def _swapped(shape: Shape, swap: int) -> Shape:
    return (*shape[:-2], shape[-1], shape[-2]) if swap and len(shape) > 1 else shape


def _fused_matmul(call: Call) -> Shape:
    if call.integer("transBatchA", 0) or call.integer("transBatchB", 0):
        raise Undetermined
    return matmul_shape(
        _swapped(call.shape(0), call.integer("transA", 0)), _swapped(call.shape(1), call.integer("transB", 0))
    )


def _matmul(call: Call) -> Shape:
    return matmul_shape(call.shape(0), call.shape(1))


def _matmul_n_bits(call: Call) -> Shape:
    columns: Dim | None = call.attr("N")
    if columns is None:
        raise Undetermined
    return (*call.shape(0)[:-1], columns)


def _qlinear_binary(call: Call) -> Shape:
    return broadcast_shapes(call.shape(0), call.shape(3))


def _skip_normalization(call: Call) -> list[Shape | None]:
    shape = call.shape(0)
    return [shape, None, None, shape]  # the statistics exist in training only


def _multi_head_attention(call: Call) -> list[Shape | None]:
    """Queries (B, S, H), values (B, L, V) or, where they are a cache, (B, heads, L, size); packed ones differ."""
    query, value = call.shape(0), call.shape(2)
    if len(query) != 3 or len(value) not in (3, 4):
        raise Undetermined
    hidden = value[2] if len(value) == 3 else value[1] * value[3]
    return [(*query[:2], hidden)] + [None] * (len(call.node.outputs) - 1)


def _attention(call: Call) -> list[Shape | None]:
    """``x`` (B, S, I), weights (I, Q + K + V), the sizes being an attribute or the same."""
    x, sizes, columns = call.shape(0), call.integers("qkv_hidden_sizes"), call.shape(1)[-1]
    hidden = sizes[-1] if sizes else columns // 3 if isinstance(columns, int) else None
    if len(x) != 3 or hidden is None:
        raise Undetermined
    return [(*x[:2], hidden)] + [None] * (len(call.node.outputs) - 1)


_SAME = "BiasGelu FastGelu Gelu QLinearLeakyRelu QLinearSigmoid QLinearSoftmax QuickGelu RotaryEmbedding"
_SAME_NORMS = "SkipLayerNormalization SkipSimplifiedLayerNormalization"

_CONTRIB: dict[str, tuple[TypeRule, ShapeRule]] = {
    **{name: (same(0), same_shape) for name in _SAME.split()},
    **{name: (same(0), _skip_normalization) for name in _SAME_NORMS.split()},
    **{name: (same(0), _qlinear_binary) for name in ("QLinearAdd", "QLinearMul")},
    **{name: LINEAR[name] for name in ("DequantizeLinear", "QuantizeLinear")},
    "Attention": (same(0), _attention),
    "DynamicQuantizeMatMul": (same(0), _matmul),
    "FusedConv": SPATIAL["Conv"],
    "FusedGemm": LINEAR["Gemm"],
    "FusedMatMul": (same(0), _fused_matmul),
    "MatMulIntegerToFloat": (same(2), _matmul),
    "MatMulNBits": (same(0), _matmul_n_bits),
    "MultiHeadAttention": (same(0), _multi_head_attention),
}
_CLASSICAL: dict[str, tuple[TypeRule, ShapeRule]] = {
    "Binarizer": (same(0), same_shape),
    "Imputer": (same(0), same_shape),
    "Normalizer": (fixed(_FLOAT), same_shape),
    "Scaler": (fixed(_FLOAT), same_shape),
}
RULES: dict[str, tuple[TypeRule, ShapeRule]] = {
    **{f"com.microsoft::{name}": rules for name, rules in _CONTRIB.items()},
    **{f"ai.onnx.ml::{name}": rules for name, rules in _CLASSICAL.items()},
}
