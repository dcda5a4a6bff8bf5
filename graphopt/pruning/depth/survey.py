"""What reads what in the main graph of a model, what dies with it, and what that saves."""

from __future__ import annotations

import collections
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence

import onnx_ir as ir

from graphopt import walk
from graphopt.analysis import constants
from graphopt.analysis.constants import FLOAT_TYPES
from graphopt.analysis.constness import initializer_inputs_are_fixed
from graphopt.analysis.cost import costs
from graphopt.analysis.parameters import identity, is_parameter_dtype, tensor_bytes
from graphopt.analysis.shapes import Shapes
from graphopt.channels.units import Saving

__all__ = ["Survey"]

_SHAPE_ONLY = frozenset({"Shape", "Size"})


class Survey:
    """What is known of a model while blocks are looked for, and for as long as they live.

    Attributes:
        model: The model.
    """

    def __init__(self, model: ir.Model, input_shapes: Mapping[str, Sequence[int]] | None = None) -> None:
        self.model = model
        self.input_shapes = input_shapes
        self.shapes = Shapes(model)
        self._fixed = initializer_inputs_are_fixed(model)
        self._position = {node: index for index, node in enumerate(model.graph)}
        self._owner: dict[ir.Graph, ir.Node] = {}
        self._captured: dict[ir.Node, list[ir.Value]] = {}
        self._macs: dict[ir.Node, int] | None = None
        self._sharers: collections.Counter[object] | None = None
        for node in model.graph:
            for graph in walk.subgraphs(node):
                self._captured.setdefault(node, []).extend(walk.captures(graph))
                self._owner.update((scope.graph, node) for scope in walk.within(walk.Scope(graph, {})))

    def position(self, node: ir.Node) -> int:
        """The place of a node in the main graph."""
        return self._position[node]

    def dying(self, branch: Iterable[ir.Value], sums: Iterable[ir.Node]) -> set[ir.Node]:
        """The nodes that are of no more use once ``sums`` do not read ``branch`` any more."""
        ends, adders = set(branch), set(sums)
        dead: set[ir.Node] = set()
        seen: set[ir.Node] = set()
        heap: list[tuple[int, ir.Node]] = []

        def push(value: ir.Value) -> None:
            node = value.producer()
            if node is not None and node not in seen and node in self._position:
                seen.add(node)
                heapq.heappush(heap, (-self._position[node], node))

        for value in ends:
            push(value)
        while heap:
            node = heapq.heappop(heap)[1]  # after all of its readers, which come later in the graph
            if any(self._is_read(output, dead, ends, adders) for output in node.outputs):
                continue
            dead.add(node)
            for value in self._reads(node):
                push(value)
        return dead

    def saving(self, gone: Iterable[ir.Node]) -> Saving:
        """What goes with the nodes ``gone`` of the main graph."""
        nodes = set(gone)
        parameters = size = 0
        for tensor in self._tensors(nodes):
            parameters += tensor.size if is_parameter_dtype(tensor.dtype) else 0
            size += tensor_bytes(tensor.shape.numpy(), tensor.dtype)
        work = self._work()
        return Saving(parameters, size, sum(work.get(node, 0) for node in nodes))

    def totals(self) -> Saving:
        """All that the main graph has and does."""
        return self.saving(self._position)

    def between(self, sources: Sequence[ir.Value], branch: Sequence[ir.Value]) -> set[ir.Node]:
        """The nodes that carry the results of one node to ``branch``; none if a term of it does not depend on them."""
        producer = sources[0].producer()
        start = -1 if producer is None else self._position[producer]
        window: set[ir.Node] = set()
        stack = [value.producer() for value in branch]
        while stack:
            node = stack.pop()
            if node is None or node in window or self._position.get(node, -1) <= start:
                continue
            window.add(node)
            stack.extend(value.producer() for value in self._reads(node))
        carrying = set(sources)
        carriers: set[ir.Node] = set()
        for node in sorted(window, key=self._position.__getitem__):
            if not node.domain and node.op_type in _SHAPE_ONLY:
                continue
            if not carrying.isdisjoint(self._reads(node)):
                carriers.add(node)
                carrying.update(node.outputs)
        return carriers if carrying.issuperset(branch) else set()

    def _reads(self, node: ir.Node) -> list[ir.Value]:
        return [value for value in (*node.inputs, *self._captured.get(node, ())) if value is not None]

    def _is_read(self, value: ir.Value, dead: set[ir.Node], ends: set[ir.Value], sums: set[ir.Node]) -> bool:
        """Whether anything that stays reads ``value``."""
        if value.is_graph_output():
            return True
        for use in value.uses():
            assert use.node.graph is not None
            reader = self._owner.get(use.node.graph, use.node) if use.node not in self._position else use.node
            if reader not in dead and not (reader in sums and value in ends):
                return True
        return False

    def learns(self, nodes: Iterable[ir.Node]) -> bool:
        """Whether a node reads a weight, and not only numbers such as the 0.044715 of a GELU."""
        read = [value for node in nodes for value in self._reads(node)]
        found = [value.const_value if self._fixed else constants.constant(value) for value in read]
        return any(tensor is not None and tensor.size > 1 and tensor.dtype in FLOAT_TYPES for tensor in found)

    # -- what it costs -----------------------------------------------------------------------------------------------

    def _work(self) -> dict[ir.Node, int]:
        """The multiply-accumulates of each node of the main graph, with what it holds."""
        if self._macs is None:
            self._macs = collections.Counter()
            for cost in () if self.model.functions else costs(self.model, input_shapes=self.input_shapes).nodes:
                graph = cost.node.graph
                assert isinstance(graph, ir.Graph)
                self._macs[self._owner.get(graph, cost.node)] += (cost.macs or 0) * cost.times
        return self._macs

    def _tensors(self, gone: set[ir.Node]) -> Iterator[ir.TensorProtocol]:
        """The stored tensors that only the nodes ``gone`` read, each once."""
        if self._sharers is None:
            stored = [value.const_value for value in self.model.graph.initializers.values()]
            self._sharers = collections.Counter(identity(tensor) for tensor in stored if tensor is not None)
        lost: dict[object, tuple[ir.TensorProtocol, int]] = {}
        values = dict.fromkeys(value for node in gone for value in self._reads(node))
        for value in values:
            is_fixed = value.is_initializer() and (self._fixed or not value.is_graph_input())
            if not is_fixed or self._is_read(value, gone, set(), set()):
                continue
            tensor = value.const_value
            if tensor is not None:
                key = identity(tensor)
                lost[key] = (tensor, lost.get(key, (tensor, 0))[1] + 1)
        yield from (tensor for key, (tensor, times) in lost.items() if times == self._sharers[key])
        for node in gone:
            if node.op_type == "Constant" and not node.domain:
                held = constants.tensor_of_constant_node(node)
                if held is not None:
                    yield held
