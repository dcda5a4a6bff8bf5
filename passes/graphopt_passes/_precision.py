"""Gives the values of a model another float type: what ``convert-float16`` and its like do.

Each value of the old type gets a *native* type, in which it is made, and each operand *demands* one. Where they differ
there is one Cast, or a second constant, for all readers. A node that must keep the old type (``_kept.py``) demands and
makes the old one; so a model in which all do is as it was, but for the casts at an interface that changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import onnx_ir as ir

from graphopt import walk
from graphopt.errors import UsageError
from graphopt.pipeline.base import Context, Outcome
from graphopt.proto.tails import Tail
from graphopt.rewrite import edit
from graphopt.verify.facts import PRECISION
from graphopt_passes._kept import Kept
from graphopt_passes._narrowing import Clamp, Extent, change_constant, converted, largest, smallest
from graphopt_passes._precision_rules import BOUNDS, SMALLEST_DATA, Request
from graphopt_passes._reach import reach
from graphopt_passes.inline_functions import InlineFunctions

__all__ = ["patterns", "run"]

Place = tuple[ir.Node | ir.Graph, int]
"""An input of a node, or an output of a graph."""
Demands = Sequence[tuple[Place, ir.DataType | None]]


def run(model: ir.Model, context: Context, request: Request, calibration: str | None = None) -> Outcome:
    """Changes the types of a model's values; what it leaves must do the same as the model before.

    Args:
        model: The model.
        context: What is known about it.
        request: What to convert.
        calibration: A file of inputs on which values are measured, which the new type may be too narrow for; empty for
            generated inputs, and ``None`` to measure nothing.

    Raises:
        UsageError: A pattern of ``request.keep`` fits nothing, or an output must keep its type.
        ModelError: The file of inputs does not fit the model, or its operator set has no such type.
    """
    if not request.keep_io and Tail.of(model) is not None:
        raise UsageError(
            f"{request.name}: the outputs come from a ZipMap, which takes float32", hint="Leave keep-io=no out."
        )
    before = model.clone()
    before.meta.update(model.meta)
    if InlineFunctions().run(model, context).count:
        context.refresh()
    extents: dict[ir.TensorProtocol, Extent] = {}
    if calibration is not None:
        request = dataclasses.replace(request, reach=_reach(model, context, request, calibration, extents))
    count = _convert(model, context, request, extents)
    if not count:
        return Outcome()
    context.refresh()
    if not request.keep_io:  # the same change of the interface, and nothing else
        _convert(before, Context(before), dataclasses.replace(request, keep=("*",)), extents)
    if request.new != ir.DataType.FLOAT:  # what computes in a narrower type is recognized as it is
        before.meta[PRECISION] = request.new.numpy().name
    return Outcome(count, None, before)


def patterns(text: str) -> tuple[str, ...]:
    """The patterns in the text of an option, which are joined by ``+``."""
    return tuple(part.strip() for part in text.split("+") if part.strip())


def _reach(
    model: ir.Model, context: Context, request: Request, calibration: str, extents: dict[ir.TensorProtocol, Extent]
) -> Mapping[str, float]:
    """How large values get beside fills, which are meant to be beyond them."""
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    names = [one.name for one in values if one.name and context.shapes.dtype(one) in request.old]
    clamped = Kept(model, context, request, _scopes(context), extents).clamped()
    limit = largest(request.new)
    clamps = {value.name or "": Clamp(limit, limit if _are_bounds(value.consumers()) else 0.0) for value in clamped}
    return reach(model, names, clamps, calibration)


def _scopes(context: Context) -> list[walk.Scope]:
    return [scope for scope in context.scopes() if scope.function is None]


def _convert(model: ir.Model, context: Context, request: Request, extents: dict[ir.TensorProtocol, Extent]) -> int:
    """Returns how many values got another type, or a twin of another type."""
    scopes = _scopes(context)
    kept = Kept(model, context, request, scopes, extents)
    kept.note()
    return _Conversion(context, request, scopes, kept).run()


class _Conversion:
    def __init__(self, context: Context, request: Request, scopes: Sequence[walk.Scope], kept: Kept) -> None:
        self._context = context
        self._new = request.new
        self._scopes = scopes
        self._kept = kept

    def run(self) -> int:
        """Decides everything first, and changes the model then."""
        plan = [self._planned(value) for value in self._values() if self._kept.is_old(value)]
        count = 0
        for value, own, native, demands in plan:
            constant = self._context.constant(value)
            if native == self._new:
                self._retype(value, demands)
                count += 1
            others = [place for place, wanted in demands if wanted not in (None, native)]
            if not others:
                continue
            count += 1
            if constant is not None:
                twin = self._second_constant(value, constant, others)
            else:
                twin = self._cast(value, own if native == self._new else self._new)
            _redirect(value, twin, others)
        return count

    def _values(self) -> Iterable[ir.Value]:
        for scope in self._scopes:
            yield from dict.fromkeys((*scope.graph.inputs, *scope.graph.initializers.values()))
            for node in scope.graph:
                yield from node.outputs

    def _planned(self, value: ir.Value) -> tuple[ir.Value, ir.DataType, ir.DataType, Demands]:
        """A value, its type, the type in which it will be made, and who reads it as what."""
        own = self._context.shapes.dtype(value)
        assert own is not None
        demands: list[tuple[Place, ir.DataType | None]] = [
            ((user, index), self._kept.demand(user, index)) for user, index in value.uses()
        ]
        if value.is_graph_output():
            demands += [
                ((scope.graph, index), self._kept.demand_of_output(scope.graph, value))
                for scope in self._scopes
                for index, output in enumerate(scope.graph.outputs)
                if output is value
            ]
        native = self._kept.native(value)
        if native is None:  # it can be made as its readers want it; if they differ, with all digits
            wanted = {one for _, one in demands} - {None}
            native = self._new if wanted == {self._new} else own
        return value, own, native, demands

    def _retype(self, value: ir.Value, demands: Demands) -> None:
        """Makes a value in the new type."""
        value.type = ir.TensorType(self._new)
        change_constant(value, lambda tensor: self._converted(tensor, [place for place, _ in demands]))
        node = value.producer()
        if node is not None and node.op_type == "Cast" and not node.domain:
            node.attributes["to"] = ir.AttrInt64("to", int(self._new))

    def _converted(self, tensor: ir.TensorProtocol, places: Sequence[Place]) -> ir.TensorProtocol:
        limit = largest(self._new)
        bound = limit if _are_bounds(reader for reader, _ in places) else limit / 2  # a sum with a fill stays finite
        least = smallest(self._new) if tensor.size < SMALLEST_DATA else 0.0
        return converted(tensor, self._new, Clamp(limit, bound, least))

    def _second_constant(self, value: ir.Value, tensor: ir.TensorProtocol, places: Sequence[Place]) -> ir.Value:
        name = self._context.names.fresh(f"{value.name}_{self._new.name.lower()}")
        twin = edit.constant_value(name, self._converted(tensor, places))
        assert twin.const_value is not None
        node = value.producer()
        if node is not None:
            return self._context.new_constant(node, twin.const_value, name)
        twin.const_value.name = name
        assert value.graph is not None
        value.graph.register_initializer(twin)
        return twin

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        name = self._context.names.fresh(f"{value.name}_{dtype.name.lower()}")
        result = ir.Value(name=name, type=ir.TensorType(dtype), shape=value.shape)
        node = ir.node("Cast", [value], {"to": int(dtype)}, name=name, outputs=[result])
        graph, maker = value.graph, value.producer()
        assert graph is not None
        first = next(iter(graph), None)
        if maker is not None:
            graph.insert_after(maker, node)
        elif first is not None:
            graph.insert_before(first, node)
        else:
            graph.append(node)
        return result


def _are_bounds(readers: Iterable[ir.Node | ir.Graph]) -> bool:
    return all(isinstance(reader, ir.Node) and reader.op_type in BOUNDS for reader in readers)


def _redirect(value: ir.Value, twin: ir.Value, places: Iterable[Place]) -> None:
    """Makes some of the readers of a value read its twin, which takes over the name of an output of the model."""
    for reader, index in places:
        if isinstance(reader, ir.Node):
            reader.replace_input_with(index, twin)
            continue
        reader.outputs[index] = twin
        if reader is value.graph and not value.is_graph_input():
            name, value.name = value.name, twin.name
            twin.name = name
            twin.doc_string = value.doc_string
            twin.metadata_props.update(value.metadata_props)
