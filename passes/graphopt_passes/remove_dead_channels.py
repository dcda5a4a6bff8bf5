"""Removes channels that zeros have made useless."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from graphopt.channels.liveness.dead import remove_dead
from graphopt.channels.liveness.uniform import has_zero_slices
from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety

__all__ = ["RemoveDeadChannels"]


@dataclasses.dataclass(frozen=True)
class RemoveDeadChannels(GraphPass):
    """Removes channels that a mask of zeros has made useless: filters, heads, hidden units.

    What it does:
        A channel is dead when every sum over it can do without it: it is always zero, it is multiplied by zeros, or
        it is always one number, whose products then go into a bias. All slices of weights that belong to it go.

    Before:
        ``c = Conv(x, W1); r = Relu(c); y = Conv(r, W2)``, half of the filters ``W1`` zero

    After:
        ``c = Conv(x, W1'); r = Relu(c); y = Conv(r, W2')``, each half as large

    Does not apply when:
        - anything normalizes over the channel (LayerNormalization, GroupNormalization): its zeros count;
        - the channel is a number other than zero, and a convolution that pads with zeros reads it: the number is
          missing at the border;
        - another branch adds to the channel what is not constant;
        - the channel is one of the model's inputs or outputs, or an operator that is not known could look at it;
        - it is the last one left;
        - the model has functions of its own.

    Safety:
        Numeric: what constant channels add is rounded in another order. (NaN and infinity times zero are taken for
        zero.)
    """

    name = "remove-dead-channels"
    safety = Safety.NUMERIC
    late = True

    def run(self, model: ir.Model, context: Context) -> Outcome:
        if model.functions or not has_zero_slices(model):
            return Outcome()
        count = remove_dead(model)
        if count:
            context.refresh()
        return Outcome(count, None if count else ())
