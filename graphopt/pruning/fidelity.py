"""How close a pruned model comes to its original."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.errors import NotEquivalent
from graphopt.pruning.report import Fidelity
from graphopt.pruning.stages import Feeds, observe

__all__ = ["compare"]

Array = npt.NDArray[Any]


def compare(
    original: ir.Model,
    pruned: ir.Model,
    batches: Sequence[Feeds],
    labels: Array | None = None,
    *,
    provider: str = "cpu",
    threads: int | None = None,
) -> Fidelity:
    """Runs both on the same inputs.

    Args:
        original: The original.
        pruned: The pruned model.
        batches: The inputs.
        labels: One class a sample, if known.
        provider: Execution provider.
        threads: Intra-op threads.

    Raises:
        NotEquivalent: The result gives NaN or infinity where the original does not.
        ModelError: ONNX Runtime cannot run one of them.
    """
    running: dict[str, Any] = {"provider": provider, "threads": threads}
    names = [value.name or "" for value in original.graph.outputs]
    theirs = observe(original, original.graph.outputs, batches, **running)
    ours = observe(pruned, pruned.graph.outputs, batches, **running)
    sums: dict[str, Array] = {name: np.zeros(4) for name in names}  # error, sum, sum of squares, count
    agreed: dict[str, list[Array]] = {}
    right: dict[str, list[tuple[Array, Array]]] = {}
    samples = 0
    for expected, got in zip(theirs, ours, strict=True):
        samples += len(expected[0]) if getattr(expected[0], "ndim", 0) else 1
        for name, a, b in zip(names, expected, got, strict=True):
            if not isinstance(a, np.ndarray) or a.dtype.kind != "f" or a.shape != b.shape:
                continue
            _check_finite(name, a, b)
            wide = a.astype(np.float64)
            sums[name] += [np.square(wide - b).sum(), wide.sum(), np.square(wide).sum(), a.size]
            if a.ndim == 2 and a.size and a.shape[1] > 1:
                agreed.setdefault(name, []).append(a.argmax(1) == b.argmax(1))
                right.setdefault(name, []).append((a.argmax(1), b.argmax(1)))
    error = {name: _share(one) for name, one in sums.items() if one[3]}
    agreement = {name: float(np.concatenate(parts).mean()) for name, parts in agreed.items()}
    return Fidelity(samples, error, agreement, _accuracy(right, labels))


def _share(sums: Array) -> float:
    error, total, squares, count = (float(number) for number in sums)
    variance = squares - total**2 / count
    # What never changes has no variance; its own size is the scale then.
    return error / max(variance if variance > 1e-12 * squares else squares, 1e-30)


def _check_finite(name: str, expected: Array, got: Array) -> None:
    if np.isfinite(expected).all() and not np.isfinite(got).all():
        raise NotEquivalent(
            f"output '{name}' of the result is not finite where the original's is",
            hint="Prune less or without reconstruction, or quantize fewer layers; please report it if the original's "
            "weights are sound.",
        )


def _accuracy(right: Mapping[str, Sequence[tuple[Array, Array]]], labels: Array | None) -> tuple[float, float] | None:
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iu" or len(right) != 1:
        return None
    (parts,) = right.values()
    before, after = (np.concatenate(side) for side in zip(*parts, strict=True))
    if len(before) != len(labels):
        return None
    return float((before == labels).mean()), float((after == labels).mean())
