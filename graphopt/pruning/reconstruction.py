"""Refits the layers of a pruned model so that it computes what the original computed, from inputs alone.

Layer by layer, in the order of the graph: what the original computes on calibration inputs is the target, what the
pruned model (all earlier layers refitted) feeds into the layer is the data, and ridge regression gives the weight and
the bias. No labels, no gradients. After He, Zhang and Sun, *Channel Pruning for Accelerating Very Deep Neural Networks*
(arXiv 1707.06168), whose sampling of positions and whose correction of residual sums are used here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.analysis import constants
from graphopt.channels.atoms import Mask
from graphopt.channels.groups import ChannelGraph
from graphopt.channels.workpiece import Workpiece
from graphopt.pruning.layers import Layer, find_layers, layer_of
from graphopt.pruning.moments import Fit, Moments, Rows, Samples, best_fit
from graphopt.pruning.rundirectory import Store
from graphopt.pruning.stages import Feeds, Stages
from graphopt.rewrite import edit

__all__ = ["Refit", "reconstruct"]

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
Progress = Callable[[str, float | None], None]

_ROWS_PER_COLUMN = 8
_FEWEST_ROWS = 4096
_WIDEST = 8192
"""Columns beyond which the square of their number does not fit: fewer rows are used instead."""
_LARGEST = 1 << 26
"""Numbers in the rows of a layer, of which more are not kept but added up."""
_HELD_OUT = 5
"""Every so many samples, one chooses the ridge."""


@dataclasses.dataclass(frozen=True, slots=True)
class Refit:
    """How one layer came out.

    Attributes:
        layer: Its name.
        rows: Rows it was fitted on.
        ridge: Strength of the ridge; ``None`` if the weights stayed and only the bias moved.
        before: Share of the wanted results' variance that the pruned weights missed, on held-out samples.
        after: What the refitted ones miss.
    """

    layer: str
    rows: int
    ridge: float | None
    before: float
    after: float


@dataclasses.dataclass(eq=False)
class _Job:
    """A layer to refit, as it is in the original and in the pruned model.

    ``kept`` says of each axis of the result that shrinks what stays: the channels, and of a MatMul over tokens the
    tokens too. Layers that share a weight share one fit, that of their ``leader``; where others read the weight too,
    it is ``shared`` and stays, since untying it would make the model larger.
    """

    original: Layer
    pruned: Layer
    kept: Sequence[tuple[int, Indices]]
    intercept: bool
    shortcut: tuple[ir.Value, ir.Value] | None
    bounds: tuple[float | None, float | None]
    number: int
    leader: _Job | None = None
    ties: int = 1
    shared: bool = False
    train: Samples | None = None
    held_out: Samples | None = None

    @property
    def key(self) -> str:
        """Tells it from other layers, unnamed ones too."""
        return f"{self.number} {self.pruned.name}"


def reconstruct(
    graph: ChannelGraph,
    gone: Mask,
    workpiece: Workpiece,
    batches: Sequence[Feeds],
    *,
    seed: int = 0,
    provider: str = "cpu",
    threads: int | None = None,
    progress: Progress | None = None,
    store: Store | None = None,
    new_biases: bool = True,
) -> list[Refit]:
    """Refits what comes after removed channels, in the model of ``workpiece``.

    Args:
        graph: The channel graph of the original.
        gone: The atoms that were removed.
        workpiece: The original's copy, carved.
        batches: Calibration inputs.
        seed: Of the positions that are sampled.
        provider: Execution provider.
        threads: Intra-op threads.
        progress: Called with what is done and the share of it.
        store: Keeps the fits of finished layers for an interrupted run to go on from.
        new_biases: Whether layers without a bias may get one, which makes the model a little larger.

    Returns:
        What became of each layer, in order.

    Raises:
        ModelError: ONNX Runtime cannot run the model on the inputs.
    """
    jobs = list(_jobs(graph, gone, workpiece, new_biases))
    if not jobs:
        return []
    running = {"provider": provider, "threads": threads}
    original = Stages(graph.model, [job.original.node for job in jobs], batches, **running)  # type: ignore[arg-type]
    pruned = Stages(workpiece.model, [job.pruned.node for job in jobs], batches, **running)  # type: ignore[arg-type]
    by_stage: dict[int, list[_Job]] = {}
    for job in jobs:
        by_stage.setdefault(pruned.stage[job.pruned.node], []).append(job)
    for own in by_stage.values():
        _tie(own)
    refits: list[Refit] = []
    fits: dict[_Job, Fit | None] = {}
    last = max(by_stage)
    _consume(original.run(0))
    for stage in range(1, last + 1):
        _consume(pruned.run(stage - 1))
        own = by_stage.get(stage, [])
        kept = {job: None if store is None else store.load((job.leader or job).key) for job in own}
        _gather([job for job in own if kept[job] is None], original, pruned, stage, len(batches), seed)
        for job in own:
            if progress is not None:
                progress("reconstruct", len(refits) / len(jobs))
            found = kept[job]
            leader = job.leader or job
            if leader is job:
                fits[job] = _fit(job) if found is None else Fit.from_arrays(found)
            fit = fits[leader]
            if leader is job and found is None and store is not None and fit is not None:
                store.save(job.key, fit.to_arrays())
            refits.append(_report(job, fit))
            if fit is not None:
                _write(job, fit, workpiece)
    return refits


def _consume(iterator: Iterator[Any]) -> None:
    for _ in iterator:
        pass


def _jobs(graph: ChannelGraph, gone: Mask, workpiece: Workpiece, new_biases: bool) -> Iterator[_Job]:
    """The layers whose results removal changes, and which a fit can bring back."""
    changed = _Changes(graph, gone)
    for order, layer in enumerate(find_layers(graph.model.graph)):
        copy = workpiece.node(layer.node)
        pruned = layer_of(copy) if copy.graph is not None else None
        if pruned is None or not layer.is_float or not changed.by(layer.node):
            continue
        if not layer.alpha or _adds_more(pruned):
            continue
        if pruned.groups != layer.groups and layer.columns // layer.window > 1 and pruned.groups == 1:
            continue
        axes = graph.linker.of(layer.output) or ()
        places = [(number, graph.kept(axis, gone)) for number, axis in enumerate(axes)]
        kept = [(number, own) for number, own in places if own is not None]
        shortcut = _shortcut(layer, workpiece)
        bounds = _bounds(layer, 1 if shortcut is None else 2)
        yield _Job(layer, pruned, kept, _has_bias(pruned, new_biases), shortcut, bounds, order)


def _tie(jobs: Sequence[_Job]) -> None:
    """Finds the jobs of a stage that share a weight, and says which of them leads."""
    alike: dict[tuple[Any, ...], list[_Job]] = {}
    for job in jobs:
        layer, bias = job.pruned, _bias_of(job.pruned)
        build = (
            layer.node.op_type,
            layer.groups,
            layer.outputs,
            layer.columns,
            layer.weight_axes,
            layer.alpha,
            _beta(layer.node),
        )
        alike.setdefault((layer.node.inputs[1], bias, *build, job.intercept, job.bounds), []).append(job)
    for (weight, bias, *_), own in alike.items():
        if len(list(weight.uses())) == len(own):
            own[0].ties = len(own)
            for job in own[1:]:
                job.leader = own[0]
        else:
            for job in own:
                job.shared = True
        if bias is not None and (len(own) > 1 or own[0].shared) and len(list(bias.uses())) != own[0].ties:
            for job in own:
                job.intercept = False


def _bias_of(layer: Layer) -> ir.Value | None:
    """What holds the bias of a layer."""
    if layer.node.op_type == "MatMul":
        found = _bias_sum(layer.node)
        return None if found is None else found[0].inputs[found[1]]
    return layer.node.inputs[2] if len(layer.node.inputs) > 2 else None


class _Changes:
    """Which nodes of the original compute something else once channels are gone (besides lacking lanes)."""

    def __init__(self, graph: ChannelGraph, gone: Mask) -> None:
        summed: dict[ir.Node, None] = {}
        linker = graph.linker
        for one in linker.sums:
            value = one.node.inputs[one.input]
            axes = linker.of(value) if value is not None else None
            if axes and graph.size(axes[one.axis], gone)[1:] != (1, 1):
                summed[one.node] = None
        for node, over in linker.normalized.items():
            if any(graph.size(axis, gone)[1:] != (1, 1) for axis in over):
                summed[node] = None
        changed: set[ir.Value] = set()
        self._nodes: set[ir.Node] = set()
        for node in graph.model.graph:
            if node in summed or any(value in changed for value in node.inputs):
                changed.update(node.outputs)
                self._nodes.add(node)

    def by(self, node: ir.Node) -> bool:
        """Whether this one does."""
        return node in self._nodes


def _shortcut(layer: Layer, workpiece: Workpiece) -> tuple[ir.Value, ir.Value] | None:
    """What a residual sum adds to the layer's result, in the original and in the copy."""
    value = layer.output
    while True:
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output() or uses[0].node.graph is not layer.node.graph:
            return None
        node, index = uses[0].node, 1 - uses[0].idx
        if node.op_type != "Add" or node.domain:
            return None
        other, copied = node.inputs[index], workpiece.node(node).inputs[index]
        if other is None or copied is None:
            return None
        if constants.constant(other) is None:
            return other, copied
        value = node.outputs[0]  # the bias of a MatMul


def _bounds(layer: Layer, sums: int) -> tuple[float | None, float | None]:
    """Between what the activation that follows cuts off, after the layer's own bias and up to ``sums`` sums."""
    value = layer.output
    for _ in range(sums + 1):
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output() or uses[0].node.domain:
            break
        node = uses[0].node
        if node.op_type == "Relu":
            return 0.0, None
        if node.op_type == "Clip":
            ends = [constants.scalar(one) for one in (*node.inputs[1:3], None, None)[:2]]
            found = [None if end is None else float(end) for end in ends]
            return found[0], found[1]
        if node.op_type != "Add":
            break
        value = node.outputs[0]
    return None, None


def _has_bias(layer: Layer, new: bool) -> bool:
    """Whether there is a bias, or there may be a ``new`` one."""
    if layer.node.op_type == "MatMul":
        return _bias_sum(layer.node) is not None
    if not new and (len(layer.node.inputs) < 3 or layer.node.inputs[2] is None):
        return False
    return bool(_beta(layer.node)) and not _adds_more(layer)


def _beta(node: ir.Node) -> float:
    return node.attributes.get_float("beta", 1.0) if node.op_type == "Gemm" else 1.0


def _adds_more(layer: Layer) -> bool:
    """Whether the node adds something that is no bias: computed, or another number for each row."""
    added = layer.node.inputs[2] if layer.node.op_type != "MatMul" and len(layer.node.inputs) > 2 else None
    if added is None or not _beta(layer.node):
        return False
    tensor = constants.constant(added)
    if tensor is None:
        return True
    return tensor.size != 1 and (tensor.size != layer.groups * layer.outputs or tensor.shape.numpy()[-1] != tensor.size)


def _bias_sum(node: ir.Node) -> tuple[ir.Node, int] | None:
    """The Add that gives a MatMul its bias, and the number of its input that holds it."""
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output():
        return None
    add, index = uses[0].node, 1 - uses[0].idx
    tensor = constants.constant(add.inputs[index]) if add.op_type == "Add" and not add.domain else None
    weight = constants.constant(node.inputs[1])
    if tensor is None or weight is None or tensor.size != weight.shape.numpy()[1] or tensor.shape.numpy()[-1] == 1:
        return None
    return add, index


# -- gathering ---------------------------------------------------------------------------------------------------------


def _gather(jobs: Sequence[_Job], original: Stages, pruned: Stages, stage: int, batches: int, seed: int) -> None:
    """Runs the original up to ``stage`` and collects what the layers there should give for what they get."""
    wanted: dict[ir.Value, None] = {}
    for job in jobs:
        wanted[job.original.output] = None
        if job.shortcut is not None:
            theirs, ours = job.shortcut
            known = original.stage_of(theirs) == stage or original.is_kept(theirs, stage)
            if known and pruned.is_kept(ours, stage):
                wanted[theirs] = None
            else:
                job.shortcut = None
    offset = 0
    for batch, found in enumerate(original.run(stage, list(wanted))):
        count = 1
        for job in jobs:
            whole = found[job.original.output]
            y = _picked(whole, job)
            count = y.shape[0] if y.ndim else 1
            offset_by = None
            if job.shortcut is not None and found[job.shortcut[0]].shape == whole.shape:
                wanted_sum, own = _picked(found[job.shortcut[0]], job), pruned.available(job.shortcut[1], batch)
                if own.shape == y.shape:
                    y, offset_by = y + (wanted_sum - own), own
            x = pruned.available(job.pruned.input, batch)
            _add(job, x, y, offset_by, batches=batches, batch=batch, offset=offset, seed=seed)
        offset += count


def _picked(y: Array, job: _Job) -> Array:
    for axis, places in job.kept:
        y = y.take(places, axis)
    return y


def _add(
    job: _Job, x: Array, y: Array, added: Array | None, *, batches: int, batch: int, offset: int, seed: int
) -> None:
    """Collects rows of one batch; ``added`` is what comes on top of the results before the activation."""
    layer = job.pruned
    positions = layer.positions(y.shape)
    if not positions or not layer.gives(x, y.shape):
        return
    total = positions * batches
    columns = layer.columns
    limit = max(_FEWEST_ROWS, _ROWS_PER_COLUMN * columns)
    if columns > _WIDEST:
        limit = min(limit, columns // 4)
    picks: Indices | None = None
    if total > limit:
        random = np.random.default_rng([seed, job.number, batch])
        picks = np.sort(random.choice(positions, max(1, math.ceil(limit / batches)), replace=False))
    chosen = np.arange(positions) if picks is None else picks
    each = max(1, positions // max(1, y.shape[0]))
    samples = offset + chosen // each
    held_out = samples % _HELD_OUT == _HELD_OUT - 1
    if not held_out.any() and batches < _HELD_OUT:
        held_out = chosen % _HELD_OUT == _HELD_OUT - 1
    with np.errstate(over="ignore"):
        rows, results = layer.rows(x, y.shape, picks), layer.results(y, picks)
    into = job.leader or job
    if into.train is None:
        kind = Rows if min(total, limit) * columns * layer.groups <= _LARGEST else Moments
        into.train, into.held_out = (kind(layer.groups, columns, layer.outputs) for _ in range(2))
    bounds: list[Array | None] = [None, None]
    if isinstance(into.train, Rows) and job.intercept:
        top = _bias_on_top(layer) + (0.0 if added is None else layer.results(added, picks))
        bounds = [None if end is None else np.broadcast_to(end - top, results.shape) for end in job.bounds]
    for samples_of, own in ((into.train, ~held_out), (into.held_out, held_out)):
        assert samples_of is not None
        if own.any():
            cut = [None if one is None else one[:, own] for one in bounds]
            with np.errstate(over="ignore", invalid="ignore"):
                samples_of.add(rows[:, own], results[:, own], *(cut if isinstance(samples_of, Rows) else ()))


def _bias_on_top(layer: Layer) -> Array:
    """The bias that an Add after a MatMul has already, which what is fitted comes on top of; else 0."""
    found = _bias_sum(layer.node) if layer.node.op_type == "MatMul" else None
    array = None if found is None else constants.array(found[0].inputs[found[1]])
    return np.zeros(1, np.float32) if array is None else array.reshape(-1).astype(np.float32)


# -- writing back ------------------------------------------------------------------------------------------------------


def _fit(job: _Job) -> Fit | None:
    """The best fit to what was gathered; ``None`` where that is too little, or beyond what floats hold."""
    layer, train, held_out = job.pruned, job.train, job.held_out
    job.train = job.held_out = None
    if train is None or held_out is None or not train.count or not held_out.count:
        return None
    weight = layer.matrix().astype(np.float64) * layer.alpha
    with np.errstate(over="ignore", invalid="ignore"):
        fit = best_fit(train, held_out, weight, intercept=job.intercept, movable=not job.shared)
        found = [layer.from_matrix(fit.weight / layer.alpha)]
        if fit.bias is not None:
            found.append((fit.bias / (_beta(layer.node) or 1.0)).astype(layer.weight.dtype.numpy()))
    return fit if all(np.isfinite(array.astype(np.float64)).all() for array in found) else None


def _report(job: _Job, fit: Fit | None) -> Refit:
    if fit is None:
        return Refit(job.pruned.name, 0, None, math.nan, math.nan)
    return Refit(job.pruned.name, fit.rows, fit.ridge, fit.before, fit.after)


def _write(job: _Job, fit: Fit, workpiece: Workpiece) -> None:
    layer, leader = job.pruned, job.leader
    if leader is not None:
        layer.node.replace_input_with(1, leader.pruned.node.inputs[1])
    elif fit.ridge is not None:
        _set(layer.node, 1, layer.from_matrix(fit.weight / layer.alpha), workpiece, job.ties)
    if fit.bias is None:
        return
    where = _bias_sum(layer.node) if layer.node.op_type == "MatMul" else (layer.node, 2)
    assert where is not None
    node, index = where
    if leader is not None and _bias_of(layer) is not None:
        node.replace_input_with(index, _bias_of(leader.pruned))
        return
    bias: Array = fit.bias.reshape(-1)
    if node is layer.node:
        bias = (bias / _beta(node)).astype(layer.weight.dtype.numpy())
    else:
        old = constants.constant(node.inputs[index])
        assert old is not None
        array = old.numpy()
        # Targets are taken before the Add, so the fitted bias comes on top.
        bias = (array.astype(np.float64) + bias.reshape(array.shape)).astype(array.dtype)
    _set(node, index, bias, workpiece, job.ties)


def _set(node: ir.Node, index: int, contents: Array, workpiece: Workpiece, ties: int) -> None:
    """Lets a copied node, and those ``ties`` alone that share its constant, read a new one; theirs keeps the name."""
    old = node.inputs[index] if index < len(node.inputs) else None
    if old is not None and old.is_initializer() and len(list(old.uses())) == ties and not old.is_graph_output():
        old.const_value = constants.tensor(contents, old.name)
        return
    name = old.name if old is not None else f"{node.name or node.op_type}_bias"
    new = workpiece.constant(node, contents, name)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, new)
    producer = None if old is None else old.producer()
    if producer is not None and producer.op_type == "Constant" and edit.is_dead(producer):
        edit.erase(producer)
