"""Control flow: branches give what the node gives. What loops carry is frozen."""

from __future__ import annotations

from graphopt.channels.op import Op
from graphopt.channels.rules.rule import Rule, Table

__all__ = ["TABLE"]


def _if(op: Op) -> None:
    branches = [op.node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    for output, values in enumerate(zip(*[branch.outputs for branch in branches], strict=True)):
        sides = [op.linker.of(value) for value in values]
        if sides[0] is None or sides[1] is None or len(sides[0]) != len(sides[1]):
            for axis in (*(sides[0] or ()), *(sides[1] or ())):
                op.freeze(axis, "the branches give tensors of different rank")
            continue
        for value in values:
            for axis in (op.linker.constant(value) is not None and op.linker.of(value)) or ():
                op.freeze(axis, "a branch gives a constant as it is")
        axes, flags = [], []
        for place, (a, b) in enumerate(zip(*sides, strict=True)):
            if a.size == b.size:
                op.unite(a, b)
                axes.append(a)
            else:
                op.freeze(a, "the branches give tensors of different size")
                op.freeze(b, "the branches give tensors of different size")
                axes.append(op.new(op.shape(output)[place], "the branches give tensors of different size"))
            flags.append(all(op.linker.zero[value][place] for value in values))
        op.give(axes, flags, output)


TABLE: Table = {"If": Rule(_if)}
