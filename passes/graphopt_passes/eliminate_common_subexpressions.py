"""Computes once what several nodes compute alike."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from graphopt import walk
from graphopt.analysis import effects
from graphopt.pipeline.base import Context, GraphPass, Outcome, Safety
from graphopt.proto.schemas import default_attributes
from graphopt.rewrite import edit

__all__ = ["EliminateCommonSubexpressions"]

_COMPARED_BYTES = 4096
_COMMUTATIVE = frozenset(
    {"Add", "Mul", "And", "Or", "Xor", "Equal", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Max", "Min", "Sum", "Mean"}
)

_Key = tuple[str, str, str, tuple[ir.Value | None, ...]]


@dataclasses.dataclass(frozen=True)
class EliminateCommonSubexpressions(GraphPass):
    """Computes once what several nodes compute from the same values.

    What it does:
        Two nodes of the same operator that read the same values and have the same attributes give the same result, so
        readers of the second read the first. An attribute may be left out where the other node spells out the
        operator's default. The two operands of a sum, a product or the like may change places. A node
        in a subgraph can be replaced by one that runs before it in an enclosing graph. One walk, linear in the graph:
        attributes are looked at only where operator and inputs agree.

    Before:
        ``a = Exp(x); b = Exp(x); y = Add(a, b)``

    After:
        ``a = Exp(x); y = Add(a, a)``

    Does not apply when:
        - the operator is random, holds subgraphs, is a function of the model, or is not ONNX's own;
        - both are graph outputs, or the second is one of a subgraph and the first lies outside;
        - an attribute is a tensor of more than 4 KiB (unless it is the same object), or the nodes differ in which of
          their outputs they have.

    Safety:
        Exact.
    """

    name = "eliminate-common-subexpressions"
    safety = Safety.EXACT

    def run(self, model: ir.Model, context: Context) -> Outcome:
        search = _Search(context)
        for graph in [model.graph, *[function.graph for function in model.functions.values()]]:
            search.visit(graph)
        return Outcome(len(search.erased), search.touched)


class _Search:
    """The walk, and what was computed so far that can be seen from where it stands."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._first: dict[_Key, ir.Node] = {}
        self._alike: dict[_Key, dict[Hashable, ir.Node]] = {}
        self.erased: list[ir.Node] = []
        self.touched: list[ir.Node] = []

    def visit(self, graph: ir.Graph) -> None:
        """Goes through ``graph`` and, where they stand, its subgraphs; then forgets what lies in it."""
        first = self._first
        keys: list[_Key] = []
        entries: list[tuple[dict[Hashable, ir.Node], Hashable]] = []
        for node in graph:
            inputs = node._inputs
            if len(inputs) == 2 and node._op_type in _COMMUTATIVE and not node._domain and node._version is None:
                inputs = tuple(sorted(inputs, key=id))
            key = (node._op_type, node._domain, node._overload, inputs)
            earlier = first.setdefault(key, node)
            if earlier is node:
                keys.append(key)
            else:
                alike = self._alike.setdefault(key, {})
                if not alike:
                    alike[self._signature(earlier)] = earlier
                signature = self._signature(node)
                twin = alike.setdefault(signature, node)
                if twin is node:
                    entries.append((alike, signature))
                elif self._merge(node, twin):
                    continue
            if node._attributes:
                for subgraph in walk.subgraphs(node):
                    self.visit(subgraph)
        for alike, signature in entries:
            del alike[signature]
        for key in keys:
            del first[key]
            self._alike.pop(key, None)

    def _signature(self, node: ir.Node) -> Hashable:
        defaults = default_attributes(node.op_type, self._context.opset(node), node.domain) if node.attributes else {}
        return _signature(node, defaults)

    def _merge(self, node: ir.Node, twin: ir.Node) -> bool:
        if node.op_type == "Dropout" or not effects.is_deterministic(node):
            return False
        if node.op_identifier() in self._context.model.functions:
            return False
        stand_ins = dict(zip(node.outputs, twin.outputs, strict=True))
        if not all(edit.can_stand_in(old, new) for old, new in stand_ins.items()):
            return False
        self.touched += self._context.replace(stand_ins)
        # Some input may have had these two readers alone; many rules ask to be the only one.
        self.touched += [twin, *node.predecessors()]
        edit.erase(node)
        self.erased.append(node)
        return True


def _signature(node: ir.Node, defaults: Mapping[str, ir.Attr]) -> Hashable:
    """What two nodes of the same operator and inputs must share besides; equal to nothing else if that is unknown."""
    parts: list[Hashable] = [tuple(bool(output.name) for output in node.outputs)]
    for name, attribute in sorted(node.attributes.items()):
        if attribute.is_ref():
            parts.append((name, attribute.type, None, attribute.ref_attr_name))
            continue
        read = _CONTENT.get(attribute.type)
        if read is None:
            return object()
        content = read(attribute.value)
        default = defaults.get(name)
        if default is None or default.type != attribute.type or read(default.value) != content:
            parts.append((name, attribute.type, content))
    return tuple(parts)


def _floats(values: Sequence[float]) -> Hashable:
    """Bytes, because ``0.0 == -0.0`` and no NaN equals itself."""
    return struct.pack(f"<{len(values)}d", *values)


def _tensor(tensor: ir.TensorProtocol) -> Hashable:
    if tensor.dtype == ir.DataType.STRING:
        return tensor.shape.numpy(), tuple(tensor.numpy().reshape(-1))
    if tensor.nbytes > _COMPARED_BYTES:
        return id(tensor)
    return tensor.dtype, tensor.shape.numpy(), tensor.tobytes()


_CONTENT: dict[ir.AttributeType, Callable[[Any], Hashable]] = {
    ir.AttributeType.INT: int,
    ir.AttributeType.INTS: tuple,
    ir.AttributeType.FLOAT: lambda value: _floats([value]),
    ir.AttributeType.FLOATS: _floats,
    ir.AttributeType.STRING: str,
    ir.AttributeType.STRINGS: tuple,
    ir.AttributeType.TENSOR: _tensor,
}
