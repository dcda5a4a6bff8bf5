"""Turns a graph into a :class:`~graphopt.torch.program.Program` and the constants that it reads."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final

import onnx_ir as ir
import torch

from graphopt import walk
from graphopt.analysis import constants
from graphopt.errors import ModelError
from graphopt.torch import registry
from graphopt.torch.node import OpNode
from graphopt.torch.program import Body, Program, Step
from graphopt.torch.values import Ints, Run, from_ir, tensor

__all__ = ["Compiled", "compile_model"]

_MOST_SIZES: Final = 64  # elements of a constant that may be sizes
_MOST_FOLDED: Final = 1 << 26  # bytes of a constant that is computed beforehand
_SIZES_FROM: Final = frozenset({"Shape", "Size"})
_BUILD: Final = Run(training=False, device=torch.device("cpu"))


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program and what it reads.

    Attributes:
        program: Its inputs are the graph's.
        reads: The slot of each constant.
        folded: Constants that were computed from others.
    """

    program: Program
    reads: dict[ir.Value, int]
    folded: dict[ir.Value, torch.Tensor]


def compile_model(model: ir.Model, inputs: Sequence[ir.Value], trained: Callable[[ir.Value], bool]) -> Compiled:
    """Compiles a model without functions.

    Args:
        model: The model.
        inputs: Its inputs, in the order of the program's.
        trained: Whether a constant may change, so that nothing is computed from it beforehand.

    Raises:
        UnsupportedOperator: The table has no row for a node.
    """
    known = _Known(trained)
    writer = _Writer(known, model.opset_imports, None)
    for value in inputs:
        writer.inputs.append(writer.define(value))
    program = writer.finish(model.graph)
    reads = {value: slot for value, slot in writer.slots.items() if known.is_constant(value)}
    return Compiled(program, reads, known.folded)


class _Known:
    """What is known of values before a run."""

    def __init__(self, trained: Callable[[ir.Value], bool]) -> None:
        self.trained = trained
        self.folded: dict[ir.Value, torch.Tensor] = {}
        self.sizes: dict[ir.Value, Ints] = {}
        self.aliases: dict[ir.Value, ir.Value] = {}
        self._tensors: dict[ir.Value, torch.Tensor | None] = {}

    def is_constant(self, value: ir.Value) -> bool:
        """Whether a module holds the value."""
        return value in self.folded or _tensor_of(value) is not None

    def tensor(self, value: ir.Value | None) -> torch.Tensor | None:
        """The tensor that a value always holds, unless it is trained."""
        if value is None:
            return None
        value = self.aliases.get(value, value)
        if value in self.folded:
            return self.folded[value]
        if value not in self._tensors:
            source = _tensor_of(value)
            overridable = value.is_graph_input()
            fixed = source is not None and not overridable and not self.trained(value)
            self._tensors[value] = from_ir(source) if fixed and source is not None else None
        return self._tensors[value]

    def holds(self, value: ir.Value | None) -> bool:
        """Whether a value is a constant, by whatever name."""
        return value is not None and self.is_constant(self.aliases.get(value, value))

    def alias(self, node: ir.Node) -> bool:
        """Whether the node only gives a constant another name, which then stands for the constant from now on."""
        if node.op_type != "Identity" or node.domain or len(node.inputs) != 1 or node.inputs[0] is None:
            return False
        source = self.aliases.get(node.inputs[0], node.inputs[0])
        if not self.is_constant(source):
            return False
        self.aliases[node.outputs[0]] = source
        return True

    def ints(self, value: ir.Value) -> Ints | None:
        """The same as sizes, where it can be taken for sizes."""
        value = self.aliases.get(value, value)
        if value not in self.sizes:
            found = self.tensor(value)
            if found is None or found.ndim > 1 or found.numel() > _MOST_SIZES:
                return None
            if found.dtype not in (torch.int64, torch.int32, torch.bool):
                return None
            self.sizes[value] = Ints(tuple(found.reshape(-1).tolist()), found.ndim, found.dtype)
        return self.sizes[value]


def _tensor_of(value: ir.Value) -> ir.TensorProtocol | None:
    """An initializer's tensor, overridable or not, or a Constant node's."""
    return value.const_value if value.is_initializer() else constants.constant(value)


class _Writer:
    """Writes the steps of one graph."""

    def __init__(self, known: _Known, opsets: Any, outer: _Writer | None) -> None:
        self.known = known
        self.opsets = opsets
        self.outer = outer
        self.slots: dict[ir.Value, int] = {}
        self.literals: dict[ir.Value, int] = {}
        self.hosted: set[ir.Value] = set() if outer is None else set(outer.hosted)
        self.inputs: list[int] = []
        self.captured: list[ir.Value] = []
        self._count = 1  # slot 0 is None
        self._steps: list[Step] = []

    def define(self, value: ir.Value | None) -> int:
        """A new slot for a value."""
        slot = self._count
        self._count += 1
        if value is not None:
            self.slots[value] = slot
        return slot

    def finish(self, graph: ir.Graph) -> Program:
        """Writes everything and computes when slots can be forgotten."""
        for node in graph:
            self._write(node)
        outputs = tuple(self._read(value) for value in graph.outputs)
        literals = tuple((slot, self.known.sizes[value]) for value, slot in self.literals.items())
        kept = {*outputs, *self.literals.values(), 0}
        kept.update(slot for value, slot in self.slots.items() if self.known.is_constant(value))
        return Program(_forgetting(self._steps, kept), self._count, tuple(self.inputs), outputs, literals)

    def _read(self, value: ir.Value) -> int:
        """The slot of a value; what an outer graph holds is captured."""
        value = self.known.aliases.get(value, value)
        if value not in self.slots:
            slot = self.define(value)
            if self.outer is not None:
                self.captured.append(value)
                self.inputs.append(slot)
            elif not self.known.is_constant(value):
                raise ModelError(f"value '{value.name}' is read and never computed")
        return self.slots[value]

    def _read_sizes(self, value: ir.Value) -> int:
        value = self.known.aliases.get(value, value)
        if value not in self.literals:
            self.literals[value] = self.define(None)
        return self.literals[value]

    def _write(self, node: ir.Node) -> None:
        if constants.constant(node.outputs[0] if node.outputs else None) is not None:
            return
        if self.known.alias(node):
            return
        extra: list[ir.Value] = []
        viewed = OpNode(
            node, self._opset(node), self.known.tensor, lambda graph: self._body(graph, extra), self.known.holds
        )
        row = registry.find(viewed)
        if row is None:
            why = f"the torch bridge does not know this operator in opset {viewed.opset}"
            raise viewed.refuse(why)
        call = row.make(viewed)
        if walk.subgraphs(node) or not self._fold(node, row, call):
            self._steps.append(self._step(node, viewed, row, call, extra))

    def _opset(self, node: ir.Node) -> int:
        domain = node.domain
        version = node.version or self.opsets.get(domain) or self.opsets.get("" if domain == "ai.onnx" else domain)
        return version or 1

    def _step(
        self, node: ir.Node, viewed: OpNode, row: registry.Row, call: Callable[..., Any], extra: list[ir.Value]
    ) -> Step:
        given = [value for value in node.inputs if value is not None]
        host = registry.host_row(viewed)
        on_host = host is not None and bool(given) and all(self._may_be_sizes(value) for value in given)
        on_host = on_host and any(value in self.hosted for value in given)
        inputs = []
        mixed = False
        for place, value in enumerate(node.inputs):
            if value is None:
                inputs.append(0)
            elif (on_host or place in row.sizes) and self.known.ints(value) is not None:
                inputs.append(self._read_sizes(value))
                mixed |= place not in row.sizes
            else:
                inputs.append(self._read(value))
                mixed |= value in self.hosted and place not in row.sizes
        inputs.extend(self._read(value) for value in extra)
        outputs = tuple(self.define(value if value.name else None) for value in node.outputs)
        if on_host or node.op_type in _SIZES_FROM:
            self.hosted.update(node.outputs)
        sizes = row.sizes
        if extra:  # captured values may be sizes, and stay so
            sizes = sizes | frozenset(range(len(node.inputs), len(inputs)))
        return Step(
            call, tuple(inputs), outputs, (), row.wants_run, mixed or on_host, sizes, host if on_host else None,
            viewed.label,
        )  # fmt: skip

    def _may_be_sizes(self, value: ir.Value) -> bool:
        return value in self.hosted or self.known.ints(value) is not None

    def _fold(self, node: ir.Node, row: registry.Row, call: Callable[..., Any]) -> bool:
        """Computes a node now if everything it reads is fixed."""
        if not row.pure or not node.outputs or (not node.inputs and row.wants_run):
            return False
        inputs: list[Any] = []
        for value in node.inputs:
            found = self.known.tensor(value)
            if value is not None and found is None:
                return False
            inputs.append(found)
        with torch.no_grad():
            result = call(*inputs, run=_BUILD) if row.wants_run else call(*inputs)
        results = result if type(result) is tuple else (result,)
        made = [tensor(one, _BUILD.device) for one in results]
        if not all(isinstance(one, torch.Tensor) for one in made):
            return False
        read = sum(one.nbytes for one in inputs if one is not None)
        if sum(one.nbytes for one in made) > max(_MOST_FOLDED, 2 * read):
            return False
        for value, one in zip(node.outputs, made, strict=False):
            self.known.folded[value] = one.contiguous()
        return True

    def _body(self, graph: ir.Graph, extra: list[ir.Value]) -> Body:
        """Compiles a subgraph; what it captures is added to ``extra``."""
        writer = _Writer(self.known, self.opsets, self)
        for value in graph.inputs:
            writer.inputs.append(writer.define(value))
        program = writer.finish(graph)
        extra.extend(value for value in writer.captured if value not in extra)
        return Body(program, tuple(extra.index(value) for value in writer.captured))


def _forgetting(steps: Sequence[Step], kept: set[int]) -> tuple[Step, ...]:
    """The same steps, each with the slots that nobody reads after it."""
    last: dict[int, int] = {}
    for place, step in enumerate(steps):
        for slot in (*step.outputs, *step.inputs):
            last[slot] = place
    done: dict[int, list[int]] = collections.defaultdict(list)
    for slot, place in last.items():
        if slot not in kept:
            done[place].append(slot)
    return tuple(dataclasses.replace(step, done=tuple(done[place])) for place, step in enumerate(steps))
