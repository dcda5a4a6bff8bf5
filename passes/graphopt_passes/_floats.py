"""Floating-point types, as the passes that change numbers see them."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

__all__ = ["FLOAT_TYPES", "HALF_TYPES", "smallest_normal"]

HALF_TYPES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
FLOAT_TYPES = (ir.DataType.FLOAT, ir.DataType.DOUBLE, *HALF_TYPES)
"""What Conv, Gemm and friends compute in."""


def smallest_normal(dtype: np.dtype[Any]) -> float:
    """The smallest positive number that ``dtype`` (bfloat16 too) holds with all its bits."""
    return float(ml_dtypes.finfo(dtype).tiny)  # type: ignore[no-untyped-call]
