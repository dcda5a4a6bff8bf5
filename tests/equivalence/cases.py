"""onnx's own node test cases, and variants of each that make other passes act on it."""

from __future__ import annotations

import dataclasses
import functools
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["VARIANTS", "Case", "collect", "sample"]


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and what to feed it."""

    name: str
    model: onnx.ModelProto
    feeds: Mapping[str, Any]


@functools.cache
def collect() -> tuple[Case, ...]:
    """All cases of the installed onnx."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overflow and the like, which the cases are about
        found = collect_testcases(None)
    return tuple(Case(case.name, case.model, dict(_feeds(case))) for case in found if case.model)


def sample(count: int, seed: int = 0) -> tuple[Case, ...]:
    """A seeded choice of the cases."""
    return tuple(random.Random(seed).sample(collect(), count))


def _feeds(case: Any) -> Iterator[tuple[str, Any]]:
    for value, contents in zip(case.model.graph.input, case.data_sets[0][0], strict=False):
        if isinstance(contents, onnx.TensorProto):
            yield value.name, numpy_helper.to_array(contents)
        elif isinstance(contents, np.generic):
            yield value.name, np.asarray(contents)
        else:
            yield value.name, contents


def _tensor(case: Case, value: onnx.ValueInfoProto) -> onnx.TensorProto | None:
    """The contents fed to an input as a tensor of its declared type, if it has one."""
    contents = case.feeds.get(value.name)
    if not isinstance(contents, np.ndarray) or not value.type.HasField("tensor_type"):
        return None
    made = numpy_helper.from_array(contents, value.name)
    return made if made.data_type == value.type.tensor_type.elem_type else None


def _with_constants(case: Case, *, keep: int, as_nodes: bool) -> Case | None:
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    tensors = {value.name: _tensor(case, value) for value in list(graph.input)[keep:]}
    fixed = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    if not fixed or model.ir_version < 4:
        return None
    kept = [value for value in graph.input if value.name not in fixed]
    del graph.input[:]
    graph.input.extend(kept)
    if as_nodes:
        nodes = [helper.make_node("Constant", [], [name], value=tensor) for name, tensor in fixed.items()]
        nodes += list(graph.node)
        del graph.node[:]
        graph.node.extend(nodes)
    else:
        graph.initializer.extend(fixed.values())
    return Case(case.name, model, {value.name: case.feeds[value.name] for value in kept if value.name in case.feeds})


def _all_constant(case: Case) -> Case | None:
    """Everything is known: the whole graph may fold."""
    return _with_constants(case, keep=0, as_nodes=False)


def _weights(case: Case) -> Case | None:
    """All inputs but the first are initializers."""
    return _with_constants(case, keep=1, as_nodes=False)


def _constant_nodes(case: Case) -> Case | None:
    """All inputs but the first are Constant nodes."""
    return _with_constants(case, keep=1, as_nodes=True)


def _imports_onnx(model: onnx.ModelProto, least: int) -> bool:
    return any(one.domain == "" and one.version >= least for one in model.opset_import)


def _only_tensors(model: onnx.ModelProto) -> bool:
    return all(value.type.HasField("tensor_type") for value in [*model.graph.input, *model.graph.output])


def _branch(case: Case) -> Case | None:
    """The graph is both branches of an If and captures the inputs; the condition is fed."""
    if not _imports_onnx(case.model, 14) or not _only_tensors(case.model):
        return None
    branches = []
    for prefix in ("then_", "else_"):
        inner = onnx.compose.add_prefix_graph(case.model.graph, prefix)
        links = [helper.make_node("Identity", [value.name], [prefix + value.name]) for value in case.model.graph.input]
        body = helper.make_graph(
            [*links, *inner.node], f"{prefix}branch", [], inner.output, inner.initializer, value_info=inner.value_info
        )
        branches.append(body)
    names = [value.name for value in case.model.graph.output]
    node = helper.make_node("If", ["which_branch"], names, then_branch=branches[0], else_branch=branches[1])
    condition = helper.make_tensor_value_info("which_branch", onnx.TensorProto.BOOL, [])
    graph = helper.make_graph([node], "outer", [*case.model.graph.input, condition], case.model.graph.output)
    return Case(case.name, _rebuilt(case.model, graph, []), {**case.feeds, "which_branch": np.asarray(True)})


def _function(case: Case) -> Case | None:
    """The graph is a model-local function."""
    graph = case.model.graph
    if not _imports_onnx(case.model, 10) or graph.sparse_initializer:
        return None
    constants = [helper.make_node("Constant", [], [one.name], value=one) for one in graph.initializer]
    inputs, results = [one.name for one in graph.input], [one.name for one in graph.output]
    function = helper.make_function(
        "wrapped", "Body", inputs, results, [*constants, *graph.node], case.model.opset_import
    )
    call = helper.make_node("Body", inputs, results, domain="wrapped")
    outer = helper.make_graph([call], "outer", graph.input, graph.output)
    return Case(case.name, _rebuilt(case.model, outer, [function]), case.feeds)


def _rebuilt(model: onnx.ModelProto, graph: onnx.GraphProto, functions: list[onnx.FunctionProto]) -> onnx.ModelProto:
    imports = list(model.opset_import)
    if functions:
        imports.append(helper.make_opsetid("wrapped", 1))
    return helper.make_model(
        graph, opset_imports=imports, functions=[*functions, *model.functions], ir_version=max(model.ir_version, 8)
    )


VARIANTS: Mapping[str, Callable[[Case], Case | None]] = {
    "plain": lambda case: case,
    "all-constant": _all_constant,
    "weights": _weights,
    "constant-nodes": _constant_nodes,
    "branch": _branch,
    "function": _function,
}
"""Each turns a case into another of the same meaning, or ``None`` where that cannot be written."""
