"""Matrices in blocks of few-bit integers, each with a scale; what rounding one column loses, later ones make up for.

After Frantar et al., *GPTQ* (arXiv 2210.17323): columns are rounded one after the other, and the error of each is taken
out of those that follow, as far as they are correlated with it on the data. What is left of the error on average goes
into the bias. Without data, every weight goes to the nearest integer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.pruning.layers import Layer
from graphopt.pruning.stages import Feeds, observe

__all__ = ["BLOCK", "Blocks", "Moments", "gather", "round_blocks"]

Array = npt.NDArray[Any]

BLOCK = 32
"""Weights of one output, along the inputs, that share a scale."""
_TINY = 1e-12
_DAMPING = 0.01  # of the mean of the diagonal, as in the paper
_WIDEST = 8192  # columns of a matrix that is worth an inverse
_ROWS = 4096  # of a batch, at most
_BYTES = 1 << 30  # of products in memory at once


@dataclasses.dataclass(frozen=True)
class Moments:
    """What a layer reads.

    Attributes:
        mean: ``(inputs,)``.
        products: ``(inputs, inputs)``, the mean product of each pair of inputs.
    """

    mean: Array
    products: Array


@dataclasses.dataclass(frozen=True)
class Blocks:
    """A matrix in blocks.

    Attributes:
        bits: 4 or 8.
        levels: ``(outputs, blocks, BLOCK)``, uint8; of columns beyond the last they are those of zero.
        scales: ``(outputs, blocks)``, float32.
        zeros: ``(outputs, blocks)``, uint8: the level that stands for zero.
        shift: ``(outputs,)``: what the product loses on average; ``None`` without data.
    """

    bits: int
    levels: Array
    scales: Array
    zeros: Array
    shift: Array | None

    def matrix(self, columns: int) -> Array:
        """What it stands for, as ``(outputs, columns)``, float32."""
        held = (self.levels.astype(np.float32) - self.zeros[:, :, None]) * self.scales[:, :, None]
        return held.reshape(len(held), -1)[:, :columns]

    def packed(self) -> tuple[Array, Array]:
        """Levels and zeros as MatMulNBits reads them: ``(outputs, blocks, bytes)`` and one after the other."""
        if self.bits == 8:
            return self.levels, self.zeros.reshape(-1)
        zeros = np.pad(self.zeros, ((0, 0), (0, self.zeros.shape[1] % 2)))
        return _pairs(self.levels), _pairs(zeros).reshape(-1)


def _pairs(levels: Array) -> Array:
    """Two levels in a byte, the first in the low bits."""
    packed: Array = levels[..., 0::2] | (levels[..., 1::2] << 4)
    return packed


def round_blocks(weight: Array, bits: int, moments: Moments | None = None) -> Blocks:
    """Rounds a matrix ``(outputs, columns)``.

    Args:
        weight: The matrix.
        bits: 4 (each block from its least to its greatest weight), or 8 (symmetric).
        moments: Of what it is multiplied with; ``None`` to round to the nearest.
    """
    outputs, columns = weight.shape
    count = -(-columns // BLOCK)
    levels = np.zeros((outputs, count, BLOCK), np.uint8)
    scales, zeros = np.empty((outputs, count), np.float32), np.empty((outputs, count), np.uint8)
    later = None if moments is None or columns > _WIDEST else _later(moments.products)
    left: Array = np.array(weight, np.float64 if later is not None else np.float32)
    for number in range(count):
        start, end = number * BLOCK, min((number + 1) * BLOCK, columns)
        own = left[:, start:end]
        scale, zero = _grid(own, bits)
        scales[:, number], zeros[:, number] = scale, zero
        levels[:, number] = zero[:, None]
        if later is None:
            levels[:, number, : end - start] = _nearest(own, scale[:, None], zero[:, None], bits)
            continue
        errors = np.empty_like(own)
        for place in range(end - start):
            column = start + place
            found = _nearest(own[:, place], scale, zero, bits)
            levels[:, number, place] = found
            held = (found.astype(np.float64) - zero) * scale
            errors[:, place] = (own[:, place] - held) / later[column, column]
            own[:, place + 1 :] -= np.outer(errors[:, place], later[column, column + 1 : end])
        left[:, end:] -= errors @ later[start:end, end:]
    result = Blocks(bits, levels, scales, zeros, None)
    if moments is None:
        return result
    shift = (weight.astype(np.float64) - result.matrix(columns)) @ moments.mean
    return dataclasses.replace(result, shift=shift.astype(np.float32))


def _grid(weight: Array, bits: int) -> tuple[Array, Array]:
    """Scale and zero of each row."""
    most = (1 << bits) - 1
    if bits == 8:
        scale = np.abs(weight).max(1) / 127
        zero = np.full(len(weight), 128, np.uint8)
    else:
        low, high = np.minimum(weight.min(1), 0), np.maximum(weight.max(1), 0)
        scale = (high - low) / most
    scale = scale.astype(np.float32)
    scale[scale < _TINY] = _TINY  # not 1: kernels subtract the zeros after the sum, which leaves rounding errors
    if bits != 8:
        zero = np.clip(np.round(-low / scale), 0, most).astype(np.uint8)
    return scale, zero


def _nearest(weight: Array, scale: Array, zero: Array, bits: int) -> Array:
    found: Array = np.clip(np.round(weight / scale) + zero, 0, (1 << bits) - 1).astype(np.uint8)
    return found


def _later(products: Array) -> Array:
    """The upper Cholesky factor of the inverse: row ``i`` says how columns after ``i`` make up for its error."""
    size = len(products)
    damped = products + np.eye(size) * max(_DAMPING * float(np.trace(products)) / size, 1e-12)
    upper: Array = np.linalg.cholesky(np.linalg.inv(damped)).T
    return upper


def gather(
    model: ir.Model,
    layers: Sequence[Layer],
    batches: Sequence[Feeds],
    *,
    provider: str = "cpu",
    threads: int | None = None,
) -> Iterator[tuple[Layer, Moments | None]]:
    """What each MatMul or Gemm reads; in as many passes over the data as memory asks for.

    Yields:
        Each layer with its moments; ``None`` where no data reach it, or what does is not finite.

    Raises:
        ModelError: ONNX Runtime cannot run the model on the data.
    """
    by_input: dict[ir.Value, list[Layer]] = {}
    for layer in layers:
        by_input.setdefault(layer.input, []).append(layer)
    pending = list(by_input)
    while pending:
        some = [pending.pop(0)]
        room = _BYTES
        while pending and (room := room - 8 * by_input[some[-1]][0].columns ** 2) > 0:
            some.append(pending.pop(0))
        sums = {value: _Sums(by_input[value][0].columns) for value in some}
        for arrays in observe(model, some, batches, provider=provider, threads=threads):
            for value, array in zip(some, arrays, strict=True):
                sums[value].add(array)
        for value in some:
            moments = sums[value].moments()
            yield from ((layer, moments) for layer in by_input[value])


class _Sums:
    def __init__(self, columns: int) -> None:
        self._count, self._sum = 0, np.zeros(columns)
        self._products = np.zeros((columns, columns))

    def add(self, array: Array) -> None:
        rows = array.reshape(-1, array.shape[-1])
        rows = rows[:: -(-len(rows) // _ROWS) or 1].astype(np.float64)
        self._count += len(rows)
        self._sum += rows.sum(0)
        self._products += rows.T @ rows

    def moments(self) -> Moments | None:
        if not self._count or not np.isfinite(self._products).all():
            return None
        return Moments(self._sum / self._count, self._products / self._count)
