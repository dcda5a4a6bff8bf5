"""LSTM, GRU, RNN: states that start at zero and stay there."""

from __future__ import annotations

import numpy as np

from graphopt.channels.liveness.lanes import Rule, Step, with_settings
from graphopt.channels.liveness.uniform import uniform
from graphopt.channels.rules.recurrent import stays_zero

__all__ = ["TABLE"]


def _recurrent(step: Step, gates: int, update: int, *activations: int) -> None:
    """A state that starts at zero and is updated by zeros stays zero."""
    if not stays_zero(step, activations):
        return
    tensors = [step.linker.constant(step.value(index)) for index in (1, 2)]
    directions, hidden = step.axes(2)[0].size, step.axes(2)[2].size
    if any(one is None for one in tensors) or not (isinstance(directions, int) and isinstance(hidden, int)):
        return
    zero = np.ones((directions, hidden), bool)
    for tensor in tensors:
        assert tensor is not None
        rows = tensor.numpy().reshape(directions, gates, hidden, -1)[:, update]
        zero &= uniform(rows.reshape(directions * hidden, -1), 0).reshape(zero.shape) == 0
    if step.has(3):
        bias = step.linker.constant(step.value(3))
        if bias is None:
            return
        zero &= (bias.numpy().reshape(directions, 2, gates, hidden)[:, :, update] == 0).all(axis=1)
    for state in (5, 6):
        if step.has(state):
            zero &= step.lanes(state, 2) == 0 if not step.is_uniformly(state, 0) else True
    lanes = np.where(zero.all(axis=0), 0.0, np.nan)
    for output in range(len(step.node.outputs)):
        if step.node.outputs[output].name:
            step.give_lanes(-1, lanes, output)


TABLE: dict[str, Rule] = {
    "GRU": with_settings(_recurrent, 3, 2, 1),
    "LSTM": with_settings(_recurrent, 4, 3, 1, 2),
    "RNN": with_settings(_recurrent, 1, 0, 0),
}
