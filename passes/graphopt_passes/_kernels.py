"""Which of ONNX Runtime's own operators have a kernel where, for which types; see CONTRIB.md for what was measured.

Sources: the kernels that ONNX Runtime 1.31 registers on the CPU (a test compares), and for CUDA its
``contrib_ops/cuda/cuda_contrib_kernels.cc``, of which only types that older releases have, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import onnx_ir as ir

from graphopt.pipeline.base import Context, Target

__all__ = ["DOMAIN", "KERNELS", "has_kernel"]

DOMAIN: Final = "com.microsoft"

_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16

KERNELS: Final[Mapping[str, Mapping[Target, tuple[ir.DataType, ...]]]] = {
    "Attention": {Target.ORT_CPU: (_FLOAT,), Target.ORT_CUDA: (_FLOAT, _HALF)},
    "MultiHeadAttention": {Target.ORT_CPU: (_FLOAT,), Target.ORT_CUDA: (_FLOAT, _HALF)},
    "RotaryEmbedding": {Target.ORT_CPU: (_FLOAT, _HALF), Target.ORT_CUDA: (_FLOAT, _HALF)},
    "SkipLayerNormalization": {Target.ORT_CPU: (_FLOAT, _HALF), Target.ORT_CUDA: (_FLOAT, _HALF)},
    "SkipSimplifiedLayerNormalization": {Target.ORT_CPU: (_FLOAT, _HALF), Target.ORT_CUDA: (_FLOAT, _HALF)},
}
"""By operator and target, the types that its first input may have. No operator has a row for ``portable``."""


def has_kernel(op_type: str, value: ir.Value, context: Context) -> bool:
    """Whether the target runs the operator on a tensor of the type of ``value``."""
    return context.shapes.dtype(value) in KERNELS[op_type].get(context.target, ())
