"""How much a model would miss each of its residual blocks.

``cosine`` is the block influence of ShortGPT (arXiv 2403.03853): one minus the mean cosine between a block's input
and its output, over all positions of all samples. ``change`` is how much it adds, ``E|f(x)|² / E|y|²``. Both look at
one place; ``output`` looks at the end: how far the model's float outputs move when the block alone is missing, as a
share of their own variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.errors import ModelError, UsageError
from graphopt.names import operator
from graphopt.pruning.depth.blocks import Block
from graphopt.pruning.depth.dropping import gated

if TYPE_CHECKING:
    from graphopt.verify.feeds import Feeds

__all__ = ["Measure", "influence"]

Measure = Literal["cosine", "change", "output"]

Array = npt.NDArray[Any]
_TOGETHER: Final = 16  # activations fetched by one run of the model: what bounds the memory
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "ConvInteger", "QLinearConv"})
_CHANNELS_FIRST = _CONVOLUTIONS | {
    "AveragePool", "BatchNormalization", "GlobalAveragePool", "GroupNormalization", "InstanceNormalization", "MaxPool",
}  # fmt: skip
_CHANNELS_LAST = frozenset(
    {"MatMul", "MatMulInteger", "QLinearMatMul", "Gemm", "LayerNormalization", "RMSNormalization"}
)


def influence(
    model: ir.Model,
    blocks: Sequence[Block],
    feeds: Iterable[Feeds],
    *,
    measure: Measure = "cosine",
    dropped: Collection[Block] = (),
    provider: str = "cpu",
    threads: int | None = None,
    custom_ops: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> list[float]:
    """What each block does to the model, on batches of data; small means dispensable.

    One session with a switch for each block serves all of them; batches are read one at a time, once.

    Args:
        model: The model in which the blocks were found.
        blocks: What to score.
        feeds: Batches, ready for the model's inputs.
        measure: ``cosine``, ``change`` or ``output``, as above; ``output`` runs the model once a block and batch,
            the others once a batch for every few blocks.
        dropped: Blocks to leave out meanwhile.
        provider: Where to run.
        threads: Intra-op threads; None leaves it to ONNX Runtime.
        custom_ops: Custom-operator libraries to load.
        progress: Called with what happens next.

    Returns:
        One number a block, 0 for one that does nothing; infinite where nothing finite came out.

    Raises:
        UsageError: No batches, an unknown measure, no float output to measure, or blocks of another model.
        ModelError: ONNX Runtime refuses the model or the batches.
    """
    if measure not in get_args(Measure):
        raise UsageError(f"there is no measure '{measure}'", hint=f"Known: {', '.join(get_args(Measure))}.")
    if not blocks:
        return []
    runner = _Gated(model, [*blocks, *dropped], provider, threads, custom_ops)
    off = set(range(len(blocks), len(blocks) + len(dropped)))
    scores: _Local | _Global = _Global(runner, len(blocks)) if measure == "output" else _Local(runner, blocks, measure)
    count = 0
    for batch in feeds:
        count += 1
        if progress is not None:
            progress(f"measure blocks, batch {count}")
        scores.add(batch, off)
    if not count:
        raise UsageError("there is no batch to measure blocks on")
    return scores.result()


class _Gated:
    """A session in which every block has a switch."""

    def __init__(
        self, model: ir.Model, blocks: Sequence[Block], provider: str, threads: int | None, custom_ops: Sequence[str]
    ) -> None:
        from graphopt import runtime

        copy, self._gates, self.ends = gated(model, blocks)
        self.inputs = [value.name for value in model.graph.inputs]
        self.outputs = [str(value.name) for value in model.graph.outputs]
        self._errors, self._trim = runtime.ort_errors(), runtime.trim
        self._session = runtime.open_session(copy, provider=provider, threads=threads, custom_ops=custom_ops)

    def run(self, feeds: Feeds, off: Collection[int], wanted: Sequence[str]) -> list[Any]:
        """The outputs ``wanted``, with the blocks at the places ``off`` left out."""
        gates = {name: np.array(place not in off, np.float32) for place, name in enumerate(self._gates)}
        try:
            return list(self._session.run(list(wanted), {**feeds, **gates}))
        except self._errors as error:
            raise ModelError(f"ONNX Runtime cannot run the model on a batch: {self._trim(error)}") from error


class _Local:
    """What goes into each block against what comes out, summed up over batches."""

    def __init__(self, runner: _Gated, blocks: Sequence[Block], measure: Measure) -> None:
        self._runner = runner
        self._measure = measure
        self._last = [_is_channels_last(block) for block in blocks]
        self._sums = np.zeros((len(blocks), 2))

    def add(self, feeds: Feeds, off: Collection[int]) -> None:
        for places, values in self._activations(feeds, off):
            for place in places:
                start, end = self._runner.ends[place]
                self._sums[place] += self._compare(values[start], values[end], self._last[place])

    def result(self) -> list[float]:
        share = [float(top / bottom) if bottom else math.inf for top, bottom in self._sums]
        return [max(0.0, one) for one in share]

    def _activations(self, feeds: Feeds, off: Collection[int]) -> Iterator[tuple[range, Mapping[str, Any]]]:
        """A few blocks at a time, with the values that they read and give."""
        step = _TOGETHER // 2
        for first in range(0, len(self._sums), step):
            places = range(first, min(first + step, len(self._sums)))
            wanted = dict.fromkeys(name for place in places for name in self._runner.ends[place])
            names = [name for name in wanted if name not in self._runner.inputs]
            got = dict(zip(names, self._runner.run(feeds, off, names), strict=True))
            yield places, {**feeds, **got}

    def _compare(self, start: Any, end: Any, last: bool) -> tuple[float, float]:
        x, y = (_positions(np.asarray(one), last) for one in (start, end))
        finite = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
        x, y = x[finite], y[finite]
        if self._measure == "change":
            return float(((y - x) ** 2).sum()), float((y**2).sum())
        lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
        cosine = np.einsum("pc,pc->p", x, y) / np.where(lengths > 0, lengths, 1)
        cosine[lengths == 0] = (x == y).all(axis=1)[lengths == 0]
        return float((1 - cosine).sum()), float(len(cosine))


class _Global:
    """The model's outputs without each block, against those with all of them."""

    def __init__(self, runner: _Gated, blocks: int) -> None:
        self._runner = runner
        self._moments: dict[str, Array] = {}
        self._errors: dict[str, Array] = {}
        self._blocks = blocks

    def add(self, feeds: Feeds, off: Collection[int]) -> None:
        expected = self._outputs(feeds, off)
        if not expected:
            raise UsageError("the model has no float output, so there is nothing to measure blocks by")
        for name, values in expected.items():
            finite = values[np.isfinite(values)]
            moments = np.array([finite.size, finite.sum(), (finite**2).sum()])
            self._moments[name] = self._moments.get(name, np.zeros(3)) + moments
            self._errors.setdefault(name, np.zeros(self._blocks))
        for place in range(self._blocks):
            for name, values in self._outputs(feeds, {*off, place}).items():
                self._errors[name][place] += _squared_error(values, expected[name])

    def result(self) -> list[float]:
        shares = np.zeros(self._blocks)
        for name, (count, total, squares) in self._moments.items():
            variance = squares / count - (total / count) ** 2 if count else 0.0
            mean = self._errors[name] / count if count else np.full(self._blocks, np.inf)
            # An output that never changes is measured by its size.
            scale = variance if variance > 1e-12 * squares / max(count, 1) else squares / max(count, 1)
            shares += mean / scale if scale > 0 else np.where(mean > 0, np.inf, 0)
        return [float(share) for share in shares / len(self._moments)]

    def _outputs(self, feeds: Feeds, off: Collection[int]) -> dict[str, Array]:
        names = self._runner.outputs
        found = dict(zip(names, self._runner.run(feeds, off, names), strict=True))
        # bfloat16 and float8 are no floats to NumPy itself
        return {
            name: values.astype(np.float64)
            for name, values in found.items()
            if isinstance(values, np.ndarray) and values.dtype.kind in "fV" and values.size
        }


def _squared_error(values: Array, expected: Array) -> float:
    if values.shape != expected.shape:
        return math.inf
    finite = np.isfinite(expected)
    error = float(((values - expected)[finite] ** 2).sum())
    return error if math.isfinite(error) else math.inf


def _positions(values: Array, last: bool) -> Array:
    """Positions by channels."""
    axis = values.ndim - 1 if last or values.ndim < 2 else 1
    return np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis]).astype(np.float64)


def _is_channels_last(block: Block) -> bool:
    """Whether the last axis holds the channels, rather than the second: what the block does first tells."""
    for node in block.nodes:
        kind = operator(node)
        if kind in _CHANNELS_FIRST:
            return False
        if kind in _CHANNELS_LAST:
            return True
    return block.survey.shapes.rank(block.output) not in (4, 5)
