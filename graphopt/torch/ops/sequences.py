"""Sequences (Python lists of tensors) and optionals (``None`` or what is inside)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graphopt.torch.node import OpNode
from graphopt.torch.registry import builds, op
from graphopt.torch.values import Ints, Run, Sizes, ints

__all__: list[str] = []


@op("SequenceConstruct", since=11)
def construct(*xs: Tensor) -> list[Tensor]:
    return list(xs)


@op("SequenceEmpty", since=11)
def empty(*, dtype: int = 1) -> list[Tensor]:
    return []


@op("SequenceAt", since=11)
def at(xs: list[Tensor], place: Sizes) -> Tensor:
    return xs[ints(place)[0]]


@op("SequenceInsert", since=11)
def insert(xs: list[Tensor], x: Tensor, place: Sizes | None = None) -> list[Tensor]:
    where = len(xs) if place is None else ints(place)[0]
    where = where + len(xs) if where < 0 else where
    return [*xs[:where], x, *xs[where:]]


@op("SequenceErase", since=11)
def erase(xs: list[Tensor], place: Sizes | None = None) -> list[Tensor]:
    where = -1 if place is None else ints(place)[0]
    return [x for number, x in enumerate(xs) if number != where % len(xs)]


@op("SequenceLength", since=11)
def length(xs: list[Tensor], *, run: Run) -> Tensor:
    return torch.tensor(len(xs), device=run.device)


@op("ConcatFromSequence", since=11)
def concat(xs: list[Tensor], *, axis: int, new_axis: int = 0) -> Tensor:
    return torch.stack(xs, axis) if new_axis else torch.cat(xs, axis)


@op("SplitToSequence", since=11)
def split(x: Tensor, sizes: Sizes | None = None, *, axis: int = 0, keepdims: int = 1) -> list[Tensor]:
    if sizes is None:
        parts = list(torch.split(x, 1, axis))
        return parts if keepdims else [part.squeeze(axis) for part in parts]
    given = ints(sizes)
    scalar = sizes.rank == 0 if isinstance(sizes, Ints) else sizes.ndim == 0
    return list(torch.split(x, given[0] if scalar else given, axis))


@builds("SequenceMap", since=17, run=True)
def sequence_map(node: OpNode) -> Callable[..., Any]:
    return functools.partial(_map, body=node.program("body"), count=len(node.node.inputs), outputs=node.outputs)


def _map(*inputs: Any, body: Any, count: int, outputs: int, run: Run) -> Any:
    given, captured = inputs[:count], inputs[count:]
    rows = []
    for place in range(len(given[0])):
        own = [one[place] if isinstance(one, list) else one for one in given]
        rows.append(body(own, captured, run))
    made = tuple([row[place] for row in rows] for place in range(outputs))
    return made if outputs != 1 else made[0]


@builds("Optional", since=15)
def optional(node: OpNode) -> Callable[..., Any]:
    return _optional


def _optional(x: Any = None) -> Any:
    return x


@op("OptionalGetElement", since=15)
def get_element(x: Any) -> Any:
    return x


@op("OptionalHasElement", since=15)
def has_element(x: Any = None, *, run: Run) -> Tensor:
    return torch.tensor(x is not None, device=run.device)
