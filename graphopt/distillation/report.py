"""What a distillation did, as plain data; :mod:`graphopt.distillation.render` shows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphopt.distillation.history import Record
from graphopt.reporting.plain import finite

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

__all__ = ["Contender", "DistillReport"]


@dataclasses.dataclass(frozen=True, slots=True)
class Contender:
    """A model of the run, and how good it is on held-out samples.

    Attributes:
        name: ``teacher``, ``student before``, ``student quantized`` (and not yet trained so) or ``student``.
        params: Elements of weights; None where it is no ONNX model yet.
        macs: Multiply-accumulates of one sample; None likewise.
        bytes: Bytes of constants; None likewise.
        scores: By metric, and ``loss`` of the student.
    """

    name: str
    params: int | None
    macs: int | None
    bytes: int | None
    scores: Mapping[str, float]


@dataclasses.dataclass(eq=False)
class DistillReport:
    """What a distillation did.

    Attributes:
        loss: The loss, as it was given.
        samples: How many samples were learnt from, and how many were held out.
        contenders: Teachers, the student before, and the student.
        records: What each epoch has come to.
        best: The number of the epoch whose weights stayed; None if those from before the last round did.
        rounds: The first epoch of each round; a round after the first began by pruning.
        deviation: By output: the largest difference between the result in ONNX Runtime and the student in torch, as a
            share of the output's largest magnitude; of a quantized student, from the same integers.
        cached: Bytes of the teachers' cached outputs; 0 where they were asked each time.
        notes: What a user should know.
        seconds: Time by step.
        is_first: Whether this is the first of the processes that trained together.
        off_by_one: Of a quantized student: the share of rounded values that are the next integer in ONNX Runtime.
    """

    loss: str
    samples: tuple[int, int]
    contenders: Sequence[Contender]
    records: Sequence[Record]
    best: int | None
    rounds: Sequence[int]
    deviation: Mapping[str, float]
    cached: int
    notes: list[str]
    seconds: Mapping[str, float]
    is_first: bool = True
    off_by_one: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain data for JSON; ``None`` for numbers that are not finite."""
        return {
            "loss": self.loss,
            "samples": {"train": self.samples[0], "evaluation": self.samples[1]},
            "models": [finite(dataclasses.asdict(one)) for one in self.contenders],
            "epochs": [finite(dataclasses.asdict(one)) for one in self.records],
            "best": self.best,
            "rounds": list(self.rounds),
            "deviation": finite(self.deviation),
            "off_by_one": self.off_by_one,
            "cached": self.cached,
            "notes": list(self.notes),
            "seconds": dict(self.seconds),
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from graphopt.distillation.render import report

        yield from report(self, options)

    def _repr_html_(self) -> str:
        from graphopt.distillation.render import html

        return html(self)
