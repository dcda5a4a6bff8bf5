"""Symbolic shapes, element types and small integer contents of a model's values, computed on demand.

One rule per operator (``shape_rules``) and one for the contents of small integer tensors (``shape_data``) say what a
node gives; ONNX's C++ inference answers for standard operators without a rule. Declared types count for graph inputs,
for values nothing else is known of, and never against a computed shape.

Assumptions, all of them about models that run: axes an operator needs equal are equal, named dims of graph inputs with
one name are equal, a Reshape target with symbols holds no extent 0 (which would copy an input axis instead), and the
windows of convolutions and poolings fit into symbolic extents.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar, cast

import onnx_ir as ir

from graphopt import walk
from graphopt.analysis.constants import tensor_of_constant_node
from graphopt.analysis.dims import Dim, Sym, product, symbol
from graphopt.analysis.shape_data import MATRIX_RULES, MAX_ELEMENTS, TRACKED
from graphopt.analysis.shape_data import RULES as DATA_RULES
from graphopt.analysis.shape_rules import RULES
from graphopt.analysis.shape_rules.call import UNKNOWN, Call, Fact, RankVaries, Shape, ShapeRule, TypeRule, Undetermined
from graphopt.analysis.shape_rules.control import RULES as CONTROL_RULES
from graphopt.analysis.shape_rules.control import bodies

__all__ = ["Dim", "Shape", "Shapes", "Sym"]

_T = TypeVar("_T")

_MAX_NAMED = 8  # contents of up to this many unknown integers get a symbol each
_NAMED = frozenset({ir.DataType.INT64, ir.DataType.INT32})
_STANDARD = frozenset({"", "ai.onnx.ml", "ai.onnx.preview.training"})
_ANONYMOUS = frozenset({"", "?", "*", "-1", "None", "none", "null", "unk", "unknown", "dynamic"})
# what a rule raises on a node that breaks its operator's rules; reporting that is not this analysis's job
_MALFORMED = (Undetermined, LookupError, ValueError, TypeError, ArithmeticError)


class Shapes:
    """What is known about the values of ``model``, memoised by value.

    A rewrite keeps the meaning of the values that survive it, so their facts stay valid; new values are computed when
    asked for. Time is linear in the nodes visited, and depth of the graph does not matter.
    """

    def __init__(self, model: ir.Model, *, believe_declared: bool = False) -> None:
        """Analyse ``model``.

        Args:
            model: The model; looked at when asked, never changed.
            believe_declared: Take the extents declared for inputs of bodies and functions for true. Good enough for
                estimates; nobody enforces them, so a rewrite must not.
        """
        self._model = model
        self._believe_declared = believe_declared
        self._functions = model.functions
        self._facts: dict[ir.Value, Fact] = {}
        self._symbols: dict[str, Sym] = {}
        self._scopes: dict[ir.Graph, int] = {model.graph: 0}
        self._opsets: dict[ir.Graph, Mapping[str, int]] | None = None  # of graphs inside functions
        self._count = 0
        self._call = Call(self._facts, self._fresh, self._opset)

    def of(self, value: ir.Value) -> Shape | None:
        """The shape; None when even the rank is unknown."""
        return (self._facts.get(value) or self._solve(value))[1]

    def rank(self, value: ir.Value) -> int | None:
        """The number of axes, or None."""
        shape = self.of(value)
        return None if shape is None else len(shape)

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """The element type; None when unknown or when the value is no tensor."""
        return (self._facts.get(value) or self._solve(value))[0]

    def data(self, value: ir.Value) -> tuple[Dim, ...] | None:
        """The contents of a small integer or boolean (0, 1) scalar or vector, flat; None when not tracked.

        An unknown element is a symbol of its own. :meth:`of` tells a scalar, ``()``, from a vector of one.
        """
        _, shape, data = self._facts.get(value) or self._solve(value)
        return None if shape is None or len(shape) > 1 else data

    def is_same_shape(self, a: ir.Value, b: ir.Value) -> bool:
        """Whether the two shapes are provably equal."""
        shape = self.of(a)
        return shape is not None and shape == self.of(b)

    def forget(self, values: Iterable[ir.Value]) -> None:
        """Drop what is known of ``values`` (not of what was computed from them)."""
        for value in values:
            self._facts.pop(value, None)

    def gains(self, new: ir.Value, old: ir.Value) -> bool:
        """Whether the rank of ``new`` is known while that of ``old``, which was asked for, is not."""
        fact = self._facts.get(old)
        return fact is not None and fact[1] is None and self.of(new) is not None

    def forget_after(self, values: Iterable[ir.Value], holders: Callable[[ir.Node], Iterable[ir.Node]]) -> None:
        """Drop what is known of ``values`` and of all that rests on them, so that it is found out anew.

        Args:
            values: Values of which more can be known now.
            holders: A node and the nodes in whose subgraphs it lies.
        """
        self.forget(_affected(values, holders))

    def assume(self, new: ir.Value, *, like: ir.Value, infer: bool = True) -> None:
        """Let ``new`` have the facts of ``like``, which it is about to replace.

        Args:
            new: The value that stays.
            like: The value that goes.
            infer: Find out what is not known of ``like`` yet; without, only what is known passes on.
        """
        fact = self._facts.get(like) or (self._solve(like) if infer else UNKNOWN)
        if fact[1] is not None:
            self._facts[new] = fact

    def supposing(self, same: Mapping[ir.Value, ir.Value], holders: Callable[[ir.Node], Iterable[ir.Node]]) -> Shapes:
        """What would be known if each key were the value that it is mapped to.

        Args:
            same: Values, and those that they would be.
            holders: A node and the nodes in whose subgraphs it lies.
        """
        affected = _affected(same, holders)
        supposed = Shapes(self._model, believe_declared=self._believe_declared)
        supposed._scopes, supposed._symbols, supposed._count = self._scopes, self._symbols, self._count
        supposed._facts.update({value: fact for value, fact in self._facts.items() if value not in affected})
        supposed._facts.update({key: self._facts.get(value) or self._solve(value) for key, value in same.items()})
        return supposed

    def _solve(self, value: ir.Value) -> Fact:
        """Compute ``value`` and all it depends on: depth first, on a stack of our own."""
        facts = self._facts
        producer = value.producer()
        if producer is None:
            fact = facts[value] = self._leaf(value)
            return fact
        stack = [producer]
        entered: set[ir.Node] = set()  # the path from the root, as only the top of the stack is ever entered
        while stack:
            node = stack[-1]
            ready = True
            for needed in node.inputs if node.op_type not in CONTROL_RULES else _dependencies(node):
                if needed is None or needed in facts:
                    continue
                source = needed.producer()
                if source is None:
                    facts[needed] = self._leaf(needed)
                elif source is node or source in entered:
                    facts[needed] = UNKNOWN  # a cycle: not a valid graph, but no reason to hang
                else:
                    stack.append(source)
                    ready = False
            if ready:
                stack.pop()
                entered.discard(node)
                for output in node.outputs:
                    if output not in facts:
                        self._infer(node)
                        break
            else:
                entered.add(node)
        return facts[value]

    def _leaf(self, value: ir.Value) -> Fact:
        """A value without a producer: an initializer, or an input of the model, a function or a body."""
        tensor = value.const_value
        # before IR version 4 an initializer had to be listed as an input and was a constant all the same
        if tensor is not None and (not value.is_graph_input() or (self._model.ir_version or 0) < 4):
            return _of_tensor(tensor)
        dtype, shape = self._declared(value)
        if value.is_graph_input() and value.graph is not self._model.graph and not self._believe_declared:
            # What a Loop carries may change its extents, whatever the body declares.
            shape = None if shape is None else tuple([self._fresh() for _ in shape])
        return dtype, shape, self._unknown_contents(dtype, shape)

    def _declared(self, value: ir.Value) -> tuple[ir.DataType | None, Shape | None]:
        if not isinstance(value.type, ir.TensorType | None):
            return None, None  # a sequence's or an optional's shape is that of its elements
        dtype = None if value.type is None else value.type.dtype
        if value.shape is None:
            return dtype, None
        graph = value.graph
        # names given to outputs are often copied from the inputs, whatever the model does in between
        scope = None
        if graph is not None and not (value.is_graph_output() and value.producer() is not None):
            scope = self._scopes.setdefault(graph, len(self._scopes))
        return dtype, tuple([self._declared_dim(dim, scope) for dim in value.shape.dims])

    def _declared_dim(self, dim: int | ir.SymbolicDim, scope: int | None) -> Dim:
        if isinstance(dim, int):
            return dim if dim >= 0 else self._fresh()
        name = dim.value
        if name is None or name in _ANONYMOUS or scope is None:
            return self._fresh()
        # a name means one number in the main graph; in a body or a function it may mean another
        key = f"\2{scope}:{name}" if scope else name
        known = self._symbols.get(key)
        if known is None:
            known = self._symbols[key] = symbol(key, label=name)
        return known

    def _infer(self, node: ir.Node) -> None:
        """Compute the outputs of a node whose dependencies are known."""
        self._call.node = node
        domain = node.domain
        operator = f"{domain}::{node.op_type}" if domain else node.op_type
        facts: Sequence[Fact] = ()
        if self._functions and node.op_identifier() in self._functions:
            pass  # only what is declared
        elif operator in RULES:
            self._apply(node, *RULES[operator])
            return
        elif operator == "Constant":
            tensor = tensor_of_constant_node(node)
            facts = [] if tensor is None else [_of_tensor(tensor)]
        elif operator in CONTROL_RULES:
            with contextlib.suppress(*_MALFORMED):
                facts = CONTROL_RULES[operator](self._call)
        elif domain in _STANDARD:
            facts = self._by_schema(node)
        for index, output in enumerate(node.outputs):
            self._record(output, *(facts[index] if index < len(facts) else UNKNOWN))

    def _apply(self, node: ir.Node, type_rule: TypeRule, shape_rule: ShapeRule) -> None:
        call = self._call
        try:
            dtypes = type_rule(call)
        except _MALFORMED:
            dtypes = None
        try:
            shapes = shape_rule(call)
        except RankVaries:
            dtype = None if isinstance(dtypes, list) else dtypes
            self._facts.update(dict.fromkeys(node.outputs, (dtype or self._declared(node.outputs[0])[0], None, None)))
            return
        except _MALFORMED:
            shapes = []
        for index, output in enumerate(node.outputs):
            dtype = _pick(dtypes, index) if isinstance(dtypes, list) else dtypes
            shape = _pick(shapes, index) if isinstance(shapes, list) else None if index else shapes
            data = None
            if shape is not None and len(shape) < 3 and dtype in TRACKED:
                call.output = index
                data = self._contents(node, dtype, shape) if len(shape) < 2 else self._matrix(node, shape)
            self._record(output, dtype, shape, data)

    def _record(self, value: ir.Value, dtype: ir.DataType | None, shape: Shape | None, data: Shape | None) -> None:
        if shape is None or dtype is None:
            declared_dtype, declared_shape = self._declared(value)
            dtype = dtype or declared_dtype
            shape = declared_shape if shape is None else shape
            data = data or self._unknown_contents(dtype, shape)
        for dim in shape or ():
            if isinstance(dim, int) and dim < 0:  # the model cannot run
                shape = None
                break
        self._facts[value] = (dtype, shape, data)

    def _contents(self, node: ir.Node, dtype: ir.DataType, shape: Shape) -> tuple[Dim, ...] | None:
        """The contents of an integer scalar or vector, as far as they can be followed."""
        length = shape[0] if shape else 1
        rule = None if node.domain else DATA_RULES.get(node.op_type)
        if not isinstance(length, int) or length > MAX_ELEMENTS:
            return None
        elements: Sequence[Dim | None] | None = None
        if rule is not None:
            with contextlib.suppress(*_MALFORMED):
                elements = rule(self._call, length)
        if elements is None or len(elements) != length:
            return self._unknown_contents(dtype, shape)
        if dtype == ir.DataType.BOOL:
            known = tuple([element for element in elements if element is not None])
            return known if len(known) == length else None
        limit = 2**31 if dtype == ir.DataType.INT32 else 2**63
        return tuple(
            [
                self._fresh(low=None)
                if element is None or (isinstance(element, int) and not -limit <= element < limit)
                else element
                for element in elements
            ]
        )

    def _matrix(self, node: ir.Node, shape: Shape) -> tuple[Dim, ...] | None:
        """The contents of a small integer matrix: exporters turn lists of pads around in one."""
        rule = None if node.domain else MATRIX_RULES.get(node.op_type)
        size = product(shape)
        if rule is None or not isinstance(size, int) or size > MAX_ELEMENTS:
            return None
        elements: Sequence[Dim | None] | None = None
        with contextlib.suppress(*_MALFORMED):
            elements = rule(self._call, size)
        if elements is None or len(elements) != size:
            return None
        known = tuple([element for element in elements if element is not None])
        return known if len(known) == size else None

    def _unknown_contents(self, dtype: ir.DataType | None, shape: Shape | None) -> tuple[Dim, ...] | None:
        """A symbol for each element of a very small integer tensor, so that its uses can be told equal."""
        if shape is None or len(shape) > 1 or dtype not in _NAMED:
            return None
        length = shape[0] if shape else 1
        if not isinstance(length, int) or length > _MAX_NAMED:
            return None
        return tuple([self._fresh(low=None) for _ in range(length)])

    def _by_schema(self, node: ir.Node) -> Sequence[Fact]:
        """Facts by ONNX's own inference function."""
        from graphopt.proto.schemas import infer_node  # onnx takes 0.15 s to import

        if bodies(node):
            return ()
        names: dict[str, Sym] = {}
        inputs: list[tuple[ir.DataType | None, tuple[int | str | None, ...] | None] | None] = []
        contents: dict[int, list[int]] = {}
        for index, value in enumerate(node.inputs):
            if value is None:
                inputs.append(None)
                continue
            dtype, shape, data = self._facts[value]
            if dtype is None:
                return ()
            inputs.append((dtype, None if shape is None else tuple([_named(dim, names) for dim in shape])))
            if data is not None and shape is not None and len(shape) == 1 and dtype == ir.DataType.INT64:
                numbers = [item for item in data if isinstance(item, int)]
                if len(numbers) == len(data):
                    contents[index] = numbers
        inferred = infer_node(node, self._version(node, node.domain), inputs, contents)
        return [
            (dtype, None if shape is None else tuple([self._symbolic(dim, names) for dim in shape]), None)
            for dtype, shape in inferred or ()
        ]

    def _symbolic(self, dim: int | str | None, names: Mapping[str, Sym]) -> Dim:
        if isinstance(dim, int):
            return dim
        return self._fresh() if dim is None else names.get(dim) or self._fresh()

    def _fresh(self, low: int | None = 0) -> Sym:
        """A symbol equal to nothing but itself."""
        self._count += 1
        return symbol(f"\1{self._count}", label=f"?{self._count}", low=low)

    def _opset(self, node: ir.Node) -> int:
        return self._version(node, "")

    def _version(self, node: ir.Node, domain: str) -> int:
        if node.version is not None:
            return node.version
        if self._opsets is None:
            functions = self._model.functions.values()
            self._opsets = {
                scope.graph: function.opset_imports
                for function in functions
                for scope in walk.within(walk.Scope(function.graph, function.opset_imports, function))
            }
        graph = node.graph
        imports = self._model.opset_imports if graph is None else self._opsets.get(graph, self._model.opset_imports)
        return imports.get(domain, 1)


def _affected(values: Iterable[ir.Value], holders: Callable[[ir.Node], Iterable[ir.Node]]) -> set[ir.Value]:
    """``values`` and what is computed from them, in subgraphs too."""
    affected = set(values)
    waiting = list(affected)
    while waiting:
        for reader in waiting.pop().consumers():
            for holder in holders(reader):
                fresh = [output for output in holder.outputs if output not in affected]
                affected.update(fresh)
                waiting += fresh
    return affected


def _dependencies(node: ir.Node) -> Sequence[ir.Value | None]:
    """The inputs of a control-flow node and what its bodies give."""
    return [*node.inputs, *[output for body in bodies(node) for output in body.outputs]]


def _pick(items: list[_T | None], index: int) -> _T | None:
    return items[index] if index < len(items) else None


def _of_tensor(tensor: ir.TensorProtocol) -> Fact:
    dtype = tensor.dtype
    shape = cast("tuple[int, ...]", tensor.shape.dims)  # always plain integers
    if dtype not in TRACKED or len(shape) > 1 or (shape and shape[0] > MAX_ELEMENTS):
        return dtype, shape, None
    try:
        contents = tensor.numpy()
    except ValueError:  # fewer bytes than the shape asks for
        return dtype, shape, None
    return dtype, shape, tuple([int(item) for item in contents.reshape(-1).tolist()])


def _named(dim: Dim, names: dict[str, Sym]) -> int | str:
    if isinstance(dim, int):
        return dim
    for name, known in names.items():
        if known == dim:
            return name
    name = f"s{len(names)}"
    names[name] = dim
    return name
