"""Refits the layers of a pruned model so that it computes what the original computed, from inputs alone.

Layer by layer, in the order of the graph: what the original computes on calibration inputs is the target, what the
pruned model (all earlier layers refitted) feeds into the layer is the data, and ridge regression gives the weight and
the bias. No labels, no gradients. After He, Zhang and Sun, *Channel Pruning for Accelerating Very Deep Neural Networks*
(arXiv 1707.06168), whose sampling of positions and whose correction of residual sums are used here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from graphopt.channels.atoms import Mask
from graphopt.channels.groups import ChannelGraph
from graphopt.channels.workpiece import Workpiece
from graphopt.pruning.moments import Fit, best_fit
from graphopt.pruning.reconstruction.biases import beta
from graphopt.pruning.reconstruction.gathering import gather
from graphopt.pruning.reconstruction.tasks import Task, find_tasks, tie
from graphopt.pruning.reconstruction.writing import write
from graphopt.pruning.rundirectory import Store
from graphopt.pruning.stages import Feeds, Stages

if TYPE_CHECKING:
    from graphopt.pruning.depth.blocks import Block

__all__ = ["Refit", "reconstruct"]

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
Progress = Callable[[str, float | None], None]


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
    blocks: Iterable[Block] = (),
) -> list[Refit]:
    """Refits what comes after removed channels and blocks, in the model of ``workpiece``.

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
        blocks: Residual blocks of the original that the copy lacks, too.

    Returns:
        What became of each layer, in order.

    Raises:
        ModelError: ONNX Runtime cannot run the model on the inputs.
    """
    tasks = list(find_tasks(graph, gone, blocks, workpiece, new_biases))
    if not tasks:
        return []
    running = {"provider": provider, "threads": threads}
    original = Stages(graph.model, [task.original.node for task in tasks], batches, **running)  # type: ignore[arg-type]
    # What reads less without a block still waits for the stage in which the original has what to compare with.
    least = {workpiece.node(node): stage for node, stage in original.stage.items()}
    cuts = [task.pruned.node for task in tasks]
    pruned = Stages(workpiece.model, cuts, batches, least=least, **running)  # type: ignore[arg-type]
    by_stage: dict[int, list[Task]] = {}
    for task in tasks:
        by_stage.setdefault(pruned.stage[task.pruned.node], []).append(task)
    for own in by_stage.values():
        tie(own)
    refits: list[Refit] = []
    fits: dict[Task, Fit | None] = {}
    last = max(by_stage)
    _consume(original.run(0))
    for stage in range(1, last + 1):
        _consume(pruned.run(stage - 1))
        own = by_stage.get(stage, [])
        kept = {task: None if store is None else store.load((task.leader or task).key) for task in own}
        gather([task for task in own if kept[task] is None], original, pruned, stage, len(batches), seed)
        for task in own:
            if progress is not None:
                progress("reconstruct", len(refits) / len(tasks))
            found = kept[task]
            leader = task.leader or task
            if leader is task:
                fits[task] = _fit(task) if found is None else Fit.from_arrays(found)
            fit = fits[leader]
            if leader is task and found is None and store is not None and fit is not None:
                store.save(task.key, fit.to_arrays())
            refits.append(_report(task, fit))
            if fit is not None:
                write(task, fit, workpiece)
    return refits


def _consume(iterator: Iterator[Any]) -> None:
    for _ in iterator:
        pass


def _fit(task: Task) -> Fit | None:
    """The best fit to what was gathered; ``None`` where that is too little, or beyond what floats hold."""
    layer, train, held_out = task.pruned, task.train, task.held_out
    task.train = task.held_out = None
    if train is None or held_out is None or not train.count or not held_out.count:
        return None
    weight = layer.matrix().astype(np.float64) * layer.alpha
    with np.errstate(over="ignore", invalid="ignore"):
        fit = best_fit(train, held_out, weight, intercept=task.intercept, movable=not task.shared)
        found = [layer.from_matrix(fit.weight / layer.alpha)]
        if fit.bias is not None:
            found.append((fit.bias / (beta(layer.node) or 1.0)).astype(layer.weight.dtype.numpy()))
    return fit if all(np.isfinite(array.astype(np.float64)).all() for array in found) else None


def _report(task: Task, fit: Fit | None) -> Refit:
    if fit is None:
        return Refit(task.pruned.name, 0, None, math.nan, math.nan)
    return Refit(task.pruned.name, fit.rows, fit.ridge, fit.before, fit.after)
