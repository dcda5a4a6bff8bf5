"""What a verification says: one verdict, and the figures of each output behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions, RenderableType

__all__ = ["Equivalence", "Kind", "MetricComparison", "OutputComparison", "Status", "Tolerance"]

Status = Literal["equal", "different", "unproven"]
Kind = Literal["exact", "close", "calibrated", "random", "user"]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """``|a - b| <= atol + rtol * |a|`` for every element of an output.

    Attributes:
        rtol: Relative part.
        atol: Absolute part, in the output's own unit.
        kind: ``exact`` bit for bit; ``close`` by dtype; ``calibrated`` widened to what ONNX Runtime's own optimizations
            change on the original; ``random`` shape and dtype only; ``user`` given by the caller.
    """

    rtol: float
    atol: float
    kind: Kind

    def __str__(self) -> str:
        if self.kind in ("exact", "random"):
            return self.kind
        note = " (calibrated)" if self.kind == "calibrated" else ""
        return f"rtol {self.rtol:.0e}, atol {self.atol:.1e}{note}"


@dataclass(frozen=True, slots=True)
class OutputComparison:
    """One graph output of both models, the worst over all samples. What has no meaning for its type is None.

    Attributes:
        name: The output's name.
        dtype: NumPy or ml_dtypes name; ``sequence(...)``, ``map`` or ``none`` where it is no tensor.
        shape: Of the first sample.
        max_abs: Largest absolute difference.
        max_rel: Largest difference relative to the original's element, where that is not negligible.
        cosine: Smallest cosine similarity.
        argmax_agreement: Share of rows with the same largest entry; for integers, booleans and strings the share of
            equal elements.
        tolerance: What was allowed.
        ok: Whether it held.
        identical: Whether every bit is the same (any NaN counts as the same NaN).
        note: Why it is not ok, or what is remarkable.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None
    max_abs: float | None
    max_rel: float | None
    cosine: float | None
    argmax_agreement: float | None
    tolerance: Tolerance
    ok: bool
    identical: bool
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form; infinite and NaN figures become strings."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": None if self.shape is None else list(self.shape),
            "max_abs": _json_number(self.max_abs),
            "max_rel": _json_number(self.max_rel),
            "cosine": _json_number(self.cosine),
            "argmax_agreement": self.argmax_agreement,
            "tolerance": {"rtol": self.tolerance.rtol, "atol": self.tolerance.atol, "kind": self.tolerance.kind},
            "ok": self.ok,
            "identical": self.identical,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """A metric of both models on the user's data; ``drop`` is positive where the candidate is worse."""

    name: str
    original: float
    candidate: float
    drop: float

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        numbers = {"original": self.original, "candidate": self.candidate, "drop": self.drop}
        return {"name": self.name} | {key: _json_number(value) for key, value in numbers.items()}


@dataclass(frozen=True, slots=True)
class Equivalence:
    """The verdict on a candidate against its original.

    Attributes:
        status: ``equal``; ``different``, also when the candidate does not run; ``unproven`` when ONNX Runtime
            cannot run the original.
        message: The verdict in a sentence, with the reason.
        outputs: One entry an output; empty when there was nothing to compare.
        samples: Input shapes of each sample compared.
        provider: ONNX Runtime's execution provider.
        metric: Where the user gave data and a metric.
        notes: What else a reader should know: the random operators, the limits that could not be set.
    """

    status: Status
    message: str
    outputs: tuple[OutputComparison, ...] = ()
    samples: tuple[dict[str, tuple[int, ...] | None], ...] = ()
    provider: str = "CPUExecutionProvider"
    metric: MetricComparison | None = None
    notes: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether the candidate is proven to do the same job."""
        return self.status == "equal"

    @property
    def identical(self) -> bool:
        """Whether it is proven to do so bit for bit."""
        return self.equal and all(output.identical for output in self.outputs)

    @property
    def max_abs(self) -> float:
        """The largest absolute difference over all outputs."""
        return max((output.max_abs for output in self.outputs if output.max_abs is not None), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {
            "status": self.status,
            "message": self.message,
            "provider": self.provider,
            "outputs": [output.to_dict() for output in self.outputs],
            "samples": [
                {name: None if shape is None else list(shape) for name, shape in sample.items()}
                for sample in self.samples
            ],
            "metric": None if self.metric is None else self.metric.to_dict(),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        return f"{self.status}: {self.message}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from graphopt.verify.render import terminal

        return terminal(self, options.max_width)

    def _repr_html_(self) -> str:
        from graphopt.verify.render import to_html

        return to_html(self)


def _json_number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
