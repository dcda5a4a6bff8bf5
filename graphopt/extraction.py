"""Cuts a part out of a model, as a model of its own."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from graphopt import walk
from graphopt.errors import UsageError
from graphopt.names import Names
from graphopt.proto.tails import Tail
from graphopt.rewrite import edit

__all__ = ["extract"]


def extract(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> ir.Model:
    """The part of ``model`` that computes ``outputs`` from ``inputs``.

    Takes along the initializers, functions and operator sets that this part needs, and nothing else. Dtypes, shapes,
    symbolic dims and metadata stay. Weights are shared with ``model``, which is not changed.

    Args:
        model: The whole.
        inputs: Values of the main graph (inputs, initializers, results of nodes) that become the inputs, in this
            order. The graph inputs that ``outputs`` need if empty.
        outputs: Values of the main graph that become the outputs, in this order. The graph outputs if empty.

    Raises:
        UsageError: A name is unknown, twice, or inside a subgraph; ``outputs`` need something that ``inputs`` do not
            give, or do not need an input; the dtype of a new input is not known.
    """
    part = model.clone()
    part.meta.update(model.meta)
    graph = part.graph
    if outputs:
        _drop_tail(part, outputs)
    found = _values(graph)
    ends = [_find(name, found, part) for name in _distinct(outputs)] or list(graph.outputs)
    starts = [_find(name, found, part) for name in _distinct(inputs)]
    for value in ends:
        if value in starts:
            raise UsageError(f"'{value.name}' is named as input and as output, so there is nothing between")
    types = _missing_types([*starts, *ends], part)
    stop = set(starts)
    needed, read = _upstream(ends, stop)
    sources = [value for value in graph.inputs if value in read and not value.is_initializer()]
    _check_bounds(starts, read, sources if starts else [], graph)

    graph.outputs.clear()
    graph.outputs.extend(ends)
    for node in [node for node in reversed(graph) if node not in needed]:
        edit.erase(node)
    for name, value in list(graph.initializers.items()):
        if value not in read or value in stop:
            del graph.initializers[name]
    listed = [value for value in graph.inputs if value.is_initializer()]
    graph.inputs.clear()
    names = Names(part)
    graph.inputs.extend([_as_input(value, names) for value in starts] or sources)
    graph.inputs.extend(listed)
    for value in (*graph.inputs, *graph.outputs):
        if value.name in types:
            value.type, value.shape = types[value.name]
    common.RemoveUnusedFunctionsPass()(part)  # type: ignore[no-untyped-call]
    common.RemoveUnusedOpsetsPass()(part)
    return part


def _drop_tail(model: ir.Model, outputs: Sequence[str]) -> None:
    """Leaves behind the ZipMap that makes a classifier's last output, and what else save would put back."""
    tail = Tail.of(model)
    if tail is None:
        return
    for name in outputs:
        if name in tail.inner:
            raise UsageError(f"'{name}' is a map, made by a ZipMap", hint=f"Cut before it, at {_quoted(tail.feeds)}.")
    del model.meta["graphopt.tail"]


def _distinct(names: Sequence[str]) -> Sequence[str]:
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(f"'{min(twice)}' is named twice")
    return names


def _values(graph: ir.Graph) -> dict[str, ir.Value]:
    results = (output for node in graph for output in node.outputs)
    return {value.name: value for value in (*graph.inputs, *graph.initializers.values(), *results) if value.name}


def _find(name: str, found: dict[str, ir.Value], model: ir.Model) -> ir.Value:
    if name in found:
        return found[name]
    for scope in walk.scopes(model):
        if scope.graph is not model.graph and name in _values(scope.graph):
            owner = scope.owner.name or scope.owner.op_type if scope.owner is not None else "a function"
            raise UsageError(f"'{name}' lies inside {owner}", hint="Only values of the main graph can be cut at.")
    near = difflib.get_close_matches(name, found, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(repr(one) for one in near)}?" if near else ""
    raise UsageError(f"the model has no value '{name}'", hint=hint)


def _upstream(ends: Iterable[ir.Value], stop: set[ir.Value]) -> tuple[set[ir.Node], set[ir.Value]]:
    """The nodes that ``ends`` need, and the values they read, up to and including those in ``stop``."""
    needed: set[ir.Node] = set()
    read = set(ends)
    stack = list(read)
    while stack:
        value = stack.pop()
        node = value.producer()
        if value in stop or node is None or node in needed:
            continue
        needed.add(node)
        captured = [value for graph in walk.subgraphs(node) for value in walk.captures(graph)]
        for source in (*node.inputs, *captured):
            if source is not None and source not in read:
                read.add(source)
                stack.append(source)
    return needed, read


def _check_bounds(starts: list[ir.Value], read: set[ir.Value], sources: list[ir.Value], graph: ir.Graph) -> None:
    missing = [value.name for value in sources if value not in starts]
    if missing:
        raise UsageError(
            f"the outputs also depend on the model's input{'s' * (len(missing) > 1)} {_quoted(missing)}",
            hint="Name it among the inputs too, or cut further down.",
        )
    unused = [value.name for value in starts if value not in read]
    if unused:
        raise UsageError(f"the outputs do not depend on {_quoted(unused)}", hint="Leave it out of the inputs.")


def _quoted(names: Iterable[str | None]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _as_input(value: ir.Value, names: Names) -> ir.Value:
    """A graph input in the place of ``value``, which a kept node may still compute under another name."""
    if value.producer() is None and value.const_value is None:
        return value
    fresh = ir.Value(name=value.name, type=value.type, shape=value.shape, doc_string=value.doc_string)
    fresh.metadata_props.update(value.metadata_props)
    value.name = names.fresh(value.name)
    edit.redirect(value, fresh)
    return fresh


def _missing_types(
    values: Iterable[ir.Value], model: ir.Model
) -> dict[str | None, tuple[ir.TypeProtocol, ir.Shape | None]]:
    """Type and shape of those ``values`` that do not declare any, by inference."""
    untyped = [value for value in values if value.type is None]
    if not untyped:
        return {}
    from graphopt.analysis.shapes import Shapes

    shapes = Shapes(model)
    known: dict[str | None, tuple[ir.TypeProtocol, ir.Shape | None]] = {}
    for value in untyped:
        dtype, dims = shapes.dtype(value), shapes.of(value)
        if dtype is None:
            raise UsageError(
                f"the dtype of '{value.name}' is not known, so it cannot be cut at", hint="Cut at a value beside it."
            )
        shape = None if dims is None else ir.Shape([dim if isinstance(dim, int) else None for dim in dims])
        known[value.name] = (ir.TensorType(dtype), shape)
    return known
