"""Fourier transforms (ONNX: DFT, STFT) and MelWeightMatrix."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphopt.torch.registry import op
from graphopt.torch.values import Run, Sizes, ints, number, torch_dtype

__all__: list[str] = []


def _transform(x: Tensor, length: int | None, axis: int, inverse: int, onesided: int) -> Tensor:
    axis = axis % x.ndim
    signal = torch.view_as_complex(x.contiguous()) if x.shape[-1] == 2 else x.squeeze(-1)
    if inverse and onesided:
        count = length if length is not None else 2 * (signal.shape[axis] - 1)
        real: Tensor = torch.fft.irfft(signal, count, dim=axis)
        return real.unsqueeze(-1)
    count = length if length is not None else signal.shape[axis]
    if inverse:
        found = torch.fft.ifft(signal, count, dim=axis)
    elif onesided and not signal.is_complex():
        found = torch.fft.rfft(signal, count, dim=axis)
    else:
        found = torch.fft.fft(signal, count, dim=axis)
        found = found.narrow(axis, 0, count // 2 + 1) if onesided else found
    return torch.view_as_real(found)


@op("DFT", since=17)
def dft_axis_attribute(
    x: Tensor, length: Sizes | None = None, *, axis: int = 1, inverse: int = 0, onesided: int = 0
) -> Tensor:
    return _transform(x, None if length is None else ints(length)[0], axis, inverse, onesided)


@op("DFT", since=20)
def dft(
    x: Tensor, length: Sizes | None = None, axis: Sizes | None = None, *, inverse: int = 0, onesided: int = 0
) -> Tensor:
    along = -2 if axis is None else ints(axis)[0]
    return _transform(x, None if length is None else ints(length)[0], along, inverse, onesided)


@op("STFT", since=17)
def stft(
    x: Tensor, step: Sizes, window: Tensor | None = None, length: Sizes | None = None, *, onesided: int = 1
) -> Tensor:
    count = ints(length)[0] if length is not None else window.shape[0] if window is not None else x.shape[1]
    frames = x.unfold(1, count, ints(step)[0])  # (batch, frames, 1 or 2, count)
    frames = frames.transpose(-1, -2)
    if window is not None:
        frames = frames * window[:, None]
    return _transform(frames, None, -2, 0, onesided)


@op("MelWeightMatrix", since=17)
def mel_weight_matrix(
    bins: Sizes, length: Sizes, rate: Sizes, low: Sizes, high: Sizes, *, output_datatype: int = 1, run: Run
) -> Tensor:
    count, size = int(number(bins)), int(number(length))
    first, last = (2595 * math.log10(1 + float(number(edge)) / 700) for edge in (low, high))
    step = (last - first) / (count + 2)
    hertz = [700 * (10 ** ((first + place * step) / 2595) - 1) for place in range(count + 2)]
    places = [int(((size + 1) * one) // float(number(rate))) for one in hertz]
    made = torch.zeros(size // 2 + 1, count)
    for column in range(count):
        lower, middle, upper = places[column : column + 3]
        if lower == middle:
            made[middle, column] = 1
        for row in range(lower, middle + 1 if middle > lower else lower):
            made[row, column] = (row - lower) / (middle - lower)
        for row in range(middle, upper):
            made[row, column] = (upper - row) / (upper - middle)
    return made.to(run.device, torch_dtype(output_datatype))
