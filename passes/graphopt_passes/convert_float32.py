"""Lets a model of float16 or bfloat16 compute in float32."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt_passes import _precision
from graphopt_passes._precision_rules import Request

__all__ = ["ConvertFloat32"]


@dataclasses.dataclass(frozen=True)
class ConvertFloat32(GraphPass):
    """Lets a model of float16 or bfloat16 compute in float32, for runtimes that have no kernels for these.

    What it does:
        The way back from ``convert-float16`` and ``convert-bfloat16``, with the same options. Digits that are lost
        stay lost: weights are the same numbers as before.

    Before:
        ``y = Cast<to=float>(MatMul(Cast<to=float16>(x), W))``, ``W`` float16

    After:
        ``y = Cast<to=float>(MatMul(Cast<to=float>(x), W))``, ``W`` float32

    Does not apply when:
        - see ``convert-float16``; nothing lacks range or digits here.

    Safety:
        Lossy, as its inputs and outputs may get another type, and results are not rounded where they were before. It
        must equal the original within the tolerance of the type that it had.

    Attributes:
        keep: What keeps its type.
        keep_io: Whether inputs and outputs of the model do.
    """

    name = "convert-float32"
    safety = Safety.LOSSY
    keep: str = ""
    keep_io: bool = True

    def run(self, model: ir.Model, context: Context) -> Outcome:
        request = Request(
            self.name,
            frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16}),
            ir.DataType.FLOAT,
            frozenset({"float32"}),
            _precision.patterns(self.keep),
            self.keep_io,
        )
        return _precision.run(model, context, request)
