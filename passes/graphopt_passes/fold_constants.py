"""Computes now what depends on constants alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from graphopt.analysis.cost_rules import RULES, Operands, Unknown
from graphopt.analysis.effects import is_deterministic
from graphopt.errors import ModelError
from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt.rewrite import edit
from graphopt.rewrite.match import Miss
from graphopt_passes._evaluation import evaluate
from graphopt_passes._moving import move

__all__ = ["FoldConstants"]

# What the last four cost, no formula of sizes tells.
_NEVER = frozenset({"Constant", "DequantizeLinear", "Det", "MaxRoiPool", "NonMaxSuppression", "RoiAlign"})
_BOUNDED_BY_INPUT = frozenset({"NonZero", "Unique", "Compress"})
_SCRATCH_LIMIT = 1 << 28  # bytes that one node may write
_PART_LIMIT = 1 << 30  # bytes that the nodes of a part may write together: they may all be alive at once
_WORK_LIMIT = 1 << 34  # multiplications that one node may take


@dataclasses.dataclass(frozen=True)
class FoldConstants(GraphPass):
    """Computes now what depends on constants alone.

    What it does:
        All foldable nodes run in one ONNX Runtime session, on the kernels that would run them later;
        what the rest of the graph reads of them becomes constants.

    Before:
        ``a = Transpose(w); b = Mul(a, c); y = MatMul(x, b)``

    After:
        ``y = MatMul(x, b)`` with initializer ``b``

    Does not apply when:
        - a node is random, stateful, of an unknown domain, or has subgraphs;
        - it dequantizes a weight: that would undo a compression;
        - the size of its result or the work to compute it is not known beforehand, or is too large to try;
        - it divides integers by what may be -1: the smallest number divided by that kills the process;
        - the model would grow by more than ``max_bytes`` for it: what counts are the bytes of the results less the
          bytes of the weights that die with the nodes, over nodes that hang together.

    Safety:
        Exact on the CPU provider, whose kernels compute the constants.

    Attributes:
        max_bytes: How many bytes the model may grow by for one connected part. The default keeps compressed weights
            compressed (ONNX Runtime folds them at load anyway), and leaves room for what folding is really for.
    """

    name = "fold-constants"
    safety = Safety.EXACT

    max_bytes: int = 4096

    def run(self, model: ir.Model, context: Context) -> Outcome:
        count = 0
        touched: list[ir.Node] = []
        again = True
        while again:  # what was left out may fit, and divisors are known, once the rest is constant
            again = False
            for opset, nodes in _candidates(context):
                whole = [_measure(part, context) for part in _connected(nodes, context)]
                fitting = [_shrink_to(self.max_bytes, part, context) for part in whole]
                shrunk = {id(part) for part, before in zip(fitting, whole, strict=True) if part is not before}
                for batch in _batches(fitting):
                    for part, tensors in _evaluate(batch, opset, context):
                        count += len(part.nodes)
                        readers = _put(part, tensors, context)
                        touched += readers
                        again = again or id(part) in shrunk or any(node.op_type in _DIVISIONS for node in readers)
        return Outcome(count, touched)


@dataclasses.dataclass(frozen=True, slots=True)
class _Part:
    """Foldable nodes that hang together, in execution order.

    Attributes:
        nodes: The nodes.
        frontier: Their values that other nodes or the graph's outputs need.
        growth: Bytes of the frontier less the bytes of the constants that nothing else reads.
        written: Bytes that all nodes write.
    """

    nodes: list[ir.Node]
    frontier: list[ir.Value]
    growth: int
    written: int


def _candidates(context: Context) -> list[tuple[Mapping[str, int], list[ir.Node]]]:
    """The foldable nodes of all scopes that share an operator set, outer scopes first, so that inner ones follow."""
    folded: set[ir.Value] = set()
    found: dict[int, tuple[Mapping[str, int], list[ir.Node]]] = {}
    for scope in context.scopes():
        _, nodes = found.setdefault(id(scope.opset), (scope.opset, []))
        for node in scope.graph:
            if node.domain or node.op_type in _NEVER or not node.outputs:
                continue
            if not all(
                value is None or value in folded or context.constant(value) is not None for value in node.inputs
            ):
                continue
            if _is_safe(node, context):
                nodes.append(node)
                folded.update(node.outputs)
    return [group for group in found.values() if group[1]]


def _is_safe(node: ir.Node, context: Context) -> bool:
    if any(a.is_ref() or a.type in _GRAPHS for a in node.attributes.values()) or not is_deterministic(node):
        return False
    if _may_trap(node, context) or _work(node, context) > _WORK_LIMIT:
        return False
    sizes = [_bytes_of(value, context) for value in node.outputs if value.name]
    if None in sizes:
        inputs = [_bytes_of(value, context) for value in node.inputs if value is not None]
        return node.op_type in _BOUNDED_BY_INPUT and None not in inputs
    return sum(size for size in sizes if size is not None) <= _SCRATCH_LIMIT


_GRAPHS = frozenset({ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS})


def _may_trap(node: ir.Node, context: Context) -> bool:
    if node.op_type not in _DIVISIONS or context.shapes.dtype(node.outputs[0]) not in _TRAPPING_DTYPES:
        return False
    divisor = context.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return divisor is None or bool((divisor.numpy() == -1).any())


_DIVISIONS = frozenset({"Div", "Mod"})
_TRAPPING_DTYPES = frozenset({ir.DataType.INT32, ir.DataType.INT64})


def _shape(value: ir.Value, context: Context) -> tuple[int, ...] | None:
    shape = context.shapes.of(value)
    known = tuple(dim for dim in shape or () if isinstance(dim, int))
    return known if shape is not None and len(known) == len(shape) else None


def _bytes_of(value: ir.Value, context: Context) -> int | None:
    """Size of a tensor of a plain numeric type and known shape; ``None`` otherwise."""
    dtype, shape = context.shapes.dtype(value), _shape(value, context)
    if dtype is None or shape is None or dtype not in _FOLDABLE_DTYPES:
        return None
    return math.ceil(math.prod(shape) * float(dtype.itemsize))


_FOLDABLE_DTYPES = frozenset(
    getattr(ir.DataType, name)
    for name in (
        "FLOAT", "DOUBLE", "FLOAT16", "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64",
    )
)  # fmt: skip


def _work(node: ir.Node, context: Context) -> float:
    """Multiplications that a node takes, other operations counted as several; infinite where nobody knows."""
    rule = RULES.get(("", node.op_type))
    if rule is None:
        return math.inf
    try:
        work = rule(Operands(node, lambda value: _shape(value, context)))
    except (Unknown, IndexError):  # an operand is missing, or of another rank than the operator takes
        return math.inf
    return work.macs + _SLOWER * work.other


_SLOWER = 8
"""How much longer an operation takes outside of the kernels of linear algebra."""


def _connected(nodes: Sequence[ir.Node], context: Context) -> list[list[ir.Node]]:
    """Splits candidates into parts linked by a value that one computes, or by a weight that they share."""
    parent: dict[ir.Node, ir.Node] = {node: node for node in nodes}

    def find(node: ir.Node) -> ir.Node:
        while parent[node] is not node:
            parent[node] = node = parent[parent[node]]
        return node

    first_reader: dict[ir.Value, ir.Node] = {}
    for node in nodes:
        for value in node.inputs:
            producer = value.producer() if value is not None else None
            if producer is not None and producer in parent:
                parent[find(node)] = find(producer)
            elif value is not None and _constant_bytes(value, context) >= _SHARED_WEIGHT:
                parent[find(node)] = find(first_reader.setdefault(value, node))
    members: dict[ir.Node, list[ir.Node]] = {}
    for node in nodes:
        members.setdefault(find(node), []).append(node)
    return list(members.values())


_SHARED_WEIGHT = 1024
"""Smaller constants may be counted as dying twice; they would only tie unrelated parts together."""


def _constant_bytes(value: ir.Value, context: Context) -> int:
    held = context.constant(value)
    return held.nbytes if held is not None else 0


def _measure(nodes: list[ir.Node], context: Context) -> _Part:
    inside = set(nodes)
    frontier = [
        value
        for node in nodes
        for value in node.outputs
        if value.is_graph_output() or any(use.node not in inside for use in value.uses())
    ]
    read = {value for node in nodes for value in node.inputs if value is not None and value.producer() not in inside}
    dying = sum(
        _constant_bytes(value, context)
        for value in read
        if not value.is_graph_output() and all(use.node in inside for use in value.uses())
    )
    growth = sum(_bytes_of(value, context) or 0 for value in frontier) - dying
    written = sum(_bytes_of(value, context) or 0 for node in nodes for value in node.outputs)
    return _Part(nodes, frontier, growth, written)


def _shrink_to(budget: int, part: _Part, context: Context) -> _Part:
    """Takes the nodes that blow a part up, and what depends on them, out of it until it fits the budget."""
    for _ in range(_SHRINK_ATTEMPTS):
        if not part.nodes or (part.growth <= budget and part.written <= _PART_LIMIT):
            return part
        left_out = {max(part.nodes, key=lambda node: _blow_up(node, context))}
        kept = []
        for node in part.nodes:
            if node in left_out or any(producer in left_out for producer in node.predecessors()):
                left_out.add(node)
            else:
                kept.append(node)
        part = _measure(kept, context)
    return _Part([], [], 0, 0)


_SHRINK_ATTEMPTS = 64


def _blow_up(node: ir.Node, context: Context) -> int:
    written = sum(_bytes_of(value, context) or 0 for value in node.outputs)
    return written - sum(_bytes_of(value, context) or 0 for value in node.inputs if value is not None)


def _batches(parts: Sequence[_Part]) -> Iterator[list[_Part]]:
    """Parts that run in one session: few sessions, and few bytes at a time."""
    batch: list[_Part] = []
    written = 0
    for part in parts:
        if not part.nodes:
            continue
        if batch and written + part.written > _SCRATCH_LIMIT:
            yield batch
            batch, written = [], 0
        batch.append(part)
        written += part.written
    if batch:
        yield batch


def _evaluate(
    parts: list[_Part], opset: Mapping[str, int], context: Context
) -> Iterator[tuple[_Part, list[ir.TensorProtocol]]]:
    """Computes parts, all that calculate in one session."""
    calculated: list[_Part] = []
    for part in parts:
        moved = move(part.nodes, part.frontier, opset.get("", 0), context)
        if moved is None:
            calculated.append(part)
        else:
            yield part, moved
    if calculated:
        yield from _run(calculated, opset, context)


def _run(
    parts: list[_Part], opset: Mapping[str, int], context: Context
) -> Iterator[tuple[_Part, list[ir.TensorProtocol]]]:
    """Runs parts in one session; if that fails, halves them until the part that cannot run stands alone."""
    nodes = [node for part in parts for node in part.nodes]
    wanted = [value for part in parts for value in part.frontier]
    try:
        results = iter(evaluate(nodes, wanted, opset, context))
    except ModelError:
        if len(parts) == 1:
            context.note(FoldConstants.name, Miss("ONNX Runtime cannot compute it", nodes[0]))
            return
        middle = len(parts) // 2
        yield from _run(parts[:middle], opset, context)
        yield from _run(parts[middle:], opset, context)
        return
    for part in parts:
        yield part, [next(results) for _ in part.frontier]


def _put(part: _Part, tensors: list[ir.TensorProtocol], context: Context) -> list[ir.Node]:
    """Puts the results in place of the nodes that computed them; returns the nodes that read them now."""
    touched: list[ir.Node] = []
    for value, result in zip(part.frontier, tensors, strict=True):
        producer = value.producer()
        assert producer is not None
        constant = context.new_constant(producer, result, value.name, as_node=value.is_graph_output())
        touched += edit.redirect(value, constant)
    _, weakened = edit.erase_if_dead(reversed(part.nodes))
    return touched + weakened
