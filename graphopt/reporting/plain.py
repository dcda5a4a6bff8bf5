"""Plain data that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["finite"]


def finite(data: Any) -> Any:
    """The same with ``None`` for NaN and infinities, which JSON does not have, and lists for tuples."""
    if isinstance(data, Mapping):
        return {key: finite(one) for key, one in data.items()}
    if isinstance(data, list | tuple):
        return [finite(one) for one in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
