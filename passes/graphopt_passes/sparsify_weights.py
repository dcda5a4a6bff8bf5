"""Sets weights to zero where a model misses them least."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt.pruning.sparsity import Pattern, Settings, sparsify_in_place
from graphopt.pruning.sparsity.sparsifier import bound

__all__ = ["SparsifyWeights"]


@dataclasses.dataclass(frozen=True)
class SparsifyWeights(GraphPass):
    """Sets weights to zero where a model misses them least: its compressed file becomes smaller.

    What it does:
        Of the weights of Conv, ConvTranspose, Gemm and MatMul, ``pattern`` says how many become zero: ``2of4`` leaves
        two of each four along the input channels, ``50%`` or ``0.5`` any half. ``method`` chooses them: ``sparsegpt``
        (arXiv 2301.00774), ``wanda`` (arXiv 2306.11695) or ``magnitude``, within each layer or, with
        ``scope=global``, over all. ``reconstruct`` then refits what is left by least squares, on what the sparse
        layers before give. ``include`` and ``exclude`` are names of layers with ``*`` and ``?``, joined by ``+``.
        Without ``calibration`` data, random inputs serve; magnitudes without ``reconstruct`` need none.

    Before:
        ``y = MatMul(x, W)``, ``W = [[4, 1], [2, 3], [1, 5], [6, 2]]``

    After:
        ``y = MatMul(x, W)``, ``W = [[4, 0], [0, 3], [0, 5], [6, 0]]``

    Does not apply when:
        - the weight has fewer than ``smallest`` elements, or is not float;
        - N of M are asked for, and the input channels are no multiple of M;
        - the convolution is depthwise;
        - something but such layers reads the weight too, or it is an output of the model;
        - the layer lies in a subgraph or a function.

    Safety:
        Lossy: the model computes something else. It runs no faster in ONNX Runtime, which has no kernels for sparse
        weights. Channels that are all zero are for ``remove-dead-channels``.
    """

    name = "sparsify-weights"
    safety = Safety.LOSSY

    pattern: str = "2of4"
    method: str = "sparsegpt"
    scope: str = "layer"
    reconstruct: bool = True
    smallest: int = 512
    include: str = ""
    exclude: str = ""
    calibration: str = ""
    samples: int = 256
    seed: int = 0

    def run(self, model: ir.Model, context: Context) -> Outcome:
        settings = Settings(
            Pattern.parse(self.pattern),
            self.method,
            self.scope,
            self.reconstruct,
            self.smallest,
            _names(self.include),
            _names(self.exclude),
            self.seed,
        )
        report = sparsify_in_place(model, settings, bound(model, settings, self.calibration or None, self.samples))
        context.refresh()
        return Outcome(len(report.layers), None)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split("+") if name.strip()]
