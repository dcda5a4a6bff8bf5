"""Collects what layers get and what they should give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphopt.pruning.moments import Moments, Rows
from graphopt.pruning.reconstruction.biases import bias_on_top
from graphopt.pruning.reconstruction.tasks import Task
from graphopt.pruning.stages import Stages

__all__ = ["gather"]

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

_ROWS_PER_COLUMN = 8
_FEWEST_ROWS = 4096
_WIDEST = 8192
"""Columns beyond which the square of their number does not fit: fewer rows are used instead."""
_LARGEST = 1 << 26
"""Numbers in the rows of a layer, of which more are not kept but added up."""
_HELD_OUT = 5
"""Every so many samples, one chooses the ridge."""


def gather(tasks: Sequence[Task], original: Stages, pruned: Stages, stage: int, batches: int, seed: int) -> None:
    """Runs the original up to ``stage`` and collects what the layers there should give for what they get."""
    wanted: dict[ir.Value, None] = {}
    for task in tasks:
        wanted[task.original.output] = None
        if task.shortcut is not None:
            theirs, ours = task.shortcut
            known = original.stage_of(theirs) == stage or original.is_kept(theirs, stage)
            if known and pruned.is_kept(ours, stage):
                wanted[theirs] = None
            else:
                task.shortcut = None
    offset = 0
    for batch, found in enumerate(original.run(stage, list(wanted))):
        count = 1
        for task in tasks:
            whole = found[task.original.output]
            y = _picked(whole, task)
            count = y.shape[0] if y.ndim else 1
            offset_by = None
            if task.shortcut is not None and found[task.shortcut[0]].shape == whole.shape:
                wanted_sum, own = _picked(found[task.shortcut[0]], task), pruned.available(task.shortcut[1], batch)
                if own.shape == y.shape:
                    y, offset_by = y + (wanted_sum - own), own
            x = pruned.available(task.pruned.input, batch)
            _add(task, x, y, offset_by, batches=batches, batch=batch, offset=offset, seed=seed)
        offset += count


def _picked(y: Array, task: Task) -> Array:
    for axis, places in task.kept:
        y = y.take(places, axis)
    return y


def _add(
    task: Task, x: Array, y: Array, added: Array | None, *, batches: int, batch: int, offset: int, seed: int
) -> None:
    """Collects rows of one batch; ``added`` is what comes on top of the results before the activation."""
    layer = task.pruned
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
        random = np.random.default_rng([seed, task.number, batch])
        picks = np.sort(random.choice(positions, max(1, math.ceil(limit / batches)), replace=False))
    chosen = np.arange(positions) if picks is None else picks
    each = max(1, positions // max(1, y.shape[0]))
    samples = offset + chosen // each
    held_out = samples % _HELD_OUT == _HELD_OUT - 1
    if not held_out.any() and batches < _HELD_OUT:
        held_out = chosen % _HELD_OUT == _HELD_OUT - 1
    with np.errstate(over="ignore"):
        rows, results = layer.rows(x, y.shape, picks), layer.results(y, picks)
    into = task.leader or task
    if into.train is None:
        kind = Rows if min(total, limit) * columns * layer.groups <= _LARGEST else Moments
        into.train, into.held_out = (kind(layer.groups, columns, layer.outputs) for _ in range(2))
    bounds: list[Array | None] = [None, None]
    if isinstance(into.train, Rows) and task.intercept:
        top = bias_on_top(layer) + (0.0 if added is None else layer.results(added, picks))
        bounds = [None if end is None else np.broadcast_to(end - top, results.shape) for end in task.bounds]
    for samples_of, own in ((into.train, ~held_out), (into.held_out, held_out)):
        assert samples_of is not None
        if own.any():
            cut = [None if one is None else one[:, own] for one in bounds]
            with np.errstate(over="ignore", invalid="ignore"):
                samples_of.add(rows[:, own], results[:, own], *(cut if isinstance(samples_of, Rows) else ()))
