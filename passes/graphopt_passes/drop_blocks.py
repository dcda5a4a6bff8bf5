"""Drops the residual blocks that a model misses least."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import onnx_ir as ir

from graphopt.errors import UsageError
from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt.pruning.depth.blocks import Block, find
from graphopt.pruning.depth.choice import choose
from graphopt.pruning.depth.dropping import drop_in_place, zeroed
from graphopt.pruning.depth.merging import merge_linears
from graphopt.pruning.depth.scores import Measure, influence

if TYPE_CHECKING:
    from graphopt.datasets import Bound

__all__ = ["DropBlocks"]

_BATCH = 8


@dataclasses.dataclass(frozen=True)
class DropBlocks(GraphPass):
    """Drops the residual blocks that a model misses least: it becomes shallower.

    What it does:
        Where a block ends in ``y = x + f(x)``, and nothing else needs what ``f`` computes on the way, what read ``y``
        reads ``x``. Attention and MLP of a transformer layer are a block each. Which blocks go is measured on data:
        ``cosine`` (one minus the cosine between ``x`` and ``y``, ShortGPT, arXiv 2403.03853), ``change`` (the size of
        ``f(x)`` relative to ``y``), or ``output`` (how far the model's outputs move without the block; better, and
        slower). ``iterative`` measures again after each drop. Without ``calibration`` data, random inputs serve.
        Linear layers that meet become one where that takes fewer multiplications.

    Before:
        ``a = Relu(x); f = Conv(a, W); y = Add(x, f); z = Sigmoid(y)``

    After:
        ``z = Sigmoid(x)``

    Does not apply when:
        - the shortcut is a projection: nothing could stand in for the sum;
        - a value inside the block is an output of the model, such as keys and values of a cache, or is read elsewhere;
        - the block has neither weights nor products: the sum inside a GELU;
        - it lies in a subgraph or a function.

    Safety:
        Lossy: the model computes something else. What it computes is proven equal to the model in which what the
        dropped blocks add is multiplied by zero.
    """

    name = "drop-blocks"
    safety = Safety.LOSSY

    count: int = 0
    fraction: float = 0.0
    measure: str = "cosine"
    iterative: bool = False
    calibration: str = ""
    samples: int = 64
    seed: int = 0

    def run(self, model: ir.Model, context: Context) -> Outcome:
        if bool(self.count) == bool(self.fraction):
            raise UsageError(
                "drop-blocks needs to know how many blocks to drop",
                hint="Write drop-blocks:count=2, or drop-blocks:fraction=0.25.",
            )
        blocks = find(model)
        chosen = self._choose(model, blocks) if blocks or self.count else []
        if not chosen:
            return Outcome()
        reference = zeroed(model, chosen)
        drop_in_place(model, chosen)
        merge_linears(model)
        context.refresh()
        return Outcome(len(chosen), None, reference)

    def _choose(self, model: ir.Model, blocks: Sequence[Block]) -> list[Block]:
        data = self._data(model) if blocks else None

        def scores(left: Sequence[Block], dropped: Sequence[Block]) -> Sequence[float]:
            feeds = data.batches(_BATCH) if data is not None else ()
            return influence(model, left, feeds, measure=cast(Measure, self.measure), dropped=dropped)

        share = self.fraction if not self.count else None
        return choose(blocks, scores, count=self.count or None, fraction=share, iterative=self.iterative)

    def _data(self, model: ir.Model) -> Bound:
        from graphopt.datasets import bind
        from graphopt.datasets.synthetic import synthetic

        source = self.calibration or synthetic(model, self.samples, self.seed)
        return bind(source, model, samples=self.samples, seed=self.seed)
