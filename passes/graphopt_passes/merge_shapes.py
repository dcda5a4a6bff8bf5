"""Computes each list of dims once, and from as few nodes as there can be."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import onnx_ir as ir

from graphopt.analysis.dims import Dim
from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt.rewrite import edit
from graphopt.walk import Scope

__all__ = ["MergeShapes"]

_FOLLOWED: Final = frozenset(
    {
        "Shape", "Size", "Gather", "Concat", "Slice", "Squeeze", "Unsqueeze", "Reshape", "Cast", "Add", "Sub", "Mul",
        "Div", "Mod", "Min", "Max", "ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin", "Equal", "Where", "Identity",
    }
)  # fmt: skip
_SOURCES: Final = frozenset({"Shape", "Size"})
_RANGE_OF_AXES: Final = 15  # the opset in which Shape learned start and end

_Contents: TypeAlias = tuple[Dim, ...]
_Key: TypeAlias = tuple[ir.DataType | None, bool, _Contents]
"""Element type, whether it is a scalar, and the contents."""
_VECTOR: Final = (ir.DataType.INT64, False)


@dataclasses.dataclass(frozen=True)
class MergeShapes(GraphPass):
    """Computes each list of dims once, and from as few nodes as there can be.

    What it does:
        Follows the contents of small integer tensors, symbolic dims included, as fold-shapes does. A value that
        holds what an earlier one holds gives way to it, whichever tensors they measure: each layer of a network
        asks for the batch anew, and it is the same batch. A vector of dims that lie side by side in the shape of
        one tensor comes from one ``Shape<start, end>`` (before opset 15 from a Gather of its Shape), and such
        neighbours in a Concat too.

    Before:
        ``s = Shape(x); n = Gather(s, 0); l = Gather(s, 1); a = Unsqueeze(n, [0]); b = Unsqueeze(l, [0]);
        t = Concat(a, b, [12]); r = Shape(y); m = Gather(r, [0])`` with ``x: [N, S, 4], y: [N, 7]``

    After:
        ``ab = Shape<start=0, end=2>(x); t = Concat(ab, [12]); m = Shape<start=0, end=1>(x)``

    Does not apply when:
        - the value is a graph output, or is computed from anything but shapes and constants;
        - the equal value is in another graph, an outer one too;
        - a node would come without another one going.

    Safety:
        Exact. Nothing is assumed about symbolic dims but that equal names are equal.
    """

    name = "merge-shapes"
    safety = Safety.EXACT
    needs = _SOURCES

    def run(self, model: ir.Model, context: Context) -> Outcome:
        touched: list[ir.Node] = []
        count = 0
        for scope in context.scopes():
            if any(node.op_type in _SOURCES for node in scope.graph):
                for changed in _Merger(scope, context).run():
                    touched += changed
                    count += 1
        return Outcome(count, touched)


class _Range(NamedTuple):
    """Some neighbouring axes of a tensor."""

    tensor: ir.Value
    start: int
    end: int


class _Merger:
    """Goes through one graph in order; knows the values that came before."""

    def __init__(self, scope: Scope, context: Context) -> None:
        self._context = context
        self._opset = scope.opset.get("", 0)
        self._values: dict[_Key, ir.Value] = {}
        self._ranges: dict[_Contents, _Range] = {}
        self._whole: dict[ir.Value, ir.Value] = {}
        self._followed: set[ir.Value] = set()
        self._made: list[ir.Node] = []
        self._nodes = list(scope.graph)
        if self._opset >= _RANGE_OF_AXES:
            for value in scope.graph.inputs:
                if not value.is_initializer():
                    self._measure(value)

    def run(self) -> Iterator[list[ir.Node]]:
        """Yields what each change touched."""
        for node in self._nodes:
            if node.domain or node.op_type not in _FOLLOWED or len(node.outputs) != 1 or node.graph is None:
                continue
            (value,) = node.outputs
            if node.op_type == "Shape" and node.inputs[0] is not None:
                self._measure(node.inputs[0], value if not node.attributes else None)
            elif node.op_type not in _SOURCES and not self._descends(node):
                continue
            self._followed.add(value)
            contents, dtype = self._context.shapes.data(value), self._context.shapes.dtype(value)
            if contents is None or dtype is None or all(isinstance(entry, int) for entry in contents):
                continue
            new = (
                None
                if value.is_graph_output()
                else self._better(node, (dtype, self._context.shapes.rank(value) == 0, contents))
            )
            if new is not None:
                yield self._replace(node, new)

    def _descends(self, node: ir.Node) -> bool:
        followed, constant = self._followed, self._context.constant
        return all(value is None or value in followed or constant(value) is not None for value in node.inputs)

    def _measure(self, tensor: ir.Value, whole: ir.Value | None = None) -> None:
        """Notes where lists of dims may be had: each range of the axes of ``tensor``."""
        shape = self._context.shapes.of(tensor)
        if shape is None:
            return
        if whole is not None:
            self._whole.setdefault(tensor, whole)
        elif self._opset < _RANGE_OF_AXES:
            return
        for start in range(len(shape)):
            for end in range(start + 1, len(shape) + 1):
                self._ranges.setdefault(tuple(shape[start:end]), _Range(tensor, start, end))

    def _better(self, node: ir.Node, key: _Key) -> ir.Value | None:
        """What holds the same as the result of ``node``, or is easier to compute."""
        earlier = self._values.setdefault(key, node.outputs[0])
        if earlier is not node.outputs[0] and _is_alive(earlier):
            return earlier
        self._values[key] = node.outputs[0]
        if key[:2] != _VECTOR:
            return None
        if not self._is_range(node) and (found := self._range(node, key[2])) is not None:
            return found
        return self._join(node) if node.op_type == "Concat" else None

    def _is_range(self, node: ir.Node) -> bool:
        """Whether the node is what :meth:`_range` would make, or as good."""
        if node.op_type == "Shape":
            return True
        source = self._context.producer(node.inputs[0], "Shape")
        return self._opset < _RANGE_OF_AXES and source is not None and node.op_type in ("Gather", "Slice")

    def _replace(self, node: ir.Node, new: ir.Value) -> list[ir.Node]:
        self._followed.add(new)
        made, self._made = self._made, []
        readers = edit.redirect(node.outputs[0], new)
        _, weakened = edit.erase_if_dead([node])
        return [*made, *readers, *weakened]

    def _range(self, node: ir.Node, contents: _Contents) -> ir.Value | None:
        """A value made before ``node`` that holds ``contents``; ``None`` if no shape has them side by side."""
        found = self._ranges.get(contents)
        if found is None or not _is_alive(found.tensor):
            return None
        tensor, start, end = found
        if self._opset >= _RANGE_OF_AXES:
            new = ir.node("Shape", [tensor], {"start": start, "end": end})
        else:
            whole = self._whole[tensor]
            if not _is_alive(whole) or end - start == len(self._context.shapes.of(tensor) or ()):
                return whole if _is_alive(whole) else None
            axes = self._context.new_constant(node, np.arange(start, end), f"{whole.name}_axes")
            new = ir.node("Gather", [whole, axes], {"axis": 0})
        new.name = self._context.names.fresh(node.name or new.op_type)
        (value,) = new.outputs
        value.name = self._context.names.fresh(f"{tensor.name}_dims")
        value.type, value.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([end - start])
        node.prepend([new])
        self._made.append(new)
        self._values[*_VECTOR, contents] = value
        return value

    def _join(self, node: ir.Node) -> ir.Value | None:
        """Takes neighbours in a Concat together where they are neighbours in a shape, or are constants."""
        parts: list[ir.Value] = []
        values = [value for value in node.inputs if value is not None]
        place = 0
        while place < len(values):
            # not all of them: that would have been found already
            ends = range(min(len(values), place + len(values) - 1), place, -1)
            end, part = next((end, part) for end in ends if (part := self._joined(node, values[place:end])) is not None)
            parts.append(part)
            place = end
        if len(parts) == len(values):
            return None
        new = ir.node("Concat", parts, {"axis": 0}, name=node.name)
        new.doc_string = node.doc_string
        new.metadata_props.update(node.metadata_props)
        node.prepend([new])
        self._made.append(new)
        (old,), (value,) = node.outputs, new.outputs
        node.name, value.type, value.shape = None, old.type, old.shape
        edit.inherit(value, old)
        self._values[*_VECTOR, self._context.shapes.data(old) or ()] = value
        return value

    def _joined(self, node: ir.Node, values: Sequence[ir.Value]) -> ir.Value | None:
        """One value for some operands of a Concat; ``None`` if there is none."""
        if len(values) == 1:
            return values[0]
        arrays = [self._context.array(value, max_elements=64) for value in values]
        known = [array for array in arrays if array is not None]
        if len(known) == len(arrays):
            return self._context.new_constant(node, np.concatenate(known), values[0].name)
        pieces = [self._context.shapes.data(value) for value in values]
        given = [piece for piece in pieces if piece is not None]
        if len(given) < len(pieces):
            return None
        contents = tuple(entry for piece in given for entry in piece)
        earlier = self._values.get((*_VECTOR, contents))
        if earlier is not None and _is_alive(earlier):
            return earlier
        lets_go = any(self._context.only_reader(value, node) for value in values)
        return self._range(node, contents) if lets_go else None


def _is_alive(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is None or producer.graph is not None
