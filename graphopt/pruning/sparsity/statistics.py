"""What calibration data tell about the rows that a layer reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from graphopt.pruning.layers import Layer
from graphopt.pruning.moments import Moments

__all__ = ["WIDEST", "Need", "Statistics", "output_shape"]

Array = npt.NDArray[Any]
Need = Literal["rows", "squares", "products"]

WIDEST: Final = 8192
"""The most columns whose products are kept as one matrix (256 MiB); of more, only those within blocks are."""

_ROWS_PER_COLUMN: Final = 4
_FEWEST_ROWS: Final = 8192
_HELD_OUT: Final = 5  # every so many samples, one only judges
_HELD_OUT_ROWS: Final = 2048


class Statistics:
    """The rows of a layer, added up; some are set aside to judge the result by.

    Args:
        layer: The layer.
        need: ``squares`` of columns, ``products`` of any two within a block, or just ``rows`` to judge by.
        batches: How many batches there will be.
        of: A number that blocks of columns are a multiple of.
        seed: Of what is sampled.

    Attributes:
        count: Rows that were added up.
        blocks: The blocks of columns.
    """

    def __init__(self, layer: Layer, need: Need, batches: int, *, of: int = 1, seed: Sequence[int] = (0,)) -> None:
        self._batches, self._seed, self._need = batches, list(seed), need
        width = WIDEST // of * of
        self.blocks = [slice(at, min(at + width, layer.columns)) for at in range(0, layer.columns, width)]
        self._squares: Array = np.zeros((layer.groups, layer.columns))
        self._moments: list[Moments] = []
        if need == "products":
            self._moments = [Moments(layer.groups, block.stop - block.start, dtype=np.float32) for block in self.blocks]
        self.count = 0
        self._samples = 0
        self._held_out: list[Array] = []

    def add(self, layer: Layer, x: Array, batch: int) -> None:
        """Adds what a layer reads in one batch; all layers have matrices of one shape."""
        shape = output_shape(layer, x.shape)
        positions = layer.positions(shape)
        if not positions:
            return
        limit = math.ceil(max(_FEWEST_ROWS, _ROWS_PER_COLUMN * layer.columns) / self._batches)
        picks = np.arange(positions)
        if positions > limit:
            random = np.random.default_rng([*self._seed, batch])
            picks = np.sort(random.choice(positions, limit, replace=False))
        batch_size = x.shape[0] if x.ndim > 1 else 1
        samples = self._samples + picks // max(1, positions // batch_size)
        self._samples += batch_size
        held_out = samples % _HELD_OUT == _HELD_OUT - 1
        if batch_size * self._batches < _HELD_OUT:
            held_out = picks % _HELD_OUT == _HELD_OUT - 1
        rows = layer.rows(x, shape, picks)
        aside = rows[:, held_out]
        most = math.ceil(_HELD_OUT_ROWS / self._batches)
        if aside.shape[1] > most:
            aside = aside[:, np.linspace(0, aside.shape[1] - 1, most).astype(np.int64)]
        self._held_out.append(np.ascontiguousarray(aside))
        self._sum(rows[:, ~held_out])

    def _sum(self, rows: Array) -> None:
        self.count += rows.shape[1]
        if self._need != "rows":
            self._squares += np.square(rows, dtype=np.float64).sum(axis=1)
        for block, moments in zip(self.blocks, self._moments, strict=False):
            moments.add(rows[:, :, block])

    @property
    def is_finite(self) -> bool:
        """Whether there was neither NaN nor infinity, nor anything too large to be squared."""
        return all(bool(np.isfinite(one.gram).all()) for one in self._moments) and bool(
            np.isfinite(self._squares).all() and all(np.isfinite(rows).all() for rows in self._held_out)
        )

    @property
    def norms(self) -> Array:
        """The root mean square of each column, ``(groups, columns)``."""
        root: Array = np.sqrt(self._squares / max(1, self.count))
        return root

    def products(self, block: int, *, centred: bool) -> Array:
        """The mean product of columns, float32 ``(groups, columns, columns)``: what SparseGPT calls H, but for a
        factor. Of rows less their mean if ``centred``."""
        mean: Array = self._moments[block].covariance(centred=centred) / np.float32(max(1, self.count))
        return mean

    @property
    def mean(self) -> Array:
        """The mean row, ``(groups, columns)``; only where products are known."""
        total = np.concatenate([one.row_sum for one in self._moments], axis=1)
        mean: Array = total / max(1, self.count)
        return mean

    def error(self, dense: Array, sparse: Array, shift: Array | None = None) -> float | None:
        """By how much a sparse weight's results miss the dense one's, on the rows set aside.

        Args:
            dense: ``(groups, outputs, columns)``.
            sparse: Likewise.
            shift: What is added to the sparse one's results, ``(groups, outputs)``.

        Returns:
            The sum of squares as a share of that of the dense results; ``None`` without rows.
        """
        if not any(rows.shape[1] for rows in self._held_out):
            return None
        self._held_out = [np.concatenate(self._held_out, axis=1)]
        missed = total = 0.0
        for group, rows in enumerate(self._held_out[0]):
            lost = rows @ (dense[group] - sparse[group]).astype(np.float32).T
            if shift is not None:
                lost -= shift[group].astype(np.float32)
            missed += float(np.square(lost, dtype=np.float64).sum())
            total += float(np.square(rows @ dense[group].astype(np.float32).T, dtype=np.float64).sum())
        return missed / total if total else 0.0 if not missed else math.inf


def output_shape(layer: Layer, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of what a layer computes from an input of this shape."""
    if layer.input_axis == -1:
        return (*shape[:-1], layer.outputs)
    kernel = layer.weight.shape.numpy()[2:]
    rank = len(kernel)
    attributes = layer.node.attributes
    strides = attributes.get_ints("strides", [1] * rank)
    dilations = attributes.get_ints("dilations", [1] * rank)
    pads = attributes.get_ints("pads", [0] * 2 * rank)
    mode = attributes.get_string("auto_pad", "NOTSET")
    extra = attributes.get_ints("output_padding", [0] * rank)
    sizes = []
    for axis in range(rank):
        size, reach = shape[2 + axis], (kernel[axis] - 1) * dilations[axis] + 1
        padded = size + (pads[axis] + pads[axis + rank] if mode == "NOTSET" else 0)
        if layer.node.op_type == "ConvTranspose":
            sizes.append((size - 1) * strides[axis] + reach + extra[axis] - pads[axis] - pads[axis + rank])
        elif mode in ("SAME_UPPER", "SAME_LOWER"):
            sizes.append(-(-size // strides[axis]))
        else:
            sizes.append(max(0, (padded - reach) // strides[axis] + 1))
    return (shape[0], layer.groups * layer.outputs, *sizes)
