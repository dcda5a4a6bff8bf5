"""``analyze``, ``remove`` and ``mask``: the channel graph for its users."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from graphopt import collector
from graphopt.analysis.inlining import inlined
from graphopt.channels.atoms import Mask
from graphopt.channels.groups import ChannelGraph
from graphopt.channels.interface import matcher, narrowed
from graphopt.channels.linker import Linker
from graphopt.channels.masking import cover
from graphopt.channels.slicing import cut
from graphopt.channels.units import Group, Unit
from graphopt.errors import NotEquivalent, UsageError
from graphopt.interop.kinds import Source
from graphopt.pipeline.runner import drop_initializer_inputs

if TYPE_CHECKING:
    from graphopt.channels.workpiece import Workpiece
    from graphopt.verify.result import Equivalence

__all__ = ["analyze", "mask", "prove", "remove"]


def analyze(
    source: Any, *, granularity: str = "heads", allow_interface: Iterable[str] = (), allow_loss: bool = False
) -> ChannelGraph:
    """Finds which channels of a model must go together.

    Reads names, shapes and integer constants, no float weights, in time linear in the graph. Calls of model-local
    functions are replaced by what they call, in a copy.

    Args:
        source: A path, an ``onnx_ir.Model``, an ``onnx.ModelProto`` or an ``onnx_graphsurgeon.Graph``; not changed, and
            not to be changed as long as the result is in use.
        granularity: Where an axis is heads times lanes: ``heads`` go whole, or ``head-dim``: a lane of all heads alike.
        allow_interface: Shell patterns of inputs and outputs that may become smaller too, such as ``past_*`` and
            ``present_*`` for the caches of a decoder. Nothing of the others does.
        allow_loss: Accept that a graphsurgeon graph cannot hold all of the model.

    Raises:
        ModelError: The model cannot be read.
        UsageError: There is no such granularity, or no input or output matches a pattern.
    """
    if isinstance(allow_interface, str):
        raise UsageError(
            "allow_interface takes a list of patterns", hint=f"Write allow_interface=[{allow_interface!r}]."
        )
    origin = Source.of(source, allow_loss=allow_loss)
    model = origin.original if isinstance(origin.original, ir.Model) else origin.read()
    if model.ir_version < 4:
        model = origin.read()
        drop_initializer_inputs(model)
    model = inlined(model)
    with collector.paused():
        graph = ChannelGraph(model, Linker(model, may_shrink=matcher(model, allow_interface)), granularity)
    graph.source, graph.give_back = source, origin.give_back
    return graph


def remove(model: Any, units: Iterable[Unit | Group], *, check: bool = True, **verification: Any) -> Any:
    """Removes units from every tensor that has them.

    Args:
        model: The model that was analysed, or its graph.
        units: Units of that graph; a group stands for all of its units.
        check: Compare the result with the masked model in ONNX Runtime, within the tolerance of every proof.
        verification: How: arguments of :class:`~graphopt.verify.equivalence.Verifier`, such as ``shapes``,
            ``feeds_file``, ``provider``, ``time_limit`` and ``custom_ops``.

    Returns:
        A smaller model of the kind that was analysed (a path gives an ``onnx_ir.Model``); the original is not changed.
        Large tensors are read from the original when they are needed.

    Raises:
        UsageError: The units are not of this model, or nothing would be left of a tensor.
        NotEquivalent: The result differs from the masked model: a bug, and nothing is returned.
        LimitReached: The comparison ran out of time or memory.
    """
    graph, chosen = _graph(model, units)
    gone = graph.gone(chosen)
    with collector.paused():
        result = cut(graph, gone)
    if check and gone.any():
        verdict = prove(graph, gone, result, **verification)
        if verdict.status == "unproven":
            warnings.warn(f"ONNX Runtime cannot run the model, so nothing is proven: {verdict.message}", stacklevel=2)
    return graph.give_back(result)


def prove(
    graph: ChannelGraph,
    gone: Mask,
    pruned: ir.Model,
    change: Callable[[Workpiece], None] | None = None,
    **verification: Any,
) -> Equivalence:
    """Compares a pruned model with the masked one in ONNX Runtime.

    Args:
        graph: The channel graph of the original.
        gone: The atoms that were removed.
        pruned: The model without them.
        change: What else is done to the masked model.
        verification: Arguments of :class:`~graphopt.verify.equivalence.Verifier`.

    Returns:
        The verdict: equal, or unproven where ONNX Runtime cannot run the model.

    Raises:
        NotEquivalent: They differ.
        LimitReached: The comparison ran out of time or memory.
    """
    from graphopt.verify.equivalence import Verifier

    with collector.paused():
        masked = narrowed(graph, gone, cover(graph, gone, change))
    with Verifier(masked, **verification) as verifier:
        verdict = verifier.check(pruned)
    if verdict.status == "different":
        raise NotEquivalent(
            f"the pruned model differs from the masked one: {verdict.message}",
            hint="Please report this with the model; pruning fewer groups may avoid it.",
        )
    return verdict


def mask(model: Any, units: Iterable[Unit | Group]) -> Any:
    """The model with the same sizes, in which the units count for nothing: what :func:`remove` must equal.

    Slices of constants become zero, and normalizations over a masked axis take their statistics over the other lanes.

    Args:
        model: The model that was analysed, or its graph.
        units: Units of that graph; a group stands for all of its units.

    Raises:
        UsageError: The units are not of this model, or nothing would be left of a tensor.
    """
    graph, chosen = _graph(model, units)
    gone = graph.gone(chosen)
    with collector.paused():
        return graph.give_back(cover(graph, gone))


def _graph(model: Any, units: Iterable[Unit | Group]) -> tuple[ChannelGraph, list[Unit]]:
    if isinstance(units, Group):
        units = [units]
    chosen = [unit for one in units for unit in (one.units if isinstance(one, Group) else [one])]
    strange = next((unit for unit in chosen if not isinstance(unit, Unit)), None)
    if strange is not None:
        raise UsageError(f"{strange!r} is no unit", hint="Take them from graph.groups[...].units.")
    if isinstance(model, ChannelGraph):
        return model, chosen
    if not chosen:
        return analyze(model), chosen
    graph = chosen[0].graph
    if not _is_same(graph.source, model):
        raise UsageError("the units are of another model", hint="Give the model that was analysed, or its graph.")
    return graph, chosen


def _is_same(source: Any, model: Any) -> bool:
    if isinstance(source, str | os.PathLike) and isinstance(model, str | os.PathLike):
        return os.path.abspath(source) == os.path.abspath(model)
    return source is model
