"""Lets a model compute in float16."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt_passes import _precision
from graphopt_passes._precision_rules import Request

__all__ = ["ConvertFloat16"]


@dataclasses.dataclass(frozen=True)
class ConvertFloat16(GraphPass):
    """Lets a model compute in float16: half the size, and on GPUs about half the time.

    What it does:
        Weights and all that is computed in float32 become float16, in subgraphs too; calls of functions are inlined
        first. Inputs and outputs stay float32 unless ``keep-io=no``. What needs the range or the digits of float32
        keeps it, between Casts: operators that ONNX has no float16 for, those that square, exponentiate or count
        (Pow, Exp, CumSum, Range, Sin ...), random numbers, quantization, sequences, sizes and positions that are
        floats for a while, and what ``keep`` names: names of nodes and operators with ``*`` and ``?``, joined by
        ``+``. So does what reads or gives numbers near the end of the range when the model runs on ``calibration``
        data, or on generated inputs. Numbers of masks and bounds that are too large or too small are clamped, and
        never become infinite or zero; where another constant does not fit, the node keeps float32. Let other passes
        run before, in a run of their own: a norm in one piece needs no Casts inside.

    Before:
        ``y = MatMul(x, W)``, all of it float32

    After:
        ``y = Cast<to=float>(MatMul(Cast<to=float16>(x), W))``, ``W`` float16

    Does not apply when:
        - a node is of a domain other than ONNX's own, or calls a function that cannot be inlined;
        - the type of what it reads or gives is not known;
        - see above.

    Safety:
        Lossy: 11 bits of 24 are left. The result must equal the original within the tolerance of float16, or the pass
        is dropped. ONNX Runtime's CPU provider has few float16 kernels and computes in float32 between casts of its
        own, of which it leaves out what it can: the model gets smaller, not faster, there, and the proof sees what
        becomes of the weights, but not all that is rounded on a GPU (``--provider cuda`` does).

    Attributes:
        keep: What keeps float32.
        keep_io: Whether inputs and outputs of the model do.
        measure: Whether to run the model, to see how large numbers get.
        calibration: A file of inputs to run it on.
    """

    name = "convert-float16"
    safety = Safety.LOSSY
    keep: str = ""
    keep_io: bool = True
    measure: bool = True
    calibration: str = ""

    def run(self, model: ir.Model, context: Context) -> Outcome:
        request = Request(
            self.name,
            frozenset({ir.DataType.FLOAT}),
            ir.DataType.FLOAT16,
            frozenset({"range", "digits", "float32"}),
            _precision.patterns(self.keep),
            self.keep_io,
        )
        return _precision.run(model, context, request, self.calibration if self.measure else None)
