"""Which branch of an If a model always takes, because after the other one it could not run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import onnx_ir as ir

from graphopt.analysis.shapes import Shapes
from graphopt.pipeline.base import Context

__all__ = ["Branches"]

_NAMES: Final = ("then_branch", "else_branch")
_RANKS: Final[Mapping[str, Mapping[int, int]]] = {
    "GRU": {0: 3, 5: 3},
    "LSTM": {0: 3, 5: 3, 6: 3},
    "RNN": {0: 3, 5: 3},
    "Gemm": {0: 2, 1: 2},
}
"""How many axes operators ask of their inputs."""
_AS_WEIGHT: Final = ("Conv", "ConvTranspose")
"""Operators that ask of the first input as many axes as the second has."""
_MOST_TRIED: Final = 24
"""Ifs of which both branches are thought through to what follows, which takes time as the model is long."""


class _Demands(NamedTuple):
    """The places of the nodes of a graph, and those of them that ask for a number of axes and are needed, in order."""

    places: Mapping[ir.Node, int]
    demanding: Sequence[ir.Node]


class Branches:
    """Knows which branch an If must take for the model to run.

    Torch writes ``x.squeeze(2)`` as an If that removes the axis where it has one element. Where an LSTM follows, which
    takes three axes and no other number, only one of the two can have been meant.

    Args:
        context: The model; :meth:`forget` must follow a change.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tried = 0
        self._demands: dict[ir.Graph | ir.Function, _Demands] = {}

    def forget(self) -> None:
        """Looks at graphs anew when asked."""
        self._demands.clear()

    def only(self, node: ir.Node) -> str | None:
        """The branch of an If without which the model cannot run; ``None`` if it may be either."""
        assert node.graph is not None
        branches = [attribute.as_graph() for name in _NAMES if not (attribute := node.attributes[name]).is_ref()]
        if any(len(branch.outputs) != len(node.outputs) for branch in branches) or len(branches) < len(_NAMES):
            return None
        if node.graph not in self._demands:
            self._demands[node.graph] = _read(node.graph, self._context)
        places, demanding = self._demands[node.graph]
        after = [one for one in demanding if places[one] > places[node]]
        if not after or self._tried >= _MOST_TRIED:
            return None
        shapes = self._context.shapes
        ranks = [[shapes.rank(value) for value in branch.outputs] for branch in branches]
        if not any(None not in pair and pair[0] != pair[1] for pair in zip(*ranks, strict=True)):
            return None
        self._tried += 1
        possible = []
        for name, branch in zip(_NAMES, branches, strict=True):
            same = dict(zip(node.outputs, branch.outputs, strict=True))
            supposed = shapes.supposing(same, self._context.holders)
            if all(_takes(one, supposed) for one in after):
                possible.append(name)
        return possible[0] if len(possible) == 1 else None


def _read(graph: ir.Graph | ir.Function, context: Context) -> _Demands:
    needed: set[ir.Node] = set()
    demanding: list[ir.Node] = []
    for node in reversed(graph):
        readers = (reader for output in node.outputs for reader in output.consumers())
        if not any(output.is_graph_output() for output in node.outputs) and not any(
            holder in needed for reader in readers for holder in context.holders(reader)
        ):
            continue  # nobody needs the result, so it need not run
        needed.add(node)
        if not node.domain and (node.op_type in _RANKS or node.op_type in _AS_WEIGHT):
            demanding.append(node)
    return _Demands({node: place for place, node in enumerate(graph)}, demanding[::-1])


def _takes(node: ir.Node, shapes: Shapes) -> bool:
    """Whether the inputs of a node may have as many axes as it asks for."""
    wanted = _RANKS.get(node.op_type)
    if wanted is None:
        rank = _rank(node, 1, shapes)
        wanted = {} if rank is None else {0: rank}
    return all(_rank(node, index, shapes) in (rank, None) for index, rank in wanted.items())


def _rank(node: ir.Node, index: int, shapes: Shapes) -> int | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    return None if value is None else shapes.rank(value)
