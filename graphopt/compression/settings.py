"""What decides on the result of a compression, besides the model and the data."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Final

from graphopt.compression.gates import Limits
from graphopt.errors import UsageError
from graphopt.pipeline.spec import close_match

__all__ = ["PRECISIONS", "STAGES", "Settings", "limit_of_drop", "precisions", "skipped"]

STAGES: Final = ("optimize", "sensitivity", "prune", "depth", "refine", "distill", "quantize")
"""What can be skipped."""

PRECISIONS: Final[Mapping[str, str]] = {
    "float32": "",
    "int8": "static",
    "int8-dynamic": "dynamic",
    "int8-weights": "weights-int8",
    "int4-weights": "weights-int4",
    "float16": "convert-float16",
}
"""How numbers are kept, and the scheme of :func:`graphopt.quantize`, or the pass, that makes it so."""

_FEWEST: Final[Mapping[str, int]] = {
    "samples": 0, "epochs": 0, "tune": 0, "batch": 1, "train_batch": 1, "seed": 0,
}  # fmt: skip
"""Whole numbers, and the least that they can be."""

_MOST_THREADS: Final = 1024

_DROP: Final = re.compile(r"(rel:)?\s*([0-9.eE+-]+)\s*(%?)")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides on the result.

    Attributes:
        goal: What to come down to, as text; empty for the fastest within the drop.
        metric: What is good; empty for ``accuracy``, or for agreement with the original where there are no labels.
        output: The output that is judged; empty for the first.
        limits: How much harm is allowed.
        slices: Columns of the data whose values make slices.
        skip: Which of :data:`STAGES` are left out.
        precisions: Which of :data:`PRECISIONS` may be chosen.
        importance: Who goes first, see :func:`graphopt.prune`.
        keep: Share of each group that stays, unless its residual block goes as a whole.
        exclude: Patterns of groups to leave alone, with the blocks that hold any layer of theirs.
        samples: To rank, refit and calibrate with; 0 for as many as are affordable.
        epochs: Of each distillation; 0 for as many as suit the size of the data.
        learning_rate: Of distillation.
        loss: Of distillation; empty for the default.
        augment: Of distillation.
        quantization_aware: Whether what is trained and becomes int8 learns to make up for the rounding, too.
        tune: Trials that look for better settings of distillation; 0 for none.
        batch: Samples of the run whose latency is measured, and whose memory counts.
        train_batch: Samples of a training step.
        provider: Execution provider.
        threads: Its threads; ``None`` leaves it to ONNX Runtime.
        seed: Of all that is random.
    """

    goal: str = ""
    metric: str = ""
    output: str = ""
    limits: Limits = dataclasses.field(default_factory=Limits)
    slices: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("float32", "int8")
    importance: str = "obs"
    keep: float = 0.02
    exclude: tuple[str, ...] = ()
    samples: int = 0
    epochs: int = 0
    learning_rate: float = 1e-3
    loss: str = ""
    augment: str = ""
    quantization_aware: bool = False
    tune: int = 0
    batch: int = 1
    train_batch: int = 64
    provider: str = "cpu"
    threads: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.keep, int | float) or not 0 <= self.keep <= 1:
            raise UsageError(f"keep={self.keep!r} is no share", hint="Give a number from 0 to 1.")
        if not isinstance(self.metric, str):
            raise UsageError(
                f"a metric cannot be a {type(self.metric).__name__}", hint="Give a name, or module:function."
            )
        if self.threads is not None and not 1 <= self.threads <= _MOST_THREADS:
            raise UsageError(f"threads cannot be {self.threads}", hint=f"Give 1 to {_MOST_THREADS}.")
        if not isinstance(self.learning_rate, int | float) or not 0 < self.learning_rate < float("inf"):
            raise UsageError(f"a learning rate of {self.learning_rate} teaches nothing", hint="Give 0.001, say.")
        for name, fewest in _FEWEST.items():
            number = getattr(self, name)
            if not isinstance(number, int) or number < fewest:
                raise UsageError(f"{name.replace('_', '-')} cannot be {number}", hint=f"Give {fewest} or more.")


def limit_of_drop(given: float | str | None) -> tuple[float | None, float | None]:
    """What a drop means: a limit in percentage points, or (``rel:0.5%``) as a share of the score.

    Raises:
        UsageError: It is neither.
    """
    if given is None:
        return None, None
    match = _DROP.fullmatch(str(given).strip())
    try:
        number = float(match[2]) if match else -1.0
    except ValueError:
        number = -1.0
    if match is None or not 0 <= number < float("inf"):
        raise UsageError(
            f"max-drop={given} is no drop", hint="Write points, as 0.5, or a share of the score, as rel:0.5%."
        )
    if match[1]:
        return None, number / 100 if match[3] else number
    return number, None


def skipped(given: Iterable[str]) -> tuple[str, ...]:
    """Stages to leave out, in their order.

    Raises:
        UsageError: There is no such stage.
    """
    asked = [given] if isinstance(given, str) else list(given)
    for name in asked:
        if name not in STAGES:
            raise UsageError(f"there is no stage '{name}' to skip", hint=close_match(name, list(STAGES)))
    return tuple(name for name in STAGES if name in asked)


def precisions(given: Iterable[str], skip: Iterable[str]) -> tuple[str, ...]:
    """Precisions that may be chosen; without quantization there is only ``float32``.

    Raises:
        UsageError: There is no such precision, or quantization, which makes it, is skipped.
    """
    asked = [given] if isinstance(given, str) else list(given)
    for name in asked:
        if name not in PRECISIONS:
            raise UsageError(f"there is no precision '{name}'", hint=close_match(name, list(PRECISIONS)))
    if "quantize" in skip:
        if asked and "float32" not in asked:
            raise UsageError(
                f"there is no precision {', '.join(asked)} without quantization",
                hint="Do not skip quantize, or leave the precision out.",
            )
        return ("float32",)
    found = tuple(name for name in PRECISIONS if name in asked)
    if not found:
        raise UsageError("no precision may be chosen", hint=f"Name some of {', '.join(PRECISIONS)}.")
    return found
