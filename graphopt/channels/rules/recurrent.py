"""LSTM, GRU, RNN: a unit is its row of every gate, its column of the recurrence, and its place in the states."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from graphopt.channels.axes import Axis
from graphopt.channels.op import Op, Unlinkable
from graphopt.channels.rules.rule import Rule, Table

if TYPE_CHECKING:
    from graphopt.channels.fitting import Fit

__all__ = ["TABLE", "stays_zero"]

_ZERO_AT_ZERO = {"tanh", "relu", "leakyrelu", "elu", "softsign", "scaledtanh", "thresholdedrelu"}


def _recurrent(gates: int, updates: tuple[int, ...]) -> Callable[[Op], None]:
    """``updates``: which of the activations of one direction the state goes through."""

    def link(op: Op) -> None:
        x, w, r = op.axes(0), op.axes(1), op.axes(2)
        batch_first = op.integer("layout", 0) == 1
        directions, hidden = op.new(w[0].size), r[2]
        for axis in (w[0], r[0]):
            op.unite(directions, axis)
        op.freeze(directions, "it counts directions")
        for axis in (w[1], r[1]):
            op.align([axis], [op.new(gates, "it counts gates"), hidden])
        op.contract(0, 2, 1, 2)
        zero = op.is_zero(1, 1) and op.is_zero(2, 1) and stays_zero(op, updates)
        if not (op.is_zero(2, 2) or zero):
            op.freeze(hidden, f"{op.node.op_type} adds up lanes that are not zero when masked")
        if op.has(3):
            op.unite(op.axes(3)[0], directions)
            op.align([op.axes(3)[1]], [op.new(2 * gates, "it counts gates"), hidden])
            zero = zero and op.is_zero(3, 1)
        batch, sequence = x[:2] if batch_first else x[1::-1]
        op.freeze(sequence, f"{op.node.op_type} looks along it")
        if op.has(4):
            op.unite(op.axes(4)[0], batch)
            op.keep(4)
        for state in (5, 6):
            if not op.has(state):
                continue
            axes = op.axes(state)
            op.unite(axes[1 if batch_first else 0], directions)
            own = axes[0 if batch_first else 1]
            if own.size != 1:
                op.unite(own, batch)
            op.unite(axes[2], hidden)
            zero = zero and op.is_zero(state, 2)
        if op.has(7):
            op.unite(op.axes(7)[0], directions)
            op.align([op.axes(7)[1]], [op.new(3, "it counts gates"), hidden])
        op.channel(hidden)
        op.work(w[0], w[1], w[2], batch, sequence)
        op.work(w[0], r[1], r[2], batch, sequence)
        _give(op, x, directions, hidden, batch_first, zero)

    return link


def _give(op: Op, x: tuple[Axis, ...], directions: Axis, hidden: Axis, batch_first: bool, zero: bool) -> None:
    flags = [False, False, False, zero]
    if batch_first:
        op.give([x[0], x[1], directions, hidden], flags)
        state = [x[0], directions, hidden]
    else:
        op.give([x[0], directions, x[1], hidden], flags)
        state = [directions, x[1], hidden]
    for output in (1, 2):
        op.give(state, flags[1:], output)


def stays_zero(op: Op, updates: tuple[int, ...]) -> bool:
    """Whether a state of zero stays zero when all that comes in is zero."""
    attribute = op.node.attributes.get("activations")
    if attribute is None:
        return True
    names = [name.lower() for name in attribute.as_strings()]
    per_direction = {"LSTM": 3, "GRU": 2, "RNN": 1}[op.node.op_type]
    if len(names) % per_direction:
        raise Unlinkable(f"the activations of {op.node.op_type} do not fit")
    starts = range(0, len(names), per_direction)
    return all(names[start + place] in _ZERO_AT_ZERO for start in starts for place in updates)


def _fit(fit: Fit) -> None:
    if "hidden_size" in fit.op.node.attributes:
        fit.attribute("hidden_size", fit.static(fit.op.axes(2)[2]))


TABLE: Table = {
    "GRU": Rule(_recurrent(3, (1,)), _fit),
    "LSTM": Rule(_recurrent(4, (1, 2)), _fit),
    "RNN": Rule(_recurrent(1, (0,)), _fit),
}
