"""Fourier transforms (ONNX: DFT, STFT) and MelWeightMatrix."""

from __future__ import annotations

__all__: list[str] = []
