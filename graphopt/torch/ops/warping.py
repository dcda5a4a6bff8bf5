"""GridSample, AffineGrid, RoiAlign, Col2Im, DeformConv."""

from __future__ import annotations

__all__: list[str] = []
