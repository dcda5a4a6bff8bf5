"""The inspection of a model, as data.

The JSON form, as ``graphopt inspect --json`` prints it (bytes throughout; sizes that no shape tells are ``null``)::

    {
      "schema": "graphopt.inspect/1",
      "path": "/models/m.onnx", "file_bytes": 15618, "external": {"/models/m.data": 4900000},
      "ir_version": 8, "producer": "pytorch 2.8.0", "opsets": {"": 17}, "functions": {"pkg::Name": 12},
      "subgraphs": 0,
      "inputs": [{"name": "x", "dtype": "FLOAT", "shape": ["batch", 3, 224, 224], "optional": false}], "outputs": [...],
      "nodes": 66, "constants": 40,
      "operators": [{"operator": "Conv", "nodes": 26, "macs": ..., "flops": ..., "moved_bytes": ...}, ...],
      "parameters": 1235496, "stored": [{"dtype": "FLOAT", "tensors": 52, "elements": 1235496, "bytes": 4941984}],
      "unused_initializers": 0,
      "macs": 349151936, "flops": 706628160, "weight_bytes": 4941984, "activation_bytes": 57014368,
      "memory": 9000000,
      "at": {"batch": 1, "x[2]": 64}, "guessed": ["batch", "x[2]"], "assumed": [], "uncounted": {"my::Op": 2},
      "layers": [{"name": "conv1", "operator": "Conv", "times": 1, "macs": ..., "parameters": ...,
                  "weight_bytes": ..., "activation_bytes": ...}, ...],
      "groups": [{"name": "fire2", "nodes": 8, "macs": ..., "flops": ..., "parameters": ..., "moved_bytes": ...}],
      "largest": [{"name": "w", "dtype": "FLOAT", "shape": [64, 3, 3, 3], "bytes": 6912}],
      "folding": {"nodes": 3, "operators": {"Shape": 3}, "bytes_before": 0, "bytes_after": 24, "unsized": 0},
      "costs": [{"name": "conv1", "operator": "Conv", "within": [], "times": 1, "macs": ..., "flops": ...,
                 "parameters": ..., "weight_bytes": ..., "read_bytes": ..., "write_bytes": ...}, ...]
    }

``memory`` is the stored tensors, and what else exists at the peak of a run (:mod:`graphopt.analysis.memory`). ``nodes``
counts every scope, Constant nodes apart. Costs are of one run with the extents in ``at`` for the symbolic
dims of the inputs (``x[2]`` is a nameless one); those in ``guessed`` were not asked for. Extents that depend on data
are taken to be 1 and named in ``assumed``. ``costs`` has every node, nested ones with the control-flow nodes around
them in ``within``.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from graphopt import io, walk
from graphopt.analysis import constants, cost
from graphopt.analysis.constness import initializer_inputs_are_fixed
from graphopt.analysis.memory import peak_bytes
from graphopt.analysis.parameters import external_files, identity, parameters
from graphopt.analysis.shapes import Shapes
from graphopt.inspect.folding import Folding, would_fold
from graphopt.inspect.layers import Group, Layer, OperatorCount, groups, label, layers, operator, operators
from graphopt.verify.dims import evaluate
from graphopt.verify.feeds import Plan

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

__all__ = ["Inspection", "Port", "Stored", "StoredTensor", "inspect"]

SCHEMA = "graphopt.inspect/1"
_LARGEST = 50
_GUESSES = 12


@dataclasses.dataclass(frozen=True, slots=True)
class Port:
    """An input or output. A dim is an extent, a name, or ``None``; ``optional`` means it has a default."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None
    optional: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """The tensors stored in one element type, each counted once."""

    dtype: str
    tensors: int
    elements: int
    bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class StoredTensor:
    """One stored tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class Inspection:
    """All there is to say about a model; the module's page documents the figures.

    Prints itself in a terminal (with rich, the ten largest of everything) and in a notebook.
    """

    path: Path | None
    file_bytes: int | None
    external: Mapping[str, int]
    ir_version: int
    producer: str
    opsets: Mapping[str, int]
    functions: Mapping[str, int]
    subgraphs: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    nodes: int
    constants: int
    operators: tuple[OperatorCount, ...]
    parameters: int
    stored: tuple[Stored, ...]
    unused_initializers: int
    layers: tuple[Layer, ...]
    groups: tuple[Group, ...]
    largest: tuple[StoredTensor, ...]
    folding: Folding
    costs: cost.Costs
    memory: int
    extents: Mapping[str, int]
    guessed: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form that the module's page documents."""
        plain = {
            name: _plain(getattr(self, name))
            for name in (
                "ir_version", "producer", "opsets", "functions", "subgraphs", "inputs", "outputs", "nodes", "constants",
                "operators", "parameters", "stored", "unused_initializers", "layers", "groups", "largest", "folding",
            )
        }  # fmt: skip
        return {
            "schema": SCHEMA,
            "path": None if self.path is None else str(self.path),
            "file_bytes": self.file_bytes,
            "external": dict(self.external),
            **plain,
            "macs": self.costs.macs,
            "flops": self.costs.flops,
            "weight_bytes": self.costs.weight_bytes,
            "activation_bytes": self.costs.activation_bytes,
            "memory": self.memory,
            "at": dict(self.extents),
            "guessed": list(self.guessed),
            "assumed": list(self.costs.assumed),
            "uncounted": dict(self.costs.uncounted),
            "costs": [_cost_dict(one) for one in self.costs.nodes],
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from graphopt.inspect import render

        yield from render.terminal(self, options)

    def _repr_html_(self) -> str:
        from graphopt.inspect import render

        return render.html(self)


def inspect(
    model: str | os.PathLike[str] | ir.Model, *, shapes: Mapping[str, Sequence[int]] | None = None
) -> Inspection:
    """Say what ``model`` is made of. No float weight is read.

    Args:
        model: A path or a model, left as it is.
        shapes: Extents by input name, for the symbolic dims that costs depend on. Others are guessed, as for
            verification and benchmarks: a batch of 1, small images and sequences.

    Raises:
        ModelError: The model cannot be read.
        UsageError: ``shapes`` names no input, or contradicts the model.
    """
    path = None if isinstance(model, ir.Model) else Path(model).absolute()
    loaded = model if isinstance(model, ir.Model) else io.load(model)
    known = Shapes(loaded, believe_declared=True)
    costs, inputs, extents, guessed = _costs(loaded, known, shapes or {})
    tensors = list(_stored(loaded))
    stored = _by_dtype(tensors)
    operator_nodes = [node for node in walk.nodes(loaded) if operator(node) != "Constant"]
    return Inspection(
        path=path,
        file_bytes=None if path is None else path.stat().st_size,
        external=external_files(loaded),
        ir_version=loaded.ir_version,
        producer=" ".join(filter(None, (loaded.producer_name, loaded.producer_version))),
        opsets=dict(loaded.opset_imports),
        functions={"::".join(filter(None, key)): len(function) for key, function in loaded.functions.items()},
        subgraphs=sum(scope.owner is not None for scope in walk.scopes(loaded)),
        inputs=tuple(_port(value, value.name in loaded.graph.initializers) for value in _interface(loaded)),
        outputs=tuple(_outputs(loaded)),
        nodes=len(operator_nodes),
        constants=sum(1 for _ in walk.nodes(loaded)) - len(operator_nodes),
        operators=operators(costs.nodes),
        parameters=parameters(loaded),
        stored=stored,
        unused_initializers=sum(
            not value.uses() and not value.is_graph_output() and not value.is_graph_input()
            for scope in walk.scopes(loaded)
            for value in scope.graph.initializers.values()
        ),
        layers=layers(costs.nodes),
        groups=groups(costs.nodes),
        largest=_largest(tensors),
        folding=would_fold(loaded, known),
        costs=costs,
        memory=sum(one.bytes for one in stored) + peak_bytes(loaded, known, input_shapes=inputs),
        extents=extents,
        guessed=guessed,
    )


def _costs(
    model: ir.Model, known: Shapes, shapes: Mapping[str, Sequence[int]]
) -> tuple[cost.Costs, cost.InputShapes, dict[str, int], tuple[str, ...]]:
    """Costs at the first guess of the open extents that leaves no tensor empty, or as few as any; and that guess."""
    plan = Plan.of(model, shapes)
    best: tuple[cost.Costs, cost.InputShapes, Mapping[str, int]] | None = None
    for guess in itertools.islice(plan.guesses(), _GUESSES):
        given = {
            entry.name: [dim if isinstance(dim, int) else evaluate(dim, guess.sizes) or 0 for dim in entry.shape]
            for entry in plan.inputs
            if entry.shape is not None and entry.name not in shapes
        }
        given.update((name, list(extents)) for name, extents in shapes.items())
        costs = cost.costs(model, known, input_shapes=given)
        if best is None or costs.empty < best[0].empty:
            best = costs, given, guess.sizes
        if not costs.empty:
            break
    assert best is not None, "a plan has at least one guess"
    free = tuple(map(_nameless, plan.open_dims.free))
    found, inputs, sizes = best
    return found, inputs, {_nameless(name): extent for name, extent in sizes.items()}, free


def _nameless(name: str) -> str:
    """``x@2``, as a dim without a name is called among feeds, in the words of people."""
    port, at, axis = name.rpartition("@")
    return f"{port}[{axis}]" if at and axis.isdecimal() else name


def _interface(model: ir.Model) -> Iterator[ir.Value]:
    """The inputs; of a model that had to list its initializers among them, only the true ones."""
    fixed = initializer_inputs_are_fixed(model)
    return (value for value in model.graph.inputs if not (fixed and value.name in model.graph.initializers))


def _outputs(model: ir.Model) -> Iterator[Port]:
    """The outputs; those of map type, which ride along beside the graph, in their places."""
    from graphopt.proto.tails import Tail

    tail = Tail.of(model)
    if tail is None:
        yield from map(_port, model.graph.outputs)
        return
    tensors = {value.name: value for value in model.graph.outputs}
    for name, info in tail.outputs:
        yield _port(tensors[name]) if info is None else Port(name, "MAP", None)


def _port(value: ir.Value, optional: bool = False) -> Port:
    kind = value.type
    dtype = kind.dtype.name if isinstance(kind, ir.TensorType) else "UNKNOWN" if kind is None else str(kind)
    shape = None if value.shape is None else tuple(_dim(dim) for dim in value.shape)
    return Port(value.name or "", dtype, shape, optional)


def _dim(dim: int | ir.SymbolicDim) -> int | str | None:
    return dim if isinstance(dim, int) else dim.value


def _stored(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    """Every stored tensor of every scope once, with a name."""
    seen: set[object] = set()
    for scope in walk.scopes(model):
        held = [(value.name, value.const_value) for value in scope.graph.initializers.values()]
        held += [
            (node.outputs[0].name, constants.tensor_of_constant_node(node))
            for node in scope.graph
            if operator(node) == "Constant"
        ]
        for name, tensor in held:
            if tensor is not None and (key := identity(tensor)) not in seen:
                seen.add(key)
                yield name or "", tensor


def _by_dtype(tensors: Sequence[tuple[str, ir.TensorProtocol]]) -> tuple[Stored, ...]:
    found: dict[str, list[ir.TensorProtocol]] = collections.defaultdict(list)
    for _, tensor in tensors:
        found[tensor.dtype.name].append(tensor)
    mix = [
        Stored(dtype, len(members), sum(one.size for one in members), sum(map(_bytes, members)))
        for dtype, members in found.items()
    ]
    return tuple(sorted(mix, key=lambda one: (-one.bytes, one.dtype)))


def _largest(tensors: Sequence[tuple[str, ir.TensorProtocol]]) -> tuple[StoredTensor, ...]:
    largest = sorted(tensors, key=lambda pair: (-_bytes(pair[1]), pair[0]))[:_LARGEST]
    return tuple(
        StoredTensor(
            name,
            tensor.dtype.name,
            tuple(tensor.shape.numpy()),
            _bytes(tensor),
        )
        for name, tensor in largest
    )


def _bytes(tensor: ir.TensorProtocol) -> int:
    """Strings have no fixed size and would have to be read."""
    return 0 if tensor.dtype == ir.DataType.STRING else tensor.nbytes


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def _cost_dict(one: cost.NodeCost) -> dict[str, Any]:
    return {
        "name": label(one.node),
        "operator": operator(one.node),
        "within": list(one.within),
        "times": one.times,
        "macs": one.macs,
        "flops": one.flops,
        "parameters": one.parameters,
        "weight_bytes": one.weight_bytes,
        "read_bytes": one.read_bytes,
        "write_bytes": one.write_bytes,
    }
