"""How far a model's outputs are from those of the original, as one number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphopt.pruning.stages import Feeds, observe

__all__ = ["Yardstick", "share"]

_FLOOR = 1e-14
"""Mean squares of outputs that are zero for all that matters."""


class Yardstick:
    """The outputs of the original on some inputs, to compare others with.

    Args:
        original: The original.
        batches: The inputs.
        provider: Execution provider.
        threads: Intra-op threads.

    Raises:
        ModelError: ONNX Runtime cannot run the original on them.
    """

    def __init__(
        self, original: ir.Model, batches: Sequence[Feeds], *, provider: str = "cpu", threads: int | None = None
    ) -> None:
        self.batches = batches
        self._running: dict[str, Any] = {"provider": provider, "threads": threads}
        self._expected = list(observe(original, original.graph.outputs, batches, **self._running))

    def error(self, model: ir.Model) -> float:
        """Of a model with the same outputs: see :meth:`distance`."""
        return self.distance(observe(model, model.graph.outputs, self.batches, **self._running))

    def distance(self, outputs: Iterable[Sequence[Any]]) -> float:
        """The largest error of an output.

        For floats that is the squared difference as a share of the variance, for anything else the share of elements
        that differ. Infinite where the original is finite and the other is not.

        Args:
            outputs: For each batch, the outputs in the order of the original's.
        """
        worst = 0.0
        sums = np.zeros((len(self._expected[0]) if self._expected else 0, 4))
        for expected, got in zip(self._expected, outputs, strict=True):
            for number, (a, b) in enumerate(zip(expected, got, strict=True)):
                sums[number] += _compared(a, b)
        for error, total, squares, count in sums:
            variance = squares - total**2 / max(count, 1)
            # What never changes has no variance; its own size is the scale then.
            scale = variance if variance > 1e-12 * squares else squares
            worst = max(worst, float(error / max(scale, _FLOOR * max(count, 1.0))) if np.isfinite(error) else np.inf)
        return worst


def _compared(a: Any, b: Any) -> tuple[float, float, float, float]:
    """Error, sum, sum of squares and count."""
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray) or a.dtype.kind not in "fiub":
        return 0.0, 0.0, 0.0, 0.0
    if a.shape != b.shape:
        return np.inf, 0.0, 1.0, 1.0
    if a.dtype.kind != "f":
        return float((a != b).sum()), 0.0, float(a.size), float(a.size)
    finite = np.isfinite(a)
    if not np.isfinite(b[finite]).all():
        return np.inf, 0.0, 1.0, 1.0
    wide, other = a[finite].astype(np.float64), b[finite].astype(np.float64)
    return float(np.square(wide - other).sum()), float(wide.sum()), float(np.square(wide).sum()), float(wide.size)


def share(number: float) -> str:
    """An error as text, however small: ``0.03%``."""
    if number == np.inf:
        return "infinity"
    return f"{number:.1%}" if number >= 0.1 else f"{100 * number:.2g}%"
