"""Residual blocks, found from the graph alone: ``y = x + f(x)``, where the model goes on without ``f``.

A sum is a block when one of its terms, ``x``, is what all the others are computed from, and nothing else reads what
lies between. ``Shape`` and ``Size`` do not count as reading: what depends on ``x`` through its shape alone is a side
input of ``f``, as are masks, positions and anything else that does not come from ``x``. So these are blocks: the
identity blocks of a ResNet, the sublayers of a transformer, its norm first or last, and an outer sum around inner
ones; and these are not: projection shortcuts, a bias, ``x + 0.04 x³`` inside a GELU, and an attention whose keys are
outputs of the model.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import onnx_ir as ir

from graphopt.analysis.constants import FLOAT_TYPES
from graphopt.channels.units import Saving
from graphopt.names import label, operator
from graphopt.pruning.depth.survey import Survey

__all__ = ["SKIP_NORMS", "Block", "find", "saving_of"]

_SUMS = frozenset({"Add", "Sum"})
SKIP_NORMS: Mapping[str, int] = {
    "com.microsoft::SkipLayerNormalization": 4,
    "com.microsoft::SkipSimplifiedLayerNormalization": 3,
}
"""ONNX Runtime's operators that add and normalize, with the place of the bias that they add too."""


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """A part of the main graph that only adds to what passes it by.

    Attributes:
        name: Of the node that adds: its own, or its output's where others have the same.
        node: The node that adds: Add, Sum, or one of :data:`SKIP_NORMS`.
        input: What stays when the block goes.
        output: The sum, of the same shape and type; the normalized sum of one of :data:`SKIP_NORMS`.
        branch: The terms that go.
        sums: The nodes that add them up, ``node`` last.
        nodes: Everything else that is of no more use without the block, in order.
        saving: What goes with it: weights that nothing else reads, multiply-accumulates of one run.
    """

    name: str
    node: ir.Node
    input: ir.Value
    output: ir.Value
    branch: tuple[ir.Value, ...]
    sums: tuple[ir.Node, ...]
    nodes: tuple[ir.Node, ...]
    saving: Saving
    survey: Survey = dataclasses.field(repr=False)

    def covers(self, other: Block) -> bool:
        """Whether ``other`` lies within this block, and goes with it."""
        return other is not self and other.node in self._inside

    @property
    def place(self) -> int:
        """Where in the graph it ends."""
        return self.survey.position(self.node)

    @functools.cached_property
    def _inside(self) -> frozenset[ir.Node]:
        return frozenset((*self.nodes, *self.sums[:-1]))


def find(model: ir.Model, *, input_shapes: Mapping[str, Sequence[int]] | None = None) -> list[Block]:
    """The residual blocks of the main graph of ``model``, in the order of their sums; linear but for nested ones.

    Args:
        model: Looked at, and not to be changed as long as the blocks are in use.
        input_shapes: Extents by input name for what :attr:`Block.saving` counts; open ones count as 1. The bodies of
            functions are not counted.

    Raises:
        UsageError: ``input_shapes`` do not fit the model.
    """
    survey = Survey(model, input_shapes)
    roots = [node for node in model.graph if _is_sum(node)]
    # A node's name may be that of another's output, which stands for nodes without a name of their own.
    names = collections.Counter(
        name for node in model.graph for name in {label(node), *(value.name or "" for value in node.outputs)}
    )
    return [block for root in roots if (block := _block(survey, root, names)) is not None]


def saving_of(blocks: Iterable[Block]) -> Saving:
    """What goes with several blocks, none within another: more than theirs summed up where they share something."""
    chosen = list(blocks)
    sums = [node for block in chosen for node in block.sums]
    if not chosen:
        return Saving(0, 0, 0)
    survey = chosen[0].survey
    gone = survey.dying((value for block in chosen for value in block.branch), sums)
    return survey.saving([*gone, *(node for node in sums if operator(node) not in SKIP_NORMS)])


class _Candidate(NamedTuple):
    """One way to read a sum: ``input`` stays, the ``branch`` is computed from ``source`` and goes with ``sums``."""

    input: ir.Value
    source: ir.Value
    branch: tuple[ir.Value, ...]
    sums: tuple[ir.Node, ...]


def _block(survey: Survey, root: ir.Node, names: Mapping[str, int]) -> Block | None:
    """The block that ends in ``root``, if there is one."""
    output = root.outputs[0]
    if survey.shapes.dtype(output) not in FLOAT_TYPES or not _can_be_replaced(survey, root):
        return None
    for candidate in _candidates(survey, root):
        if not _fits(survey, candidate, output):
            continue
        carriers = survey.between(_twins(candidate.source), candidate.branch)
        if not carriers:
            continue
        gone = survey.dying(candidate.branch, candidate.sums)
        if not gone.issuperset(carriers):
            continue
        saving = survey.saving([*gone, *(node for node in candidate.sums if operator(node) not in SKIP_NORMS)])
        if not saving.macs and not survey.learns(carriers):
            return None
        name = label(root)
        return Block(
            name if names[name] == 1 else root.outputs[0].name or name,
            root,
            candidate.input,
            root.outputs[0],
            candidate.branch,
            candidate.sums,
            tuple(sorted(gone, key=survey.position)),
            saving,
            survey,
        )
    return None


def _can_be_replaced(survey: Survey, root: ir.Node) -> bool:
    """Whether the sum itself can go: of a norm that adds, what else it does can be said in ONNX's own words."""
    if operator(root) not in SKIP_NORMS:
        return True
    if any(output.uses() or output.is_graph_output() for output in root.outputs[1:3]):
        return False  # mean and deviation
    opset = survey.model.opset_imports.get("", 0)
    if operator(root).endswith("SkipLayerNormalization"):
        return opset >= 17
    return opset >= 13 and survey.shapes.dtype(root.outputs[0]) is ir.DataType.FLOAT


def _candidates(survey: Survey, root: ir.Node) -> Iterator[_Candidate]:
    inputs = root.inputs[:2] if operator(root) in SKIP_NORMS else root.inputs
    terms = [value for value in inputs if value is not None]
    if len(terms) != len(inputs) or len(set(terms)) != len(terms):
        return
    below = {value: _terms(value) for value in terms}
    for value in terms:
        rest = tuple(term for term in terms if term is not value)
        for source in (value, *below[value][0]):
            yield _Candidate(value, source, rest, (root,))
    # x + f + g, where f and g share a norm: neither goes alone, both do
    leaves = [leaf for value in terms for leaf in below[value][0] or [value]]
    inner = [node for value in terms for node in below[value][1]]
    if inner and len(set(leaves)) == len(leaves):
        sums = (*sorted(inner, key=survey.position), root)
        for leaf in leaves:
            yield _Candidate(leaf, leaf, tuple(one for one in leaves if one is not leaf), sums)


def _fits(survey: Survey, candidate: _Candidate, output: ir.Value) -> bool:
    source, kept = candidate.source, candidate.input
    if source.is_initializer() or source.graph is not survey.model.graph:
        return False
    if sum(len(value.uses()) for value in _twins(source)) < 2:
        return False
    return survey.shapes.is_same_shape(kept, output) and survey.shapes.dtype(kept) == survey.shapes.dtype(output)


def _is_sum(node: ir.Node) -> bool:
    name = operator(node)
    if name in SKIP_NORMS:
        return len(node.inputs) > 2
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        return False
    return name in _SUMS and len(node.inputs) > 1 and "broadcast" not in node.attributes


def _terms(value: ir.Value) -> tuple[list[ir.Value], list[ir.Node]]:
    """What ``value`` is the sum of, if it is read once, and the nodes that add; nothing if it is no sum."""
    leaves: list[ir.Value] = []
    nodes: list[ir.Node] = []
    stack = [value]
    while stack:
        current = stack.pop()
        node = current.producer()
        lone = len(current.uses()) == 1 and not current.is_graph_output()
        if node is None or not lone or operator(node) not in _SUMS or not _is_sum(node) or None in node.inputs:
            leaves.append(current)
            continue
        nodes.append(node)
        stack.extend(term for term in reversed(node.inputs) if term is not None)
    return (leaves, nodes) if nodes else ([], [])


def _twins(value: ir.Value) -> tuple[ir.Value, ...]:
    """``value``, and where it is the sum inside a norm that adds, the normalized sum too."""
    node = value.producer()
    if node is None or operator(node) not in SKIP_NORMS or len(node.outputs) < 4 or value is not node.outputs[3]:
        return (value,)
    return value, node.outputs[0]
