"""What a quantization did, as plain data; :mod:`graphopt.quantization.render` shows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphopt.reporting.plain import finite

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from graphopt.benchmark.stats import Interval
    from graphopt.pruning.report import Fidelity, Size

__all__ = ["LayerOutcome", "QuantizeReport"]


@dataclasses.dataclass(frozen=True, slots=True)
class LayerOutcome:
    """What became of a layer.

    Attributes:
        name: Its name.
        operator: Its operator.
        error: Of the model's outputs, as a share of their variance, when this layer alone is quantized; ``None`` where
            it was not measured.
        quantized: Whether it is.
        reason: Why not.
    """

    name: str
    operator: str
    error: float | None
    quantized: bool
    reason: str = ""


@dataclasses.dataclass(eq=False)
class QuantizeReport:
    """What a quantization did.

    Attributes:
        scheme: A name of :data:`graphopt.quantization.SCHEMES`.
        method: How ranges of activations were chosen; empty where none were.
        before: The original.
        after: The result.
        layers: What became of each layer, in the order of the graph.
        error: Of the outputs, as a share of their variance, on the inputs that the choice was made with.
        max_error: What was allowed.
        fidelity: How close the result comes.
        is_held_out: Whether that was measured on inputs that had no part in it; there may have been too few.
        speedup: Measured, one sample a run; ``None`` if it was not.
        notes: What a user should know.
        seconds: Time by step.
    """

    scheme: str
    method: str
    before: Size
    after: Size
    layers: Sequence[LayerOutcome]
    error: float
    max_error: float
    fidelity: Fidelity
    is_held_out: bool
    speedup: Interval | None
    notes: list[str]
    seconds: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain data for JSON; ``None`` for numbers that are not finite."""
        found = dataclasses.asdict(self)
        found["notes"], found["seconds"] = list(self.notes), dict(self.seconds)
        result: dict[str, Any] = finite(found)
        return result

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from graphopt.quantization import render

        yield from render.report(self, options)

    def _repr_html_(self) -> str:
        from graphopt.quantization import render

        return render.html(self)
