"""What sparsifying did, as data.

The JSON form (``error`` and sizes that were not measured are ``null``)::

    {
      "schema": "graphopt.sparsity/1",
      "pattern": "2:4", "method": "sparsegpt", "scope": "layer", "reconstruct": false, "seed": 0,
      "data": "digits", "samples": 256,
      "layers": [{"layer": "conv1", "operator": "Conv", "shape": [64, 32, 3, 3], "dtype": "FLOAT", "elements": 18432,
                  "zeros": 9216, "density": 0.5, "error": 0.012, "rows": 6554, "bytes": 73728, "encoded_bytes": 39168,
                  "note": ""}, ...],
      "skipped": [{"layer": "head", "reason": "excluded"}, ...],
      "density": 0.5, "bytes": 73728, "encoded_bytes": 39168,
      "before": {"file": 319114, "gzip": 294207}, "after": {"file": 319114, "gzip": 180332},
      "latency": "...", "notes": [...]
    }
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from graphopt.pruning.sparsity.sizes import Sizes

__all__ = ["LayerSparsity", "Report", "Skipped"]

SCHEMA = "graphopt.sparsity/1"


@dataclasses.dataclass(frozen=True, slots=True)
class LayerSparsity:
    """One weight.

    Attributes:
        layer: Name of the layer that reads it (the first one, if several do).
        operator: Its operator.
        shape: Of the weight.
        dtype: Of the weight, as ONNX calls it.
        zeros: Elements that are zero now.
        error: Sum of squares of what the results lost, as a share of the dense results' (without bias), on samples
            that nothing was fitted to; ``None`` without data.
        rows: Rows of calibration data that were used.
        bytes: Of the weight.
        encoded_bytes: As one bit for each place and the values that are not zero.
        note: What a user should know.
    """

    layer: str
    operator: str
    shape: tuple[int, ...]
    dtype: str
    zeros: int
    error: float | None
    rows: int
    bytes: int
    encoded_bytes: int
    note: str = ""

    @property
    def elements(self) -> int:
        """Elements of the weight."""
        return math.prod(self.shape)

    @property
    def density(self) -> float:
        """The share that is not zero."""
        return 1 - self.zeros / self.elements


@dataclasses.dataclass(frozen=True, slots=True)
class Skipped:
    """A layer that stays dense.

    Attributes:
        layer: Its name.
        reason: Why.
    """

    layer: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What was done, with what, and what came of it.

    Attributes:
        pattern: Of zeros.
        method: How they were chosen.
        scope: Whether magnitudes were compared within a ``layer``, or all of them (``global``).
        reconstruct: Whether least squares followed.
        seed: Of what was sampled.
        provider: The execution provider that ran the model, and that :attr:`latency` is about.
        data: What the data were; empty if none were used.
        samples: How many.
        layers: What became sparse.
        skipped: What did not.
        before: The model's size as a file.
        after: The same of the result.
        notes: What a user should know.
    """

    pattern: str
    method: str
    scope: str
    reconstruct: bool
    seed: int
    provider: str
    data: str
    samples: int
    layers: Sequence[LayerSparsity]
    skipped: Sequence[Skipped]
    before: Sizes | None = None
    after: Sizes | None = None
    notes: Sequence[str] = ()

    @property
    def density(self) -> float:
        """The share of the sparse layers' weights that is not zero."""
        return 1 - sum(one.zeros for one in self.layers) / max(1, sum(one.elements for one in self.layers))

    @property
    def error(self) -> float | None:
        """The mean error of the layers; ``None`` without data."""
        errors = [one.error for one in self.layers if one.error is not None]
        return sum(errors) / len(errors) if errors else None

    @property
    def latency(self) -> str:
        """Why this makes nothing faster by itself."""
        if "tensorrt" in self.provider.lower():
            return (
                "TensorRT has kernels for 2:4, which it tries only with trt_sparsity_enable; none was timed, so no "
                "speed-up is claimed."
            )
        return (
            f"ONNX Runtime has no kernels for sparse weights on its {self.provider} provider: zeros are multiplied "
            "like other numbers, so no speed-up is claimed. What gets smaller is the compressed file."
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it; see the module."""
        layers = [dataclasses.asdict(one) | {"elements": one.elements, "density": one.density} for one in self.layers]
        return {
            "schema": SCHEMA,
            "pattern": self.pattern,
            "method": self.method,
            "scope": self.scope,
            "reconstruct": self.reconstruct,
            "seed": self.seed,
            "provider": self.provider,
            "data": self.data,
            "samples": self.samples,
            "layers": [one | {"shape": list(one["shape"])} for one in layers],
            "skipped": [dataclasses.asdict(one) for one in self.skipped],
            "density": self.density,
            "error": self.error,
            "bytes": sum(one.bytes for one in self.layers),
            "encoded_bytes": sum(one.encoded_bytes for one in self.layers),
            "before": dataclasses.asdict(self.before) if self.before else None,
            "after": dataclasses.asdict(self.after) if self.after else None,
            "latency": self.latency,
            "notes": list(self.notes),
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from graphopt.pruning.sparsity.render import terminal

        yield from terminal(self, options)

    def _repr_html_(self) -> str:
        from graphopt.pruning.sparsity.render import html

        return html(self)
