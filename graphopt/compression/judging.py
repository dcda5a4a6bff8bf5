"""Judges a model on samples: its outputs, a score, and the harm it does compared with the original."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt import runtime
from graphopt.compression.gates import Audit, Limits, audit, has_nan
from graphopt.compression.metrics import METRICS, Metric, metric
from graphopt.compression.samples import Samples
from graphopt.errors import ModelError, UsageError
from graphopt.pipeline.spec import close_match

__all__ = ["AGREEMENT", "FIDELITY", "Judge"]

Array = npt.NDArray[Any]

_NOISE: Final = 0.1  # of the standard deviation of each input
_SUMS_TO_ONE: Final = 1e-3


def _agreement(outputs: Array, expected: Array) -> float:
    if not _has_classes(expected):
        raise ModelError(
            f"an output of the shape {list(expected.shape)} has no classes to agree on",
            hint="Choose another output, or fidelity as the metric.",
        )
    return float((outputs.argmax(-1) == expected.argmax(-1)).mean())


def _has_classes(outputs: Array) -> bool:
    return outputs.ndim >= 2 and outputs.shape[-1] > 1


def _fidelity(outputs: Array, expected: Array) -> float:
    """1 less the squared difference as a share of the variance."""
    wide = expected.astype(np.float64)
    variance = max(float(np.square(wide - wide.mean()).sum()), 1e-30)
    return float(1 - np.square(wide - outputs).sum() / variance)


AGREEMENT: Final = Metric("agreement", _agreement)
"""How often the highest score is that of the same class as the original's."""

FIDELITY: Final = Metric("fidelity", _fidelity)
"""What stands in for it where outputs are no scores of classes."""


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
    """Judges models on the same samples.

    Attributes:
        samples: The samples.
        metric: What is good.
        limits: How much harm is allowed.
        output: Name of the output that is judged.
        before: What the original gives, ``(N, ...)``.
        noisy: What it gives on noisy inputs, if a limit needs that.
        running: Provider and threads.
        batch: Samples of one run.
    """

    samples: Samples
    metric: Metric
    limits: Limits
    output: str
    before: Array
    noisy: Array | None
    running: Mapping[str, Any]
    batch: int

    @classmethod
    def of(
        cls,
        original: Path,
        model: ir.Model,
        samples: Samples,
        limits: Limits,
        *,
        name: str = "",
        output: str = "",
        provider: str = "cpu",
        threads: int | None = None,
        batch: int = 64,
    ) -> Judge:
        """Runs the original, and checks that its output can be judged.

        Args:
            original: Its file.
            model: What is in it.
            samples: The samples.
            limits: How much harm is allowed.
            name: Of the metric; empty for what suits the samples.
            output: Of the output; empty for the first.
            provider: Execution provider.
            threads: Intra-op threads.
            batch: Samples of one run.

        Raises:
            UsageError: There is no such output or metric, or it needs labels and there are none.
            ModelError: Labels do not fit, or ONNX Runtime cannot run the model.
        """
        names = [value.name or "" for value in model.graph.outputs]
        if output and output not in names:
            raise UsageError(f"the model has no output '{output}'", hint=close_match(output, names))
        chosen = output or names[0]
        running = {"provider": provider, "threads": threads}
        before = outputs(original, samples, chosen, running, batch)
        if (unknown := int(has_nan(before).sum())) > 0:
            raise ModelError(
                f"the model gives NaN as '{chosen}' for {unknown:,} of {len(before):,} samples, which cannot be judged",
                hint="Leave these samples out, or judge another output.",
            )
        found = _metric(name, samples, before)
        if samples.labels is not None and found not in (AGREEMENT, FIDELITY):
            found.score(before, samples.labels)  # says now what does not fit
        judge = cls(samples, found, limits, chosen, before, None, running, batch)
        if limits.noise_drop is not None:
            noisy = outputs(original, samples.noisy(_NOISE), chosen, running, batch)
            judge = dataclasses.replace(judge, noisy=noisy)
        judge.compared(before, judge.noisy)  # says now what a limit lacks
        return judge

    @property
    def truth(self) -> Array:
        """What outputs are compared with: labels, or what the original gives."""
        needs_labels = self.metric not in (AGREEMENT, FIDELITY)
        return self.samples.labels if needs_labels and self.samples.labels is not None else self.before

    @property
    def counts_classes(self) -> bool:
        """Whether the score is the share of samples that are right."""
        return self.metric is METRICS["accuracy"]

    @property
    def base(self) -> float:
        """The score of the original."""
        return self.metric.score(self.before, self.truth)

    def outputs(self, path: Path) -> Array:
        """What a model gives.

        Raises:
            ModelError: ONNX Runtime cannot run it.
        """
        return outputs(path, self.samples, self.output, self.running, self.batch)

    def audit(self, path: Path) -> Audit:
        """Compares a model with the original.

        Raises:
            ModelError: ONNX Runtime cannot run it.
        """
        noisy = None
        if self.noisy is not None:
            noisy = outputs(path, self.samples.noisy(_NOISE), self.output, self.running, self.batch)
        return self.compared(self.outputs(path), noisy)

    def compared(self, after: Array, noisy: Array | None) -> Audit:
        """Compares what a model gives, and gives on noisy inputs if a limit needs that, with what the original does.

        Raises:
            UsageError: A limit needs what is not there.
        """
        return audit(
            self.before,
            after,
            self.truth,
            self.limits,
            metric=self.metric,
            slices=self.samples.slices,
            noisy=None if self.noisy is None or noisy is None else (self.noisy, noisy),
            is_probability=is_probability(self.before),
        )


def is_probability(outputs: Array) -> bool:
    """Whether rows are no negative numbers that sum to 1."""
    if outputs.ndim != 2 or not len(outputs) or not (outputs >= 0).all():
        return False
    return bool(np.abs(outputs.sum(1) - 1).max() < _SUMS_TO_ONE)


def outputs(path: Path, samples: Samples, output: str, running: Mapping[str, Any], batch: int) -> Array:
    """What a model gives for samples, ``(N, ...)``.

    Raises:
        ModelError: ONNX Runtime cannot run it, or what it gives cannot be put together.
    """
    session = runtime.open_session(path, **running)
    taken = {entry.name for entry in session.get_inputs()}
    found = []
    for feeds in samples.batches(batch):
        try:
            (one,) = session.run([output], {name: array for name, array in feeds.items() if name in taken})
        except runtime.ort_errors() as error:
            raise ModelError(f"ONNX Runtime cannot run the model on the data: {runtime.trim(error)}") from error
        found.append(np.asarray(one))
    if len({array.shape[1:] for array in found}) > 1 or any(not array.ndim for array in found):
        raise ModelError(
            f"the output '{output}' has another shape for other samples, so that they cannot be judged together",
            hint="Name another output, or give samples of one shape.",
        )
    return np.concatenate(found)


def _metric(name: str, samples: Samples, before: Array) -> Metric:
    if name in (AGREEMENT.name, FIDELITY.name):
        return AGREEMENT if name == AGREEMENT.name else FIDELITY
    if samples.labels is not None:
        return metric(name or "accuracy")
    if name:
        raise UsageError(
            f"{name} needs labels, and the data have none",
            hint="Give labels as 'y', or leave the metric out: agreement with the original is judged then.",
        )
    is_classes = before.ndim == 2 and _has_classes(before) and before.dtype.kind == "f"
    return AGREEMENT if is_classes else FIDELITY
