"""Lets a model compute in bfloat16."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt_passes import _precision
from graphopt_passes._precision_rules import Request

__all__ = ["ConvertBFloat16"]


@dataclasses.dataclass(frozen=True)
class ConvertBFloat16(GraphPass):
    """Lets a model compute in bfloat16, which has the range of float32 and 8 bits of its 24.

    What it does:
        The same as ``convert-float16``, with the same options. Only what needs digits keeps float32: sums that run,
        phases, positions. Before operator set 22 ONNX has no bfloat16 for Conv, pools and others: they keep float32,
        so let ``convert-opset`` run before, in a run of its own.

    Before:
        ``y = MatMul(x, W)``, all of it float32

    After:
        ``y = Cast<to=float>(MatMul(Cast<to=bfloat16>(x), W))``, ``W`` bfloat16

    Does not apply when:
        - see ``convert-float16``.

    Safety:
        Lossy: the result must equal the original within the tolerance of bfloat16, or the pass is dropped. ONNX
        Runtime's CPU provider has next to no bfloat16 kernels and does not run the result: prove it on a GPU
        (``--provider cuda``), or not at all (``--no-validate``).

    Attributes:
        keep: What keeps float32.
        keep_io: Whether inputs and outputs of the model do.
    """

    name = "convert-bfloat16"
    safety = Safety.LOSSY
    keep: str = ""
    keep_io: bool = True

    def run(self, model: ir.Model, context: Context) -> Outcome:
        request = Request(
            self.name,
            frozenset({ir.DataType.FLOAT}),
            ir.DataType.BFLOAT16,
            frozenset({"digits", "float32"}),
            _precision.patterns(self.keep),
            self.keep_io,
        )
        return _precision.run(model, context, request)
