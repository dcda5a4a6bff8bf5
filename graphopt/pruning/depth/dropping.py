"""Residual blocks out of a model: dropped, or gated so that a run can leave them out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from graphopt.analysis import constants
from graphopt.errors import NotEquivalent, UsageError
from graphopt.names import Names, label, operator
from graphopt.pipeline.runner import drop_initializer_inputs
from graphopt.pruning.depth.blocks import SKIP_NORMS, Block
from graphopt.rewrite import edit

if TYPE_CHECKING:
    from graphopt.verify.result import Equivalence

__all__ = ["drop", "drop_in_place", "gated", "outermost", "zero_in_place", "zeroed"]


def drop(model: ir.Model, blocks: Iterable[Block], *, check: bool = True, **verification: Any) -> ir.Model:
    """A copy of ``model`` in which what reads a block's output reads its input; inputs and outputs stay.

    (Before IR version 4, initializers are listed as inputs; those listings go, and the version becomes 4.)

    Args:
        model: The model in which the blocks were found; not changed.
        blocks: In any order; a block within another goes with it.
        check: Compare the result with :func:`zeroed` in ONNX Runtime, within the tolerance of every proof.
        verification: How: arguments of :class:`~graphopt.verify.equivalence.Verifier`, such as ``shapes``,
            ``feeds_file``, ``provider``, ``time_limit`` and ``custom_ops``.

    Raises:
        UsageError: The blocks are of another model.
        NotEquivalent: The result differs from the zeroed model: a bug, and nothing is returned.
        LimitReached: The comparison ran out of time or memory.
    """
    chosen = outermost(_of(model, blocks))
    result, nodes = _copy(model)
    drop_in_place(result, chosen, nodes.__getitem__)
    if check and chosen:
        verdict = _compare(zeroed(model, chosen), result, verification)
        if verdict.status == "different":
            raise NotEquivalent(
                f"the model without the blocks differs from the one with zeros in their place: {verdict.message}",
                hint="Please report this with the model; dropping fewer blocks may avoid it.",
            )
        if verdict.status == "unproven":
            warnings.warn(f"ONNX Runtime cannot run the model, so nothing is proven: {verdict.message}", stacklevel=2)
    return result


def drop_in_place(
    model: ir.Model,
    blocks: Iterable[Block],
    copies: Callable[[ir.Node], ir.Node] | None = None,
    names: Names | None = None,
) -> None:
    """Like :func:`drop`, on the model itself and without a check; its blocks must be found anew afterwards.

    Args:
        model: The model in which the blocks were found, or a copy of it.
        blocks: In any order.
        copies: Gives the node of the copy for one that the blocks know.
        names: Those of the model, if somebody gives new ones after this; else they are looked up.

    Raises:
        UsageError: The blocks are of another model.
    """
    chosen = outermost(_of(model, blocks) if copies is None else blocks)
    drop_initializer_inputs(model)
    _Dropper(model, copies or _itself, names or Names(model)).drop(chosen)


def zeroed(model: ir.Model, blocks: Iterable[Block]) -> ir.Model:
    """A copy of ``model`` in which all that the blocks add is multiplied by zero: what :func:`drop` must equal.

    Raises:
        UsageError: The blocks are of another model.
    """
    result, nodes = _copy(model)
    zero_in_place(_of(model, blocks), nodes.__getitem__, Names(result))
    return result


def zero_in_place(blocks: Iterable[Block], copies: Callable[[ir.Node], ir.Node], names: Names) -> None:
    """Multiplies all that blocks add by zero, in a copy of the model in which they were found.

    Args:
        blocks: In any order.
        copies: Gives the node of the copy for one that the blocks know.
        names: Those of the copy.
    """
    for block in outermost(blocks):
        _scale(block, copies, names, _constant(copies(block.node), names, np.zeros((), _numpy(block))))


def gated(model: ir.Model, blocks: Sequence[Block]) -> tuple[ir.Model, list[str], list[tuple[str, str]]]:
    """A copy of ``model`` with a switch for each block, and with what they read and give as further outputs.

    Returns:
        The copy; the name of each block's gate, a float scalar input: 1 leaves the block in, 0 leaves it out; and
        the names of each block's input (a graph input's, or an output's) and of its output before it is normalized.

    Raises:
        UsageError: The blocks are of another model.
    """
    result, nodes = _copy(model)
    graph = result.graph
    names = Names(result)
    gates: list[str] = []
    for block in _of(model, blocks):
        gate = ir.Value(name=names.fresh("gate"), shape=ir.Shape([]), type=ir.TensorType(ir.DataType.FLOAT))
        graph.inputs.append(gate)
        assert gate.name is not None
        gates.append(gate.name)
        factor = gate
        dtype = _dtype(block)
        if dtype is not ir.DataType.FLOAT:
            factor = _insert(nodes[block.node], names, "Cast", [gate], {"to": dtype.value})
        _scale(block, nodes.__getitem__, names, factor)
    ends = [_ends(block, nodes, names) for block in blocks]
    for block, pair in zip(blocks, ends, strict=True):
        for value in pair:
            if not value.is_graph_output() and not value.is_graph_input():
                value.type = value.type or ir.TensorType(_dtype(block))
                graph.outputs.append(value)
    return result, gates, [(str(start.name), str(end.name)) for start, end in ends]


def outermost(blocks: Iterable[Block]) -> list[Block]:
    """Each block once, without those that lie within another, in the order of the graph."""
    distinct = list(dict.fromkeys(blocks))
    kept = [block for block in distinct if not any(other.covers(block) for other in distinct)]
    return sorted(kept, key=lambda block: block.place)


def _of(model: ir.Model, blocks: Iterable[Block]) -> list[Block]:
    chosen = list(blocks)
    for block in chosen:
        if block.survey.model is not model:
            raise UsageError(
                f"block '{block.name}' is of another model", hint="Find the blocks of the model that you give."
            )
    return chosen


def _itself(node: ir.Node) -> ir.Node:
    return node


def _copy(model: ir.Model) -> tuple[ir.Model, dict[ir.Node, ir.Node]]:
    copy = model.clone()
    copy.meta.update(model.meta)
    return copy, dict(zip(model.graph, copy.graph, strict=True))


def _compare(reference: ir.Model, result: ir.Model, verification: Mapping[str, Any]) -> Equivalence:
    from graphopt.verify.equivalence import Verifier

    with Verifier(reference, **verification) as verifier:
        return verifier.check(result)


class _Dropper:
    """Takes blocks out of ``model``, whose nodes ``copies`` gives for those that the blocks know."""

    def __init__(self, model: ir.Model, copies: Callable[[ir.Node], ir.Node], names: Names) -> None:
        self._model = model
        self._copy = copies
        self._names = names

    def drop(self, blocks: Sequence[Block]) -> None:
        """Takes out ``blocks``, which come in the order of the graph, and what is of no more use."""
        # Found first: as soon as the first is gone, the values of the next are others.
        slots = [_slot(block) for block in blocks]
        sums = [self._copy(node) for block in blocks for node in block.sums]
        loose: dict[ir.Value, None] = {}
        for block, (holder, index) in zip(blocks, slots, strict=True):
            node, kept = self._copy(block.node), self._copy(holder).inputs[index]
            assert kept is not None
            if operator(node) in SKIP_NORMS:
                if len(node.outputs) > 3:
                    self._stand_in(node.outputs[3], kept, node)
                self._stand_in(node.outputs[0], _normalized(block, node, kept, self._names), node)
            else:
                self._stand_in(node.outputs[0], kept, node)
        for node in reversed(sums):
            if node.graph is not None and edit.is_dead(node):
                loose.update(dict.fromkeys(edit.erase(node)))
        self._clean(loose)

    def _stand_in(self, old: ir.Value, new: ir.Value, node: ir.Node) -> None:
        if not edit.can_stand_in(old, new):
            new = _insert(node, self._names, "Identity", [new])
        edit.redirect(old, new)

    def _clean(self, loose: dict[ir.Value, None]) -> None:
        pending = [value.producer() for value in loose]
        while pending:
            node = pending.pop()
            if node is None or node.graph is None or not edit.is_dead(node):
                continue
            read = edit.erase(node)
            loose.update(dict.fromkeys(read))
            pending += [value.producer() for value in read]
        initializers = self._model.graph.initializers
        for value in loose:
            if value.is_initializer() and not (value.uses() or value.is_graph_output() or value.is_graph_input()):
                assert value.name is not None
                initializers.pop(value.name, None)
        if self._model.functions:
            common.RemoveUnusedFunctionsPass()(self._model)  # type: ignore[no-untyped-call]


def _slot(block: Block) -> tuple[ir.Node, int]:
    """Where one of the sums reads the block's input."""
    return next((node, index) for node in block.sums for index, value in enumerate(node.inputs) if value is block.input)


def _normalized(block: Block, node: ir.Node, x: ir.Value, names: Names) -> ir.Value:
    """What one of :data:`SKIP_NORMS` makes of ``x`` alone."""
    epsilon = node.attributes.get_float("epsilon", 1e-12)
    if node.op_type == "SkipLayerNormalization":
        scales = [value for value in node.inputs[2:4] if value is not None]
        return _insert(node, names, "LayerNormalization", [x, *scales], {"axis": -1, "epsilon": epsilon})
    kind = _numpy(block)
    square = _insert(node, names, "Mul", [x, x])
    if block.survey.model.opset_imports[""] >= 18:
        axes = _constant(node, names, np.array([-1], np.int64))
        mean = _insert(node, names, "ReduceMean", [square, axes], {"keepdims": 1})
    else:
        mean = _insert(node, names, "ReduceMean", [square], {"axes": [-1], "keepdims": 1})
    raised = _insert(node, names, "Add", [mean, _constant(node, names, np.array(epsilon, kind))])
    normal = _insert(node, names, "Div", [x, _insert(node, names, "Sqrt", [raised])])
    return _insert(node, names, "Mul", [normal, node.inputs[2]])


def _scale(block: Block, copies: Callable[[ir.Node], ir.Node], names: Names, factor: ir.Value) -> None:
    """Multiplies all that a block adds by ``factor``, in a copy."""
    bias = SKIP_NORMS.get(operator(block.node))
    for node in block.sums:
        copy = copies(node)
        for index, value in enumerate(node.inputs):
            if value is None or value not in block.branch:
                continue
            term = copy.inputs[index]
            assert term is not None
            if bias is not None and bias < len(copy.inputs) and copy.inputs[bias] is not None:
                term = _insert(copy, names, "Add", [term, copy.inputs[bias]])
                copy.replace_input_with(bias, None)
            copy.replace_input_with(index, _insert(copy, names, "Mul", [term, factor]))


def _ends(block: Block, nodes: Mapping[ir.Node, ir.Node], names: Names) -> tuple[ir.Value, ir.Value]:
    """The copies of a block's input and of its sum, which a norm that adds may have to be made to give."""
    holder, index = _slot(block)
    start = nodes[holder].inputs[index]
    assert start is not None
    node = nodes[block.node]
    if operator(node) not in SKIP_NORMS:
        return start, node.outputs[0]
    if len(node.outputs) > 3:
        return start, node.outputs[3]
    return start, _insert(node, names, "Add", node.inputs[:2])


def _dtype(block: Block) -> ir.DataType:
    dtype = block.survey.shapes.dtype(block.output)
    assert dtype is not None
    return dtype


def _numpy(block: Block) -> np.dtype[Any]:
    return _dtype(block).numpy()


def _constant(near: ir.Node, names: Names, contents: np.ndarray[Any, Any]) -> ir.Value:
    graph = near.graph
    assert isinstance(graph, ir.Graph)
    name = names.fresh(f"{label(near)}_constant")
    value = edit.constant_value(name, constants.tensor(contents, name))
    graph.register_initializer(value)
    return value


def _insert(
    near: ir.Node,
    names: Names,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, Any] | None = None,
) -> ir.Value:
    """A new node before ``near``; its output."""
    node = ir.node(op_type, inputs, attributes or {}, name=names.fresh(f"{label(near)}_{op_type}"))
    node.outputs[0].name = names.fresh(node.name)
    assert near.graph is not None
    near.graph.insert_before(near, node)
    return node.outputs[0]
