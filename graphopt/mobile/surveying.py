"""Makes the survey: the model as ONNX Runtime would divide it on a phone, provider by provider."""

from __future__ import annotations

import collections
import dataclasses
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from graphopt import io, runtime, walk
from graphopt.analysis import cost
from graphopt.analysis.constness import initializer_inputs_are_fixed
from graphopt.analysis.inlining import inlined
from graphopt.analysis.shapes import Shapes
from graphopt.interop.ort_format import IDENTIFIER, LEVELS, required_operators, to_ort_format
from graphopt.mobile.advice import advice
from graphopt.mobile.demands import Demand
from graphopt.mobile.partition import parts, refusals
from graphopt.mobile.providers import PROVIDERS, Provider
from graphopt.mobile.report import Refusal, Share, Survey
from graphopt.mobile.sight import Graph
from graphopt.names import label, operator
from graphopt.verify.dims import evaluate
from graphopt.verify.feeds import Plan

__all__ = ["survey"]

_EXAMPLES = 3
_CAST = "InsertedPrecisionFreeCast_"

Extents = Mapping[str, tuple[int, ...]]


def survey(
    model: str | os.PathLike[str] | ir.Model,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    operators: bool = False,
) -> Survey:
    """Say which nodes of ``model`` the providers of phones take: XNNPACK, NNAPI and CoreML.

    Nothing of this needs a phone, or a build of ONNX Runtime for one: operators and conditions come from the lists that
    the installed ONNX Runtime brings, and from its source. Only a run on the device says what is fast.

    Args:
        model: A path or a model, left as it is. Of a file in ONNX Runtime's own format (``.ort``) only the required
            operators can be told.
        shapes: Shapes by input name, to which these inputs are fixed. Others stay as they are, and the survey says what
            fixing them would gain.
        operators: Also list what a reduced build of ONNX Runtime must have: for the ``.ort`` and for the ``.basic.ort``
            that :func:`graphopt.save` makes of the model.

    Raises:
        ModelError: The model cannot be read, or ONNX Runtime does not load it.
        SaveError: It has more than 2 GB, or temporary files find no room.
        UsageError: ``shapes`` names no input, or contradicts the model.
        EnvironmentProblem: The installed ONNX Runtime lacks the lists, or cannot read its own format from Python.
    """
    path = None if isinstance(model, ir.Model) else Path(model).absolute()
    if path is not None and _is_ort_format(path):
        return Survey(path, None, runtime.version(), {}, (), (), required_operators([path.read_bytes()]))
    loaded = model if isinstance(model, ir.Model) else io.load(model)
    at, free = _extents(loaded, shapes or {})
    given = {name: tuple(shape) for name, shape in (shapes or {}).items()}
    outside = bool(loaded.meta.get("graphopt.external"))
    as_is = _shares(_fixed(loaded, given), at, {name: at[name] for name in free}, outside)
    fixed = _shares(_fixed(loaded, at), at, {}, outside) if free else [None] * len(as_is)
    return Survey(
        path,
        loaded.opset_imports.get(""),
        runtime.version(),
        at,
        free,
        tuple(dataclasses.replace(one, fixed=other) for one, other in zip(as_is, fixed, strict=True)),
        required_operators([to_ort_format(loaded, level=level) for level in LEVELS]) if operators else None,
    )


def _is_ort_format(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(8)[4:] == IDENTIFIER
    except OSError:
        return False  # loading it says what is wrong


def _extents(
    model: ir.Model, shapes: Mapping[str, Sequence[int]]
) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    """A shape for each input of known rank, at the likeliest extents; and the names of those that were open."""
    plan = Plan.of(model, shapes)
    guess = next(iter(plan.guesses()))
    at = {
        entry.name: tuple(dim if isinstance(dim, int) else evaluate(dim, guess.sizes) or 1 for dim in entry.shape)
        for entry in plan.inputs
        if entry.shape is not None
    }
    free = tuple(
        entry.name
        for entry in plan.inputs
        if entry.shape is not None and not all(isinstance(dim, int) for dim in entry.shape)
    )
    return at, free


def _fixed(model: ir.Model, shapes: Extents) -> ir.Model:
    """The model with inputs of these shapes, after ONNX Runtime's basic optimizations.

    Where the processor here lacks kernels (for float16), ONNX Runtime has put casts around nodes, which it does not do
    to those that a provider takes: such a model stays as it is.
    """
    copy = model.clone()
    copy.meta.update(model.meta)
    for value in copy.graph.inputs:
        if value.name is not None and value.name in shapes:
            value.shape = ir.Shape(shapes[value.name])
    with tempfile.TemporaryDirectory(prefix="graphopt-mobile-") as folder:
        plain, made = Path(folder) / "model.onnx", Path(folder) / "basic.onnx"
        io.save(copy, plain, external_data=False)
        runtime.open_session(plain.read_bytes(), optimization="basic", saved=made)  # errors name no temporary file
        basic = io.load(made.read_bytes())
    if any((node.name or "").startswith(_CAST) for node in walk.nodes(basic)):
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(copy)
        return inlined(copy) if copy.functions else copy
    return basic


def _shares(model: ir.Model, at: Extents, free: Extents, outside: bool) -> list[Share]:
    known = Shapes(model, believe_declared=True)
    costs = cost.costs(model, known, input_shapes={name: shape for name, shape in at.items() if _has(model, name)})
    macs = {one.node: (one.macs or 0) * one.times for one in costs.nodes}
    graph = Graph(known, initializer_inputs_are_fixed(model), dict(model.opset_imports), outside)
    return [_share(model, graph, provider, macs, free) for provider in PROVIDERS]


def _has(model: ir.Model, name: str) -> bool:
    return any(value.name == name for value in model.graph.inputs)


def _share(model: ir.Model, graph: Graph, provider: Provider, macs: Mapping[ir.Node, int], free: Extents) -> Share:
    left = refusals(model, graph, provider)
    reasons = _grouped(left, macs)
    taken = [node for node in macs if node not in left]
    rows = provider.operators()
    notes = {name: rows[name].note for name in sorted({operator(node) for node in taken}) if name in rows}
    return Share(
        provider.key,
        provider.name,
        len(macs),
        len(taken),
        sum(macs.values()),
        sum(macs[node] for node in taken),
        parts(model.graph, set(taken)) if provider.parts else None,
        reasons,
        advice(reasons, free, outside=graph.outside and provider.parts),
        {name: note for name, note in notes.items() if note},
    )


def _grouped(left: Mapping[ir.Node, Demand], macs: Mapping[ir.Node, int]) -> tuple[Refusal, ...]:
    groups: dict[tuple[str, str], list[ir.Node]] = collections.defaultdict(list)
    for node, unmet in left.items():
        groups[unmet.kind, unmet.says].append(node)
    found = [
        Refusal(
            kind,
            reason,
            len(nodes),
            sum(macs.get(node, 0) for node in nodes),
            dict(collections.Counter(map(operator, nodes)).most_common()),
            tuple(map(label, nodes[:_EXAMPLES])),
        )
        for (kind, reason), nodes in groups.items()
    ]
    return tuple(sorted(found, key=lambda one: (-one.macs, -one.nodes)))
