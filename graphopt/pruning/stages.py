"""Runs a model piece by piece over calibration batches, so that layers can be changed between the pieces.

The nodes are cut into *stages* at chosen layers: a layer stands one stage after everything it reads, any other node in
the latest stage of what it reads. Constant nodes are of no stage but part of each that reads them, since shapes follow
from them. Each stage runs once on each batch, from what earlier stages left, so that the cost
is that of one forward pass however many layers there are.
"""

from __future__ import annotations

import collections
import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
import onnx_ir as ir

from graphopt import runtime, walk
from graphopt.errors import ModelError

__all__ = ["Cache", "Feeds", "Stages", "observe"]

Feeds = Mapping[str, Any]

_CONFIG = {"session.force_spinning_stop": "1"}
"""Idle threads of ONNX Runtime would spin and keep the cores from the linear algebra in between."""
_IN_MEMORY = 1 << 29
"""Bytes of activations that stay in memory; more go to a temporary file."""


class Cache:
    """What earlier stages left, by batch and name; beyond a limit in temporary files."""

    def __init__(self, limit: int = _IN_MEMORY) -> None:
        self._arrays: dict[tuple[int, str], Any] = {}
        self._left = limit

    def put(self, batch: int, name: str, array: Any) -> None:
        """Keeps an array (or what else ONNX Runtime gives)."""
        size = getattr(array, "nbytes", 0)
        if size > self._left and size and array.dtype.kind in "fiub":
            array = _to_file(array)
        else:
            self._left -= size
        self._arrays[batch, name] = array

    def get(self, batch: int, name: str) -> Any:
        """What was kept."""
        return self._arrays[batch, name]

    def drop(self, name: str, batches: int) -> None:
        """Forgets a name."""
        for batch in range(batches):
            array = self._arrays.pop((batch, name), None)
            if not isinstance(array, np.memmap):
                self._left += getattr(array, "nbytes", 0)


def _to_file(array: np.ndarray[Any, Any]) -> np.memmap[Any, Any]:
    file: IO[bytes]
    with tempfile.TemporaryFile(prefix="graphopt-") as file:
        mapped = np.memmap(file, array.dtype, "w+", shape=array.shape)
    mapped[...] = array
    return mapped


class Stages:
    """One model, its stages, and what they have computed so far.

    Args:
        model: The model; the weights of layers may be replaced until their stage has run.
        cuts: Layers of its main graph that begin a stage.
        batches: What to run it on.
        provider: Execution provider.
        threads: Intra-op threads.
        least: Stages before which nodes do not stand, whatever they read.
    """

    def __init__(
        self,
        model: ir.Model,
        cuts: Iterable[ir.Node],
        batches: Sequence[Feeds],
        *,
        least: Mapping[ir.Node, int] | None = None,
        provider: str = "cpu",
        threads: int | None = None,
    ) -> None:
        self._model = model
        self._batches = batches
        self._session: dict[str, Any] = {"provider": provider, "threads": threads, "config": _CONFIG}
        self._cache = Cache()
        self.stage: dict[ir.Node, int] = {}
        self._nodes: dict[int, list[ir.Node]] = collections.defaultdict(list)
        self._last: dict[ir.Value, int] = {}
        self._sort(set(cuts), least or {})
        for index, feeds in enumerate(batches):
            for name, array in feeds.items():
                self._cache.put(index, name, array)

    def _sort(self, cuts: set[ir.Node], least: Mapping[ir.Node, int]) -> None:
        for node in self._model.graph:
            if _is_constant(node):
                continue
            read = _reads(node)
            stage = max((self.stage_of(value) for value in read), default=0) + (node in cuts)
            stage = max(stage, least.get(node, 0))
            self.stage[node] = stage
            self._nodes[stage].append(node)
            for value in read:
                self._last[value] = max(self._last.get(value, 0), stage)

    def stage_of(self, value: ir.Value) -> int:
        """The stage that computes a value; 0 for what is given."""
        node = value.producer()
        return self.stage.get(node, 0) if node is not None else 0

    def available(self, value: ir.Value, batch: int) -> Any:
        """A value that an earlier stage computed and a later one needs."""
        return self._cache.get(batch, value.name or "")

    def is_kept(self, value: ir.Value, stage: int) -> bool:
        """Whether :meth:`available` has the value after the stages before ``stage``."""
        given = value.is_graph_input() and not value.is_initializer()
        computed = value.producer() in self.stage and self.stage_of(value) < stage <= self._last.get(value, -1)
        return given or computed

    def run(self, stage: int, extra: Sequence[ir.Value] = ()) -> Iterator[dict[ir.Value, Any]]:
        """Runs one stage on every batch; call it for each stage, in order.

        Yields:
            For each batch the values of ``extra``, which this stage or an earlier one computes.

        Raises:
            ModelError: ONNX Runtime cannot run the part.
        """
        own = set(self._nodes.get(stage, ()))
        passed_on = [
            value for node in self._nodes.get(stage, ()) for value in node.outputs if self._last.get(value, -1) > stage
        ]
        fresh = [value for value in extra if value.producer() in own]
        outputs = list(dict.fromkeys([*passed_on, *fresh]))
        session = inputs = None
        for index in range(len(self._batches)):
            found: dict[ir.Value, Any] = {}
            if outputs:
                if session is None:
                    session, inputs = self._open(own, outputs, index)
                feeds = {name: self._cache.get(index, name) for name in inputs or ()}
                found = dict(zip(outputs, _run(session, [value.name or "" for value in outputs], feeds), strict=True))
                for value in passed_on:
                    self._cache.put(index, value.name or "", found[value])
            yield {value: found[value] if value in found else self.available(value, index) for value in extra}
        for value, last in self._last.items():
            if last == stage and not value.is_initializer():
                self._cache.drop(value.name or "", len(self._batches))

    def _open(self, own: set[ir.Node], outputs: Sequence[ir.Value], batch: int) -> tuple[Any, list[str]]:
        """A session of the nodes ``own``, and the names of what must be fed."""
        needed = _needed(outputs, own)
        nodes = [node for node in self._model.graph if node in needed]
        inputs: dict[ir.Value, None] = {}
        initializers: dict[ir.Value, None] = {}
        for node in nodes:
            for value in _reads(node):
                fed = value.is_graph_input() and (value.name or "") in self._batches[0]
                if value.is_initializer() and not fed:
                    initializers[value] = None
                elif value.producer() not in needed:
                    inputs[value] = None
        view = ir.GraphView(
            list(inputs),
            list(outputs),
            nodes=nodes,
            initializers=list(initializers),
            name="stage",
            opset_imports=self._model.opset_imports,
        )
        graph = view.clone()
        for value in graph.inputs:
            array = self._cache.get(batch, value.name or "")
            if isinstance(array, np.ndarray) and array.dtype.kind != "O":
                value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
                value.shape = ir.Shape(self._shape(value.name or "", array))
        for value in graph.outputs:
            value.shape = None
        part = ir.Model(graph, ir_version=self._model.ir_version, functions=list(self._model.functions.values()))
        return runtime.open_session(part, **self._session), [value.name or "" for value in inputs]

    def _shape(self, name: str, array: np.ndarray[Any, Any]) -> list[int | None]:
        """What to say of a shape: of a list of sizes its length, without which Resize does not load."""
        if array.ndim == 1 and array.dtype.kind == "i":
            lengths = {np.shape(self._cache.get(batch, name)) for batch in range(len(self._batches))}
            if len(lengths) == 1:
                return [*array.shape]
        return [None] * array.ndim


def observe(
    model: ir.Model,
    values: Sequence[ir.Value],
    batches: Iterable[Feeds],
    *,
    provider: str = "cpu",
    threads: int | None = None,
) -> Iterator[list[Any]]:
    """Runs a model and yields, for each batch, what inner values of its main graph hold.

    Raises:
        ModelError: ONNX Runtime cannot run the model.
    """
    graph = model.graph
    inputs = [value for value in graph.inputs if not value.is_initializer()]
    listed = [value for value in graph.inputs if value.is_initializer()]
    view = ir.GraphView(
        inputs,
        list(dict.fromkeys(values)),
        nodes=list(graph),
        initializers=[*graph.initializers.values(), *listed],
        name=graph.name,
        opset_imports=model.opset_imports,
    )
    part = ir.Model(view.clone(), ir_version=model.ir_version, functions=list(model.functions.values()))
    session = runtime.open_session(part, provider=provider, threads=threads, config=_CONFIG)
    needed = {entry.name for entry in session.get_inputs()}
    names = [value.name or "" for value in values]
    for feeds in batches:
        yield _run(session, names, {name: array for name, array in feeds.items() if name in needed})


def _run(session: Any, names: Sequence[str], feeds: Feeds) -> list[Any]:
    with _complaining():
        results: list[Any] = session.run(list(names), dict(feeds))
    return results


@contextlib.contextmanager
def _complaining() -> Iterator[None]:
    try:
        yield
    except runtime.ort_errors() as error:
        raise ModelError(f"ONNX Runtime cannot run the model on the calibration data: {runtime.trim(error)}") from error


def _reads(node: ir.Node) -> list[ir.Value]:
    """What a node and its subgraphs read from the graph around it, each once."""
    found = dict.fromkeys(value for value in node.inputs if value is not None)
    for graph in walk.subgraphs(node):
        found.update(dict.fromkeys(walk.captures(graph)))
    return list(found)


def _is_constant(node: ir.Node) -> bool:
    return node.op_type == "Constant" and not node.domain


def _needed(outputs: Iterable[ir.Value], own: set[ir.Node]) -> set[ir.Node]:
    """The nodes among ``own`` that compute ``outputs``, and constants."""
    needed: set[ir.Node] = set()
    pending = [value.producer() for value in outputs]
    while pending:
        node = pending.pop()
        if node is None or node in needed or not (node in own or _is_constant(node)):
            continue
        needed.add(node)
        pending.extend(value.producer() for value in _reads(node))
    return needed
