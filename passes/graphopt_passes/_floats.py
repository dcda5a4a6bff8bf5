"""Floating-point types, as the passes that change numbers see them."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from graphopt.analysis.constants import FLOAT_TYPES

__all__ = ["AT_MOST_SINGLE", "FLOAT_TYPES", "HALF_TYPES", "smallest_normal"]

HALF_TYPES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
AT_MOST_SINGLE = (ir.DataType.FLOAT, *HALF_TYPES)


def smallest_normal(dtype: np.dtype[Any]) -> float:
    """The smallest positive number that ``dtype`` (bfloat16 too) holds with all its bits."""
    return float(ml_dtypes.finfo(dtype).tiny)  # type: ignore[no-untyped-call]
