"""The inputs that a pruning looks at: those it fits to, those it trains on, and those it compares outputs on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphopt.datasets import bind, open_dataset

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphopt.datasets import Bound

__all__ = ["Calibration"]

_SYNTHETIC = "no calibration inputs were given: noise stood in for them, and accuracy is likely to suffer"
_MOST, _BYTES = 1 << 11, 1 << 28  # samples to fit to and their bytes, unless more are asked for
_TRAINED, _MEMORY = 1 << 16, 1 << 30  # samples to train on and their bytes, at most
_COMPARED = 256  # samples held out, at least
_HELD_OUT = 0.1  # of the samples, where there are too few for that
_FEWEST = 16  # samples below which none are held out


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Inputs that fit a model.

    Attributes:
        fitted: Samples to rank and refit with.
        trained: Samples to train on, ``fitted`` among them; no more than that where nothing is trained.
        held_out: Samples that are neither; the same ones where there are too few to hold any out.
        is_synthetic: Whether noise stands in for inputs.
        notes: What a user should know.
    """

    fitted: Bound
    trained: Bound
    held_out: Bound
    is_synthetic: bool
    notes: Sequence[str]

    @classmethod
    def of(cls, given: Any, model: ir.Model, *, samples: int, preprocess: str, seed: int, train: bool) -> Calibration:
        """Draws the samples.

        Args:
            given: Whatever :func:`graphopt.datasets.bind` takes; ``None`` for noise.
            model: The model.
            samples: How many to fit to; 0 for as many as are affordable.
            preprocess: What to do to the data of a file.
            seed: Of the drawing.
            train: Whether many more are wanted to train on.

        Raises:
            UsageError: Options that make no sense.
            ModelError: The data cannot be read, or do not fit the model.
        """
        source = open_dataset(given, preprocess=preprocess) if isinstance(given, str | Path) else given
        if given is None:
            source = _noise(model, samples or _FEWEST, seed)
        count = samples or _affordable(source, model, _MOST, _BYTES)
        extra = max(_COMPARED, math.ceil(count * _HELD_OUT))
        wanted = max(count, _affordable(source, model, _TRAINED, _MEMORY)) if train else count
        if given is None:
            source = _noise(model, wanted + extra, seed)
        bound = bind(source, model, samples=wanted + extra, seed=seed, at_most=True)
        notes = [*([_SYNTHETIC] if given is None else []), *bound.notes]
        if len(bound) < _FEWEST * bound.group:
            return cls(bound, bound, bound, given is None, notes)
        share = _HELD_OUT if len(bound) < wanted + extra else extra / (wanted + extra)
        trained, held_out = bound.split(1 - share, seed)
        fitted = trained.take(min(count, len(trained)), seed)
        if len(fitted) < samples:
            notes.append(
                f"{bound.name}: {len(fitted)} samples are fitted to and {len(held_out)} held out, there are no more"
            )
        return cls(fitted, trained, held_out, given is None, notes)


def _noise(model: ir.Model, samples: int, seed: int) -> Any:
    from graphopt.datasets.synthetic import synthetic

    return synthetic(model, samples, seed)


def _affordable(source: Any, model: ir.Model, most: int, limit: int) -> int:
    """How many samples take no more than so many bytes."""
    leading = [value.shape[0] for value in model.graph.inputs if value.shape is not None and len(value.shape)]
    fixed = max((size for size in leading if isinstance(size, int)), default=1)  # the model may take no fewer
    one = bind(source, model, samples=max(1, fixed), at_most=True)
    size = sum(getattr(array, "nbytes", 0) for array in next(one.batches(1)).values())
    return max(_FEWEST, min(most, limit * one.group // max(1, size)))
