"""Control flow: If, Loop, Scan."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from graphopt.torch.node import OpNode
from graphopt.torch.program import Body
from graphopt.torch.registry import builds
from graphopt.torch.values import Run, number

__all__: list[str] = []


@builds("If", sizes=(0,), run=True)
def branch(node: OpNode) -> Callable[..., Any]:
    return functools.partial(_branch, then=node.program("then_branch"), other=node.program("else_branch"))


def _branch(condition: Any, *captured: Any, then: Body, other: Body, run: Run) -> Any:
    outputs = (then if bool(number(condition)) else other)((), captured, run)
    return outputs[0] if len(outputs) == 1 else outputs


@builds("Loop", sizes=(0, 1), run=True)
def loop(node: OpNode) -> Callable[..., Any]:
    body = node.attributes["body"].as_graph()
    carried = len(body.inputs) - 2
    return functools.partial(_loop, body=node.program("body"), carried=carried, count=len(node.node.inputs))


def _loop(*inputs: Any, body: Body, carried: int, count: int, run: Run) -> Any:
    given, captured = inputs[:count], inputs[count:]
    most = None if given[0] is None else int(number(given[0]))
    going = len(given) < 2 or given[1] is None or bool(number(given[1]))
    state = list(given[2:])
    rows: list[list[Any]] = []
    step = 0
    while going and (most is None or step < most):
        number_of = torch.full((), step, dtype=torch.int64, device=run.device)
        going_in = torch.full((), True, dtype=torch.bool, device=run.device)
        results = body((number_of, going_in, *state), captured, run)
        going = bool(number(results[0]))
        state = list(results[1 : 1 + carried])
        rows.append(list(results[1 + carried :]))
        step += 1
    outputs = (*state, *_stacked(rows, body, 1 + carried, run))
    return outputs[0] if len(outputs) == 1 else outputs


def _stacked(rows: list[list[Any]], body: Body, first: int, run: Run) -> list[Tensor]:
    if rows:
        return [torch.stack([row[place] for row in rows]) for place in range(len(rows[0]))]
    return [torch.zeros(0, device=run.device) for _ in body.program.outputs[first:]]


@builds("Scan", run=True)
def scan_batched(node: OpNode) -> Callable[..., Any]:
    """Opset 8: a batch axis in front of everything, and sequence lengths as first input."""
    scanned = node.attribute("num_scan_inputs")
    backward = node.attribute("directions", (0,) * scanned)
    return functools.partial(
        _scan_batched, body=node.program("body"), scanned=scanned, backward=backward, count=len(node.node.inputs)
    )


def _scan_batched(
    *inputs: Any, body: Body, scanned: int, backward: Sequence[int], count: int, run: Run
) -> tuple[Any, ...]:
    given, captured = inputs[1:count], inputs[count:]
    results = []
    for batch in range(given[-1].shape[0]):
        own = [one[batch] for one in given]
        results.append(_scan_once(own, captured, body, scanned, backward, (), (), (), run))
    return tuple(torch.stack(parts) for parts in zip(*results, strict=True))


@builds("Scan", since=9, run=True)
def scan(node: OpNode) -> Callable[..., Any]:
    scanned = node.attribute("num_scan_inputs")
    return functools.partial(
        _scan,
        body=node.program("body"),
        scanned=scanned,
        backward=node.attribute("scan_input_directions", (0,) * scanned),
        axes=node.attribute("scan_input_axes", (0,) * scanned),
        out_backward=node.attribute("scan_output_directions", ()),
        out_axes=node.attribute("scan_output_axes", ()),
        count=len(node.node.inputs),
    )


def _scan(
    *inputs: Any,
    body: Body,
    scanned: int,
    backward: Sequence[int],
    axes: Sequence[int],
    out_backward: Sequence[int],
    out_axes: Sequence[int],
    count: int,
    run: Run,
) -> Any:
    found = _scan_once(inputs[:count], inputs[count:], body, scanned, backward, axes, out_backward, out_axes, run)
    return found[0] if len(found) == 1 else tuple(found)


def _scan_once(
    given: Sequence[Any],
    captured: Sequence[Any],
    body: Body,
    scanned: int,
    backward: Sequence[int],
    axes: Sequence[int],
    out_backward: Sequence[int],
    out_axes: Sequence[int],
    run: Run,
) -> list[Tensor]:
    carried = len(given) - scanned
    state = list(given[:carried])
    axes = axes or (0,) * scanned
    series = [one.movedim(axis, 0) for one, axis in zip(given[carried:], axes, strict=True)]
    series = [one.flip(0) if back else one for one, back in zip(series, backward, strict=True)]
    rows: list[tuple[Any, ...]] = []
    for step in range(series[0].shape[0]):
        results = body((*state, *(one[step] for one in series)), captured, run)
        state = list(results[:carried])
        rows.append(results[carried:])
    outputs = []
    for place in range(len(body.program.outputs) - carried):
        column = [row[place] for row in rows]
        if place < len(out_backward) and out_backward[place]:
            column.reverse()
        outputs.append(torch.stack(column, out_axes[place] if place < len(out_axes) else 0))
    return [*state, *outputs]
