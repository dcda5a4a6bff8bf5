"""What a survey for phones says, as data.

The JSON form, as ``graphopt inspect --mobile --json`` prints it::

    {
      "schema": "graphopt.mobile/1",
      "path": "/models/m.onnx", "opset": 17, "onnxruntime": "1.31.1",
      "at": {"x": [1, 3, 224, 224]}, "open": ["x"],
      "providers": [
        {"provider": "xnnpack", "name": "XNNPACK", "nodes": 66, "nodes_taken": 60, "macs": 349151936,
         "macs_taken": 349151936, "parts": null, "advice": ["..."], "notes": {"Resize": "..."},
         "refusals": [{"kind": "shape", "reason": "...", "nodes": 6, "macs": 0, "operators": {"Softmax": 1},
                       "examples": ["/head/Softmax"]}, ...],
         "fixed": {"nodes": 60, "nodes_taken": 60, ..., "fixed": null}}, ...
      ],
      "required_operators": {"ai.onnx": {"11": ["Conv"]}, "com.microsoft": {"1": ["FusedConv"]}}
    }

``nodes`` are those left after ONNX Runtime's basic optimizations, which it does before it divides a model. ``open``
are the inputs of no fixed shape; MACs are counted with the extents in ``at``. ``fixed`` is the same with all inputs
fixed to these, ``null`` where they are. ``parts`` is ``null`` where nodes are taken one by one. ``kind`` is one of
``operator``, ``body``, ``opset``, ``type``, ``axes``, ``shape``, ``constant``, ``attribute``. ``required_operators`` is
``null`` unless asked for, and all there is about a model that is in ONNX Runtime's own format already.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from graphopt.interop.ort_format import RequiredOperators

__all__ = ["Refusal", "Share", "Survey"]

SCHEMA = "graphopt.mobile/1"


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """The nodes that a provider leaves to the processor for one reason.

    Attributes:
        kind: What the reason is about.
        reason: In words.
        nodes: How many.
        macs: Their multiply-accumulates in one run.
        operators: The nodes by operator, the most frequent first.
        examples: The first few of them by name.
    """

    kind: str
    reason: str
    nodes: int
    macs: int
    operators: Mapping[str, int]
    examples: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """What a provider takes of a model.

    Attributes:
        provider: Its short name.
        name: Its name.
        nodes: All nodes of the model.
        nodes_taken: Those that it takes.
        macs: Multiply-accumulates of one run.
        macs_taken: Those that it does.
        parts: In how many parts it takes them; ``None`` where it takes them one by one.
        refusals: Why it does not take the others, the most work first.
        advice: What to do about it.
        notes: What ONNX Runtime says about operators it takes and nobody checked here, by operator.
        fixed: The same with fixed inputs; ``None`` where they are.
    """

    provider: str
    name: str
    nodes: int
    nodes_taken: int
    macs: int
    macs_taken: int
    parts: int | None
    refusals: tuple[Refusal, ...]
    advice: tuple[str, ...]
    notes: Mapping[str, str]
    fixed: Share | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, slots=True)
class Survey:
    """What a phone makes of a model; the module's page documents the figures. Prints itself in a terminal.

    Attributes:
        path: The model's, if it has one.
        opset: Its version of ONNX's own operators; ``None`` in ONNX Runtime's format.
        onnxruntime: The version whose lists were used.
        at: The shapes of its inputs with which MACs are counted.
        open: The inputs among them that have no fixed shape.
        providers: What each provider takes.
        required_operators: What a reduced build must have; ``None`` if nobody asked.
    """

    path: Path | None
    opset: int | None
    onnxruntime: str
    at: Mapping[str, tuple[int, ...]]
    open: tuple[str, ...]
    providers: tuple[Share, ...]
    required_operators: RequiredOperators | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form that the module's page documents."""
        operators = self.required_operators
        return {
            "schema": SCHEMA,
            "path": None if self.path is None else str(self.path),
            "opset": self.opset,
            "onnxruntime": self.onnxruntime,
            "at": {name: list(shape) for name, shape in self.at.items()},
            "open": list(self.open),
            "providers": [share.to_dict() for share in self.providers],
            "required_operators": None
            if operators is None
            else {
                domain: {str(version): list(names) for version, names in versions.items()}
                for domain, versions in operators.items()
            },
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from graphopt.mobile import render

        yield from render.terminal(self, options)
